"""Which source is asked: the preferred one, the next when it fails, back after a while, never to and fro."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_client.download.source_choice import (
    ELSEWHERE_AFTER,
    FAILING_WINDOWS,
    MAX_DOUBLINGS,
    ChoiceLimits,
    Misses,
    SourceChoice,
)

LIMITS = ChoiceLimits(return_after_s=60, grace_s=5)
BOTH, FIRST, SECOND, NONE = [True, True], [True, False], [False, True], [False, False]


def _choice(count: int = 2) -> SourceChoice:
    return SourceChoice(count, LIMITS, Random(1))


def test_the_preferred_is_asked_first() -> None:
    """Order decides while all are well."""
    assert _choice().choose(BOTH, 0.0) == 0


def test_the_preferred_is_given_a_moment_to_become_ready() -> None:
    """At the start, and when it goes in the middle; then the next is taken."""
    choice = _choice()
    assert choice.choose(SECOND, 0.0) is None
    assert choice.next_change(1.0) == 4
    assert choice.choose(SECOND, 4.9) is None
    assert choice.choose(BOTH, 4.95) == 0
    assert choice.choose(SECOND, 10.0) is None
    assert choice.choose(SECOND, 15.0) == 1


def test_no_grace_waits_for_what_was_never_there() -> None:
    """The next is taken at once; when the preferred one appears it is asked, and is given a moment from then on."""
    choice = SourceChoice(2, LIMITS, Random(1), {0})
    assert choice.choose(SECOND, 0.0) == 1
    assert choice.choose(BOTH, 1.0) == 0
    assert choice.choose(SECOND, 2.0) is None
    assert choice.choose(SECOND, 7.0) == 1


def test_the_preferred_is_taken_again_after_a_while() -> None:
    """One that went and came back is not asked at once: a link that comes and goes is left alone for a while."""
    choice = _choice()
    choice.choose(BOTH, 0.0)
    choice.choose(SECOND, 10.0)
    assert choice.choose(SECOND, 15.0) == 1
    assert choice.choose(BOTH, 16.0) == 1
    assert choice.choose(BOTH, 15.0 + 60 * 0.74) == 1
    assert choice.choose(BOTH, 15.0 + 60 * 1.26) == 0


def test_one_that_fails_again_and_again_is_left_for_longer() -> None:
    """Each time twice as long, up to a bound; one that was good for as long as that begins anew."""
    choice, now, waits = _choice(), 0.0, []
    for _ in range(MAX_DOUBLINGS + 3):
        assert choice.choose(BOTH, now) == 0
        choice.failed(0, now)
        left_at = now
        while choice.choose(BOTH, now) == 1:
            now += 1
        waits.append(now - left_at)
    for number, wait_s in enumerate(waits):
        base_s = 60 * 2 ** min(number, MAX_DOUBLINGS)
        assert 0.75 * base_s - 1 <= wait_s <= 1.25 * base_s + 1
    now += 1.3 * 60 * 2**MAX_DOUBLINGS
    assert choice.choose(BOTH, now) == 0
    choice.failed(0, now)
    assert choice.choose(BOTH, now) == 1
    assert choice.choose(BOTH, now + 76) == 0


def test_when_all_have_failed_the_present_one_stays() -> None:
    """Two slow sources do not take turns."""
    choice = _choice()
    choice.choose(BOTH, 0.0)
    choice.failed(0, 0.0)
    assert choice.choose(BOTH, 1.0) == 1
    choice.failed(1, 1.0)
    assert not choice.others(1, BOTH, 1.0)
    assert {choice.choose(BOTH, now) for now in (1.0, 5.0, 20.0, 40.0)} == {1}
    assert choice.choose(FIRST, 41.0) == 0, "barred, but nobody else is ready"


def test_a_single_source_is_waited_for() -> None:
    """However long it is not ready, and however bad it is."""
    choice = _choice(1)
    assert choice.choose([True], 0.0) == 0
    choice.failed(0, 0.0)
    assert choice.choose([True], 1.0) == 0
    assert choice.choose([False], 1000.0) is None
    assert choice.choose([True], 2000.0) == 0


def test_windows_of_nothing_make_a_failing_source() -> None:
    """Only one after the other."""
    choice = _choice()
    assert [choice.answered(0, came=0) for _ in range(FAILING_WINDOWS)] == [False] * (FAILING_WINDOWS - 1) + [True]
    choice.answered(0, came=1)
    assert not choice.answered(0, came=0)


def test_a_chunk_that_does_not_come_is_asked_of_another() -> None:
    """After some tries, that chunk alone; of whoever failed least for it when nobody has it."""
    misses = Misses()
    for _ in range(ELSEWHERE_AFTER - 1):
        misses.missed("a", 0)
        assert misses.route(["a", "b"], 0, BOTH) == {0: ["a", "b"]}
    misses.missed("a", 0)
    assert misses.route(["a", "b"], 0, BOTH) == {1: ["a"], 0: ["b"]}
    assert misses.route(["a", "b"], 0, FIRST) == {0: ["a", "b"]}
    assert not misses.is_nowhere("a", 0, BOTH)
    assert misses.is_nowhere("a", 0, FIRST)
    for _ in range(ELSEWHERE_AFTER):
        misses.missed("a", 1)
    assert misses.route(["a"], 0, BOTH) == {0: ["a"]}
    misses.missed("a", 0)
    assert misses.route(["a"], 0, BOTH) == {1: ["a"]}


def test_a_chunk_that_came_wrong_is_asked_of_another_at_once() -> None:
    """A source that holds something else has nothing better."""
    misses = Misses()
    misses.spoiled("a", 0)
    assert misses.route(["a"], 0, BOTH) == {1: ["a"]}
    misses.renewed(0)
    assert misses.route(["a"], 0, BOTH) == {0: ["a"]}


def test_what_is_verified_is_forgotten() -> None:
    """Memory holds only what is missing."""
    misses = Misses()
    for _ in range(ELSEWHERE_AFTER):
        misses.missed("a", 0)
    misses.settled(["a", "b"])
    assert misses.route(["a"], 0, BOTH) == {0: ["a"]}
    assert not misses._misses


EVENTS = st.sampled_from(["window", "empty", "slow", "up 0", "down 0", "up 1", "down 1", "up 2", "down 2"])


@given(st.lists(st.tuples(EVENTS, st.floats(0, 30)), max_size=120), st.integers(0, 2**32))
def test_no_order_of_events_makes_sources_take_turns(events: list[tuple[str, float]], seed: int) -> None:
    """Only a ready source is chosen, one is chosen whenever one is ready and due, and a return takes its time."""
    choice = SourceChoice(3, LIMITS, Random(seed))
    ready, now = [True] * 3, 0.0
    left_at: dict[int, float] = {}

    def fail(source: int) -> None:
        if choice.others(source, ready, now):
            choice.failed(source, now)
            left_at[source] = now

    for event, pause_s in events:
        now += pause_s
        former = choice.current
        chosen = choice.choose(ready, now)
        if chosen is None:
            assert not any(ready) or choice.next_change(now) is not None
            continue
        assert ready[chosen]
        if former is not None and former != chosen:
            if ready[former]:
                assert now - left_at.get(chosen, -1e9) >= 0.75 * 60 or left_at[former] > left_at[chosen]
            else:
                left_at[former] = now
        match event.split():
            case ["up", n]:
                ready[int(n)] = True
            case ["down", n]:
                ready[int(n)] = False
            case ["slow"]:
                fail(chosen)
            case _ if choice.answered(chosen, came=int(event == "window")):
                fail(chosen)


@pytest.mark.parametrize("seed", range(3))
def test_returns_are_jittered(seed: int) -> None:
    """Devices that were left by one server at one instant do not come back at one instant."""
    waits = set()
    for number in range(20):
        choice = SourceChoice(2, LIMITS, Random(seed * 100 + number))
        choice.choose(BOTH, 0.0)
        choice.failed(0, 0.0)
        waits.add(next(at for at in range(200) if choice.choose(BOTH, float(at)) == 0))
    assert len(waits) > 5
