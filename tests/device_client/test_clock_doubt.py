"""A clock that cannot be right is told once, and again when it was right in between."""

from datetime import UTC, datetime

from device_client.clock import FlooredClock
from device_client.clock_doubt import ClockDoubt
from device_client.refusals import Refusals
from protocol.clock import ManualClock


def test_once_until_it_was_right() -> None:
    """However often it is looked at."""
    noon = datetime(2026, 11, 25, 12, tzinfo=UTC)
    clock = ManualClock(noon)
    refusals = Refusals(clock)
    doubt = ClockDoubt(FlooredClock(clock), refusals)
    counts = []
    for wall in (
        noon,
        datetime(1970, 1, 1, tzinfo=UTC),
        datetime(1970, 1, 1, tzinfo=UTC),
        noon,
        noon.replace(year=1980),
    ):
        clock.set_wall(wall)
        doubt.look()
        counts.append(refusals.counts["E_CLOCK"])
    assert counts == [0, 1, 1, 1, 2]
