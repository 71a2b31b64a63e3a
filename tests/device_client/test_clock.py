"""The machine's clock over a floor: what time is believed, and when a clock is doubted."""

from datetime import UTC, datetime, timedelta

import pytest

from device_client.clock import AHEAD, BEHIND, EARLIEST, FlooredClock, doubt
from protocol.clock import ManualClock

NOON = datetime(2026, 11, 25, 12, tzinfo=UTC)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def test_a_sound_clock_is_believed_as_it_is() -> None:
    """Above its floor a clock is neither moved nor doubted; without a floor neither."""
    clock = FlooredClock(ManualClock(NOON))
    assert (clock.now(), clock.doubt) == (NOON, "")
    clock.set_floor(NOON - timedelta(days=3))
    assert (clock.now(), clock.doubt) == (NOON, "")


def test_a_clock_set_back_is_not_believed_and_time_goes_on_from_the_floor() -> None:
    """A device that starts in 1970 knows no earlier instant than was signed, and counts on from there."""
    wall = ManualClock(EPOCH)
    clock = FlooredClock(wall)
    clock.set_floor(NOON)
    assert clock.now() == NOON
    wall.advance(3600)
    assert clock.now() == NOON + timedelta(hours=1)
    clock.set_floor(NOON + timedelta(minutes=90))
    wall.advance(60)
    assert clock.now() == NOON + timedelta(minutes=91)
    wall.set_wall(NOON + timedelta(days=1))
    assert (clock.now(), clock.doubt) == (NOON + timedelta(days=1), "")


def test_the_same_floor_again_does_not_hold_time_back() -> None:
    """Saving floors for another reason must not start the count anew."""
    wall = ManualClock(EPOCH)
    clock = FlooredClock(wall)
    clock.set_floor(NOON)
    wall.advance(10)
    clock.set_floor(NOON)
    assert clock.now() == NOON + timedelta(seconds=10)


@pytest.mark.parametrize(
    ("wall", "lowest", "doubted"),
    [
        (EPOCH, None, True),
        (EARLIEST, None, False),
        (datetime(2099, 1, 1, tzinfo=UTC), None, False),  # nothing is known that speaks against it
        (NOON - BEHIND, NOON, False),
        (NOON - BEHIND - timedelta(seconds=1), NOON, True),
        (NOON + AHEAD, NOON, False),
        (NOON + AHEAD + timedelta(seconds=1), NOON, True),
        (datetime(2099, 1, 1, tzinfo=UTC), NOON, True),
    ],
)
def test_when_a_clock_is_doubted(wall: datetime, lowest: datetime | None, doubted: bool) -> None:
    """Before this program existed, behind what was signed, or years after it."""
    assert bool(doubt(wall, lowest)) is doubted
