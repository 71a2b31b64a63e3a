"""A maintenance window as policies carry it: weekly, by the wall clock of whatever device reads it. Pure."""

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

MAX_WINDOWS = 28
"""Of one policy: four a day."""
MAX_WINDOW_MINUTES = 24 * 60

Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
DAYS: tuple[Day, ...] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
"""As ``date.weekday()`` counts them."""
WallTime = Annotated[str, StringConstraints(pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]$")]


def _each_once(days: tuple[Day, ...]) -> tuple[Day, ...]:
    if len(set(days)) != len(days):
        raise ValueError("a day is named twice")
    return days


class PolicyWindow(BaseModel):
    """When devices may be changed, every week. It names no zone: each device counts in its own.

    Attributes:
        days: On which it begins; it may pass midnight.
        start: Wall time, ``HH:MM``. One that a change of clocks skips is the end of the gap; of one that comes twice
            the first counts.
        minutes: How long it stays open, by elapsed time.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    days: Annotated[tuple[Day, ...], Field(min_length=1, max_length=7), AfterValidator(_each_once)]
    start: WallTime
    minutes: Annotated[int, Field(ge=1, le=MAX_WINDOW_MINUTES)]
