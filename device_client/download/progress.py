"""How far one update's download is, for people. Pure: the caller brings the time.

The percentage is of what will be installed; copied and resumed bytes count at once. It never falls: what was damaged
and is fetched again has been counted. Before the sealed manifest is open, how much there is to do is not known.
"""

from collections import deque
from dataclasses import dataclass, field
from typing import Protocol

RATE_OVER_S = 10.0
MAX_SAMPLES = 64
MAX_REMAINING_S = 1e9
"""What takes longer is not foretold; ``protocol.reports.Progress`` carries no more."""


class Moved(Protocol):
    """What a running transfer tells; ``downloader.Transfer``."""

    @property
    def present_bytes(self) -> int:
        """Verified bytes on the disk, of ``total_bytes``."""
        ...

    @property
    def total_bytes(self) -> int:
        """Bytes of the whole."""
        ...

    @property
    def fetched_bytes(self) -> int:
        """Ciphertext that came in this run."""
        ...

    @property
    def copied_bytes(self) -> int:
        """Bytes that were copied in this run from what the device runs."""
        ...

    @property
    def delta_bytes(self) -> int:
        """Those of ``fetched_bytes`` that were deltas."""
        ...


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a download stands.

    Attributes:
        percent: Of ``total_bytes``; 0 while the sealed manifest is fetched.
        present_bytes: Verified bytes on the disk.
        fetched_bytes: Ciphertext that came over the network, for the manifest and for chunks.
        copied_bytes: Bytes that were copied from what the device runs.
        delta_bytes: Those of ``fetched_bytes`` that were deltas.
        total_bytes: Of what will be installed; 0 while it is not known.
        rate_bytes_s: Ciphertext per second, over the last seconds.
        remaining_s: At the rate of the last seconds; None where nothing moves, or hardly.
    """

    percent: float = 0.0
    present_bytes: int = 0
    fetched_bytes: int = 0
    copied_bytes: int = 0
    delta_bytes: int = 0
    total_bytes: int = 0
    rate_bytes_s: float = 0.0
    remaining_s: float | None = None


@dataclass(slots=True)
class DownloadProgress:
    """The download of one update: the sealed manifest first, then the chunks.

    Attributes:
        before_bytes: What earlier runs had fetched of it.
    """

    before_bytes: int = 0
    _before_copied: int = 0
    _before_delta: int = 0
    _listed_bytes: int = 0
    _high: float = 0.0
    _standing: Standing = field(default_factory=Standing)
    _samples: deque[tuple[float, int, int]] = field(default_factory=lambda: deque(maxlen=MAX_SAMPLES))

    @property
    def standing(self) -> Standing:
        """What was told last."""
        return self._standing

    def again(self) -> None:
        """A new run of the same download begins; what former runs moved counts on."""
        done = self._standing
        self.before_bytes, self._before_copied = max(self.before_bytes, done.fetched_bytes), done.copied_bytes
        self._before_delta, self._listed_bytes = done.delta_bytes, 0
        self._samples.clear()

    def listed(self, moved: Moved, now: float) -> Standing:
        """The sealed manifest is on its way."""
        self._listed_bytes = moved.fetched_bytes
        self._standing = Standing(
            percent=self._high,
            fetched_bytes=self.before_bytes + moved.fetched_bytes,
            copied_bytes=self._before_copied,
            delta_bytes=self._before_delta,
            rate_bytes_s=self._rate(now, moved.fetched_bytes, 0)[0],
        )
        return self._standing

    def moved(self, moved: Moved, now: float) -> Standing:
        """Chunks are on their way."""
        fetched = self._listed_bytes + moved.fetched_bytes
        rate, growth = self._rate(now, fetched, moved.present_bytes)
        left = moved.total_bytes - moved.present_bytes
        self._high = max(self._high, 100.0 * moved.present_bytes / moved.total_bytes if moved.total_bytes else 100.0)
        self._standing = Standing(
            percent=self._high,
            present_bytes=moved.present_bytes,
            fetched_bytes=self.before_bytes + fetched,
            copied_bytes=self._before_copied + moved.copied_bytes,
            delta_bytes=self._before_delta + moved.delta_bytes,
            total_bytes=moved.total_bytes,
            rate_bytes_s=rate,
            remaining_s=left / growth if left < growth * MAX_REMAINING_S else None if left else 0.0,
        )
        return self._standing

    def _rate(self, now: float, fetched: int, present: int) -> tuple[float, float]:
        """(ciphertext, installed bytes) per second over the last seconds."""
        samples = self._samples
        if samples and present < samples[-1][2]:
            samples.clear()  # damaged and hashed again: the way back is no rate
        if not samples or now > samples[-1][0]:
            samples.append((now, fetched, present))
        while len(samples) > 2 and samples[1][0] <= now - RATE_OVER_S:
            samples.popleft()
        began, fetched_then, present_then = samples[0]
        passed = now - began
        if passed <= 0:
            return 0.0, 0.0
        return max(0.0, (fetched - fetched_then) / passed), max(0.0, (present - present_then) / passed)
