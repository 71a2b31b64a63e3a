"""Is this a time at which the owner lets the device be changed? Weekly windows in the device's own time zone.

A window is closed while the machine's clock is not believed: who can set a clock must not be able to open it.
"""

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from device_client.clock import FlooredClock
from device_client.config import WindowSection
from device_client.gates.gate import GateContext, Ready, Verdict, Wait
from protocol.clock import rfc3339
from protocol.states import Phase

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_DOUBT_RETRY_S = 60.0


class WindowGate:
    """Open inside of any window; downloading needs none."""

    name = "window"

    def __init__(self, windows: Sequence[WindowSection], clock: FlooredClock) -> None:
        self._windows = windows
        self._clock = clock

    async def judge(self, context: GateContext) -> Verdict:
        """Judge at the clock's now."""
        if context.phase is Phase.DOWNLOAD or not self._windows:
            return Ready()
        if self._clock.doubt:
            return Wait(
                "clock", f"no window opens by a clock that is not believed: {self._clock.doubt}", _DOUBT_RETRY_S
            )
        return judge(self._windows, self._clock.now())


def judge(windows: Sequence[WindowSection], now: datetime) -> Verdict:
    """Pure."""
    spans = [span for window in windows for span in _spans(window, now)]
    if any(start <= now < end for start, end in spans):
        return Ready()
    following = min(start for start, _ in spans if start > now)
    return Wait("closed", f"the next window opens at {rfc3339(following)}", (following - now).total_seconds())


def _spans(window: WindowSection, now: datetime) -> Iterator[tuple[datetime, datetime]]:
    """The window's spans from the day before until a week and a day ahead, in UTC."""
    zone = ZoneInfo(window.timezone)
    today = now.astimezone(zone).date()
    for offset in range(-1, 9):
        day = today + timedelta(days=offset)
        if DAYS[day.weekday()] in window.days:
            start = _instant(datetime.combine(day, window.start), zone)
            yield start, start + timedelta(minutes=window.minutes)


def _instant(local: datetime, zone: ZoneInfo) -> datetime:
    """A wall time as an instant: the first of two where clocks go back, the end of the gap where they go forward."""
    start = local.replace(tzinfo=zone, fold=0).astimezone(UTC)
    if start.astimezone(zone).replace(tzinfo=None) == local:
        return start
    # In a gap fold 0 counts with the offset before it: that instant is as long behind the gap's end as local is in it.
    return _end_of_gap(
        local.replace(tzinfo=zone, fold=1).astimezone(UTC), start, lambda at: at.astimezone(zone).utcoffset()
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
