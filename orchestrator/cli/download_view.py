"""Bytes of a rollout's downloads in words: how far, by which way, how fast, how long still. Pure.

The rate is that of the whole fleet, between statuses that were seen; so ``status``, which sees one, shows none.
"""

from collections import deque
from datetime import datetime

from protocol.status_messages import BytesMoved, RolloutStatus

RATE_OVER_S = 30.0
MAX_SAMPLES = 256


class DownloadView:
    """What was seen of one rollout's downloads; percentages never fall."""

    def __init__(self) -> None:
        self._samples: deque[tuple[datetime, int, int]] = deque(maxlen=MAX_SAMPLES)
        self._high: dict[str, int] = {}

    def see(self, status: RolloutStatus) -> None:
        """Take the next status."""
        moved = status.moved
        if moved is None or (self._samples and status.at <= self._samples[-1][0]):
            return
        self._samples.append((status.at, moved.fetched, moved.present))
        while len(self._samples) > 2 and (status.at - self._samples[1][0]).total_seconds() >= RATE_OVER_S:
            self._samples.popleft()

    def percent(self, name: str, moved: BytesMoved) -> int:
        """Of a stage, or of all under ``""``: whole percent, and never less than before."""
        now = 100 * moved.present // moved.expected if moved.expected else 0
        self._high[name] = max(now, self._high.get(name, 0))
        return self._high[name]

    def total(self, moved: BytesMoved | None) -> str:
        """One line for the whole rollout; "" where nothing is known."""
        if moved is None or not moved.expected:
            return ""
        text = f"{self.percent('', moved)} % of {size(moved.expected)} on devices: {ways(moved)}"
        rate, growth = self._rates()
        if rate or growth:
            text += f"; {size(rate)}/s"
            left = moved.expected - moved.present
            if growth and left:
                text += f", {duration(left / growth)} left"
        return text

    def _rates(self) -> tuple[float, float]:
        """(fetched, installed) bytes per second between the first and the last status that count."""
        if len(self._samples) < 2:
            return 0.0, 0.0
        (began, fetched, present), (ended, fetched_now, present_now) = self._samples[0], self._samples[-1]
        passed = (ended - began).total_seconds()
        return max(0.0, (fetched_now - fetched) / passed), max(0.0, (present_now - present) / passed)


def ways(moved: BytesMoved) -> str:
    """How the bytes came."""
    parts = [f"fetched {size(moved.fetched)}"]
    if moved.delta:
        parts.append(f"{size(moved.delta)} of it by delta")
    if moved.copied:
        parts.append(f"copied {size(moved.copied)}")
    return ", ".join(parts)


def size(size_bytes: float) -> str:
    """Decimal units, three digits."""
    for unit, factor in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size_bytes >= factor:
            return (
                f"{size_bytes / factor:.3g} {unit}"
                if size_bytes < 1000 * factor
                else f"{size_bytes / factor:.0f} {unit}"
            )
    return f"{size_bytes:.0f} B"


def duration(seconds: float) -> str:
    """The two largest units."""
    whole = round(seconds)
    for unit, length, part, below in (("d", 86_400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1)):
        if whole >= length:
            return f"{whole // length} {unit} {whole % length // below} {part}"
    return f"{whole} s"
