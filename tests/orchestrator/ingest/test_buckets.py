"""Token buckets: a minute's worth at once, then at the rate, each name by itself."""

from datetime import UTC, datetime

from orchestrator.ingest.buckets import MAX_NAMES, Buckets
from protocol.clock import ManualClock


def test_a_flood_gets_a_minutes_worth_and_then_the_rate() -> None:
    """What was not used is not saved up beyond a minute; another name is not touched."""
    clock = ManualClock(datetime(2026, 11, 25, tzinfo=UTC))
    buckets = Buckets(clock)
    assert sum(buckets.take("a", 6) for _ in range(100)) == 6
    assert buckets.take("b", 6)
    clock.advance(10)
    assert [buckets.take("a", 6), buckets.take("a", 6)] == [True, False]
    clock.advance(86_400)
    assert sum(buckets.take("a", 6) for _ in range(100)) == 6


def test_names_are_bounded() -> None:
    """A flood under ever new names fills no memory; the names heard last stay limited."""
    buckets = Buckets(ManualClock(datetime(2026, 11, 25, tzinfo=UTC)))
    for number in range(MAX_NAMES + 100):
        buckets.take(f"n{number}", 1)
    assert len(buckets._levels) == MAX_NAMES
    assert not buckets.take(f"n{MAX_NAMES + 99}", 1)
