"""Is this a time at which the device may be changed? Weekly windows by wall time, on days when clocks change too.

The device's owner may name windows, and so may the release and the rollout. Each of them that names some has one that
is open, or the gate is shut: nobody's windows open another's. All of them count in the device's own time zone.

A window is closed while the machine's clock is not believed: who can set a clock must not be able to open it.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta, tzinfo
from zoneinfo import ZoneInfo

from device_client.clock import FlooredClock
from device_client.config_windows import WindowSection
from device_client.gates.gate import GateContext, Ready, Verdict, Wait
from device_client.gates.policy import WindowSet
from protocol.clock import rfc3339
from protocol.states import Phase
from protocol.windows import DAYS, Day

HORIZON = timedelta(days=14)
"""How far ahead an instant is looked for at which all windows are open."""
_DOUBT_RETRY_S = 60.0
_NEVER_RETRY_S = 86_400.0
_TOLD = 2
"""Windows of one set that a reason spells out."""

Span = tuple[datetime, datetime]


@dataclass(frozen=True, slots=True)
class LocalWindow:
    """A window in the zone in which it counts."""

    days: tuple[Day, ...]
    start: time
    minutes: int
    zone: tzinfo

    def __str__(self) -> str:
        return f"{', '.join(self.days)} {self.start:%H:%M} {self.zone} for {self.minutes} min"


@dataclass(frozen=True, slots=True)
class LocalSet:
    """Windows of which one must be open.

    Attributes:
        whose: Who demands it, for people.
    """

    whose: str
    windows: tuple[LocalWindow, ...]

    def __str__(self) -> str:
        told = "; ".join(map(str, self.windows[:_TOLD]))
        more = len(self.windows) - _TOLD
        return f"{self.whose} ({told}{f' and {more} more' if more > 0 else ''})"


class WindowGate:
    """Open inside of a window of each that names some; downloading needs none."""

    name = "window"

    def __init__(self, windows: Sequence[WindowSection], zone: Callable[[], str], clock: FlooredClock) -> None:
        """Watch the time.

        Args:
            windows: Of the device's owner.
            zone: The IANA name of the device's zone; asked each time, for people set it while the agent runs.
            clock: The machine's, and whether it is believed.
        """
        self._windows = windows
        self._zone = zone
        self._clock = clock

    async def judge(self, context: GateContext) -> Verdict:
        """Judge at the clock's now."""
        if context.phase is Phase.DOWNLOAD or not (self._windows or context.window_sets):
            return Ready("downloading waits for none" if context.phase is Phase.DOWNLOAD else "none is demanded")
        if self._clock.doubt:
            return Wait(
                "clock", f"no window opens by a clock that is not believed: {self._clock.doubt}", _DOUBT_RETRY_S
            )
        return judge(self._sets(context), self._clock.now())

    def _sets(self, context: GateContext) -> list[LocalSet]:
        zone = self._zone()
        own = tuple(LocalWindow(w.days, w.start, w.minutes, _tz(w.timezone or zone)) for w in self._windows)
        return [*([LocalSet("device", own)] if own else []), *(local(named, zone) for named in context.window_sets)]


def local(named: WindowSet, zone: str) -> LocalSet:
    """A policy's windows where they count."""
    tz = _tz(zone)
    windows = (LocalWindow(w.days, time.fromisoformat(w.start), w.minutes, tz) for w in named.windows)
    return LocalSet(named.whose, tuple(windows))


def judge(sets: Sequence[LocalSet], now: datetime) -> Verdict:
    """Ready inside of a window of every set; else which are shut, and when all are next open at once. Pure."""
    spans = [sorted(span for window in named.windows for span in _spans(window, now)) for named in sets]
    shut = [str(named) for named, its in zip(sets, spans, strict=True) if not _holds(its, now)]
    if not shut:
        closes = min(max(end for start, end in its if start <= now < end) for its in spans)
        return Ready(f"open until {rfc3339(closes)}: {'; '.join(map(str, sets))}")
    common = spans[0]
    for its in spans[1:]:
        common = _common(common, its)
    following = next((start for start, _ in common if now < start <= now + HORIZON), None)
    if following is None:
        detail = f"not all windows are open at once within {HORIZON.days} days; shut: {'; '.join(shut)}"
        return Wait("closed", detail, _NEVER_RETRY_S)
    detail = f"the next window opens at {rfc3339(following)}; shut: {'; '.join(shut)}"
    return Wait("closed", detail, (following - now).total_seconds())


def _holds(spans: Sequence[Span], now: datetime) -> bool:
    return any(start <= now < end for start, end in spans)


def _common(one: Sequence[Span], other: Sequence[Span]) -> list[Span]:
    """Where both are open, by when that begins. Spans of one list may overlap."""
    common: list[Span] = []
    left = right = 0
    while left < len(one) and right < len(other):
        start, end = max(one[left][0], other[right][0]), min(one[left][1], other[right][1])
        if start < end:
            common.append((start, end))
        if one[left][1] == end:
            left += 1
        else:
            right += 1
    return common


def _spans(window: LocalWindow, now: datetime) -> Iterator[Span]:
    """The window's spans from two days before until past the horizon, in UTC."""
    today = now.astimezone(window.zone).date()
    for offset in range(-2, HORIZON.days + 2):
        day = today + timedelta(days=offset)
        if DAYS[day.weekday()] in window.days:
            start = _instant(datetime.combine(day, window.start), window.zone)
            yield start, start + timedelta(minutes=window.minutes)


def _tz(name: str) -> tzinfo:
    return UTC if name == "UTC" else ZoneInfo(name)  # a device without a time zone database has that one


def _instant(local_time: datetime, zone: tzinfo) -> datetime:
    """A wall time as an instant: the first of two where clocks go back, the end of the gap where they go forward."""
    start = local_time.replace(tzinfo=zone, fold=0).astimezone(UTC)
    if start.astimezone(zone).replace(tzinfo=None) == local_time:
        return start
    # In a gap fold 0 counts with the offset before it: that instant is as long behind the gap's end as local is in it.
    return _end_of_gap(
        local_time.replace(tzinfo=zone, fold=1).astimezone(UTC), start, lambda at: at.astimezone(zone).utcoffset()
    )


def _end_of_gap(before: datetime, after: datetime, offset: Callable[[datetime], timedelta | None]) -> datetime:
    """The instant between two at which the offset changes, to the second."""
    low, high = int(before.timestamp()), int(after.timestamp())
    first = offset(before)
    while high - low > 1:
        middle = (low + high) // 2
        if offset(datetime.fromtimestamp(middle, UTC)) == first:
            low = middle
        else:
            high = middle
    return datetime.fromtimestamp(high, UTC)
