"""An idle device says its level: never later than the interval, never in step with the others, never on top of news."""

import itertools
from random import Random

from device_client.heartbeat import Heartbeat

LEVEL_S = 900.0


def beats(seed: int, until_s: int) -> list[int]:
    """At which seconds an idle device speaks."""
    heartbeat, spoke_at, found = Heartbeat(LEVEL_S, Random(seed)), 0.0, []
    for now in range(until_s):
        if heartbeat.is_due(spoke_at, now):
            spoke_at = float(now)
            found.append(now)
    return found


def test_an_idle_device_speaks_at_least_once_per_interval() -> None:
    """And at most twice."""
    for seed in range(20):
        times = [0, *beats(seed, 20_000)]
        gaps = [later - sooner for sooner, later in itertools.pairwise(times)]
        assert LEVEL_S / 2 <= min(gaps)
        assert max(gaps) <= LEVEL_S + 1


def test_devices_do_not_speak_in_step() -> None:
    """A fleet that was switched on together spreads."""
    assert len({beats(seed, 1000)[0] for seed in range(50)}) > 40


def test_whatever_was_said_counts() -> None:
    """A device in the middle of an update says nothing more."""
    heartbeat = Heartbeat(LEVEL_S, Random(1))
    assert not any(heartbeat.is_due(spoke_at=now - 10, now=now) for now in range(10, 5000, 10))


def test_a_new_generation_of_ingest_is_answered_soon() -> None:
    """What was said before may be lost."""
    heartbeat = Heartbeat(LEVEL_S, Random(1))
    assert not heartbeat.is_due(0, 100)
    heartbeat.hurry(5, 100)
    assert heartbeat.is_due(0, 105)
