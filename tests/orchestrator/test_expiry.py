"""When a warning begins, and what it says."""

from datetime import UTC, datetime, timedelta

import pytest

from orchestrator.expiry import Expiring, Level, life_of, worst

NOW = datetime(2026, 11, 25, tzinfo=UTC)


def thing(left: timedelta, life: timedelta = timedelta(days=365)) -> Expiring:
    """Something with a time left."""
    return Expiring("role", "root", NOW + left, life, "renew it")


@pytest.mark.parametrize(
    ("hours", "level"),
    [
        (24 * 30 + 1, Level.FINE),
        (24 * 30, Level.SOON),
        (24 * 7 + 1, Level.SOON),
        (24 * 7, Level.NEAR),
        (25, Level.NEAR),
        (24, Level.LAST),
        (1, Level.LAST),
        (0, Level.EXPIRED),
        (-1, Level.EXPIRED),
    ],
)
def test_thresholds(hours: int, level: Level) -> None:
    """30, 7 and 1 days before the end, each from that instant on."""
    assert thing(timedelta(hours=hours)).level(NOW) is level


def test_what_lives_a_week_does_not_warn_all_its_life() -> None:
    """A timestamp is renewed daily: only its last day is news. A threshold counts below half of the life."""
    timestamp = thing(timedelta(days=6), life_of("timestamp"))
    assert timestamp.level(NOW) is Level.FINE
    assert timestamp.due() == NOW + timedelta(days=5)
    assert thing(timedelta(hours=20), life_of("timestamp")).level(NOW) is Level.LAST


def test_sentences() -> None:
    """What, when, how long still, and what to do."""
    assert thing(timedelta(days=9)).sentence(NOW) == "role root expires 2026-12-04 00:00 UTC, in 9 days; renew it"
    assert thing(timedelta(hours=5)).sentence(NOW) == "role root expires 2026-11-25 05:00 UTC, in 5 hours; renew it"
    assert thing(timedelta(0)).sentence(NOW) == "role root expired 2026-11-25 00:00 UTC; renew it"


def test_the_worst_of_several() -> None:
    """The most urgent one; nothing is fine."""
    assert worst([thing(timedelta(days=40)), thing(timedelta(days=2))], NOW) is Level.NEAR
    assert worst([], NOW) is Level.FINE
