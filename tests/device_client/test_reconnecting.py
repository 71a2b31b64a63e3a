"""The pause before the next connection: short after a steady one, bounded on a bad link, growing without a broker."""

from random import Random

from device_client.reconnecting import STEADY_S, Reconnecting


def longest(held_s: float | None, attempt: int) -> float:
    """The longest pause before the n-th connection in a row that went like this, of many devices."""
    found = 0.0
    for seed in range(200):
        waits = Reconnecting(1.0, 60.0, Random(seed))
        for _ in range(attempt):
            last = waits.wait_s(held_s)
        found = max(found, last)
    return found


def test_a_broker_that_is_down_is_asked_ever_more_rarely() -> None:
    """Up to the cap."""
    assert longest(None, 1) <= 1 < longest(None, 4)
    assert 30 < longest(None, 20) <= 60


def test_a_bad_link_waits_longer_but_not_long() -> None:
    """And so do two devices that end one another's sessions."""
    assert longest(0.1, 1) <= 1
    assert 4 < longest(0.1, 20) <= 8


def test_a_steady_connection_begins_anew() -> None:
    """However many there were before."""
    assert longest(STEADY_S, 20) <= 1
