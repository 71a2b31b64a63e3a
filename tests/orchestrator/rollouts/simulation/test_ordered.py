"""Members in an order that changes: as a sorted list would have them."""

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.rollouts.simulation.ordered import Ordered

_STEPS = st.lists(st.tuples(st.sampled_from("abcdef"), st.one_of(st.none(), st.integers(0, 3))), max_size=200)


@given(_STEPS, st.integers(0, 8), st.one_of(st.none(), st.integers(0, 3)))
def test_it_finds_what_a_sorted_list_has(steps: list[tuple[str, int | None]], limit: int, until: int | None) -> None:
    """Whatever was put, moved and dropped before; asking changes nothing."""
    found, expected = Ordered[float](), dict[str, int]()
    for member, key in steps:
        if key is None:
            found.drop(member)
            expected.pop(member, None)
        else:
            found.put(member, key)
            expected[member] = key
    in_order = sorted((key, member) for member, key in expected.items())
    upto = [member for key, member in in_order if until is None or key <= until]
    for _ in range(2):
        assert found.first() == (in_order[0][0] if in_order else None)
        assert found.take(limit, until) == upto[:limit]


def test_what_left_does_not_pile_up() -> None:
    """A member that moves a million times costs the memory of one."""
    found = Ordered[float]()
    for key in range(10_000):
        found.put("a", key)
        found.put("b", key)
        found.drop("b")
    assert len(found._heap) < 200
