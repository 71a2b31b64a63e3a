"""Clocks that are passed in, and the one way times are written."""

from datetime import UTC, datetime, timedelta, timezone

import pytest

from protocol.clock import Clock, ManualClock, SystemClock, rfc3339

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)


def test_manual_clock_moves_only_when_told() -> None:
    """Both clocks stand still until they are advanced, together."""
    clock = ManualClock(NOON)
    assert (clock.now(), clock.monotonic()) == (NOON, 0.0)
    clock.advance(90)
    assert (clock.now(), clock.monotonic()) == (NOON + timedelta(seconds=90), 90.0)


def test_setting_the_wall_leaves_durations_alone() -> None:
    """A jump of the wall clock, as by NTP, does not move the monotonic one."""
    clock = ManualClock(NOON)
    clock.advance(5)
    clock.set_wall(NOON - timedelta(days=1))
    assert (clock.now(), clock.monotonic()) == (NOON - timedelta(days=1), 5.0)


def test_time_does_not_advance_backwards() -> None:
    """Advancing by less than nothing is a caller's bug."""
    with pytest.raises(ValueError, match="advances"):
        ManualClock(NOON).advance(-1)


def test_the_systems_clock_is_aware_and_monotonic() -> None:
    """Wall time has a zone, and the monotonic clock never goes back."""
    clock: Clock = SystemClock()
    assert clock.now().tzinfo is UTC
    assert clock.monotonic() <= clock.monotonic()


def test_times_are_written_in_utc() -> None:
    """A time of another zone is written in UTC, in whole seconds."""
    assert rfc3339(NOON.astimezone(timezone(timedelta(hours=2)))) == "2026-11-23T12:00:00Z"
    with pytest.raises(ValueError, match="zone"):
        rfc3339(datetime(2026, 11, 23, 12))  # noqa: DTZ001 - a naive time is the point
