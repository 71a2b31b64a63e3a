"""Plans that cannot work, whatever devices do: times that are past, windows that never open, budgets below one image.

Pure. What a plan says wrongly by itself is refused when it is read (``model.plan``); here the release and the time are
known too.
"""

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Protocol

from orchestrator.errors import ConflictError, UsageError
from orchestrator.model.plan import MAX_TERM, RolloutSpec

JUST_NOW = timedelta(minutes=1)
"""A start that passed while the command was on its way still counts as now."""
WEST, EAST = timedelta(hours=-12), timedelta(hours=14)
"""The zones of the earth: how far wall clocks are from UTC."""
_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_WEEK = 7


class Window(Protocol):
    """When devices may be changed, every week, by their own wall clocks."""

    @property
    def days(self) -> Sequence[str]:
        """On which it begins: ``mon`` to ``sun``."""
        ...

    @property
    def start(self) -> str:
        """``HH:MM``."""
        ...

    @property
    def minutes(self) -> int:
        """How long it stays open."""
        ...


def check_plan(spec: RolloutSpec, *, image_bytes: int, now: datetime, windows: Sequence[Window] = ()) -> None:
    """Refuse what cannot work.

    Args:
        spec: The plan.
        image_bytes: What the release installs on a device.
        now: For times that are past.
        windows: Of the plan's policy; one of them must be open for a device to be changed.

    Raises:
        UsageError: A time is past or too far away.
        ConflictError: No device could ever be offered the release, or install it.
    """
    _check_times(spec, now)
    budget = spec.site_bytes_per_hour
    if budget is not None and budget < image_bytes:
        raise ConflictError(
            f"site_bytes_per_hour {budget}: {spec.release} is {image_bytes} bytes, so that no device would ever be "
            f"offered it; allow at least {image_bytes}"
        )
    if windows and spec.end_at is not None and not spec.emergency:
        begin = max(now, spec.start_at or now)
        if not any(opens_between(window, begin, spec.end_at) for window in windows):
            raise ConflictError(
                f"policy.windows: none opens between {_text(begin)} and end_at {_text(spec.end_at)} in any zone of the "
                "earth; move end_at, or add a window"
            )


def opens_between(window: Window, begin: datetime, end: datetime) -> bool:
    """Whether a window is open at some time between two instants on the wall clock of some place on earth."""
    # Over all zones together the wall clock shows every time of this one span.
    first = begin.astimezone(UTC).replace(tzinfo=None) + WEST
    last = end.astimezone(UTC).replace(tzinfo=None) + EAST
    length = timedelta(minutes=window.minutes)
    hour, minute = (int(part) for part in window.start.split(":"))
    day: date = (first - length).date()
    for _ in range(min((last.date() - day).days, _WEEK + 1) + 1):
        opens = datetime.combine(day, datetime.min.time()) + timedelta(hours=hour, minutes=minute)
        if _DAYS[day.weekday()] in window.days and opens < last and opens + length > first:
            return True
        day += timedelta(days=1)
    return False


def _check_times(spec: RolloutSpec, now: datetime) -> None:
    for name, at in (("start_at", spec.start_at), ("end_at", spec.end_at)):
        if at is not None and at < now - JUST_NOW:
            raise UsageError(f"{name} {_text(at)}: is past; name a later time, or leave it out")
    begin = spec.start_at or now
    if spec.end_at is not None and spec.end_at - max(begin, now) > MAX_TERM:
        raise UsageError(
            f"end_at {_text(spec.end_at)}: expected at most {MAX_TERM.days} days from the start, "
            f"found {(spec.end_at - begin).days}"
        )


def _text(at: datetime) -> str:
    return f"{at:%Y-%m-%dT%H:%M:%S%z}"
