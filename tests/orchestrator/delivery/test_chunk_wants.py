"""Several wants of a chunk are one publish, and not again for an interval."""

from collections import Counter

from orchestrator.delivery.chunk_wants import MAX_WAITING, ChunkWants
from protocol.clock import ManualClock
from tests.orchestrator.delivery.rows import NOW


def make() -> tuple[ChunkWants, ManualClock, Counter[str]]:
    """Wants of an interval of five seconds, their clock, and what they dropped."""
    clock, dropped = ManualClock(NOW), Counter[str]()
    return ChunkWants(clock, 5.0, lambda reason, count: dropped.update({reason: count})), clock, dropped


def test_the_same_want_of_many_devices_waits_once() -> None:
    """In the order in which chunks were first wanted."""
    wants, _, dropped = make()
    for _ in range(100):
        wants.add(["b", "a"])
    assert (wants.oldest(10), len(wants), dropped) == (["b", "a"], 2, Counter())
    assert wants.woken.is_set()


def test_a_chunk_is_published_at_most_once_in_an_interval() -> None:
    """What is wanted sooner is counted and dropped; after it, it counts again."""
    wants, clock, dropped = make()
    wants.add(["a"])
    wants.done(["a"], ["a"])
    clock.advance(4.9)
    wants.add(["a"])
    assert (wants.oldest(10), dropped) == ([], {"too_soon": 1})
    clock.advance(0.2)
    wants.add(["a"])
    assert wants.oldest(10) == ["a"]


def test_what_has_no_place_on_the_broker_is_counted() -> None:
    """It waits no more, and is not looked for again at once."""
    wants, _, dropped = make()
    wants.add(["a", "b"])
    wants.done(["a", "b"], ["b"])
    wants.add(["a"])
    assert (len(wants), dropped) == (0, {"not_on_broker": 1, "too_soon": 1})


def test_the_queue_is_bounded() -> None:
    """Whatever is wanted, so many wait."""
    wants, _, dropped = make()
    wants.add([str(number) for number in range(MAX_WAITING + 7)])
    assert (len(wants), dropped) == (MAX_WAITING, {"overflow": 7})
