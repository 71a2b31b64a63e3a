"""Too slow or not: an average over windows of asking, and nothing else counts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_client.download.rate_floor import RateFloor


@pytest.mark.parametrize(
    ("size_bytes", "waited_s", "rate"),
    [(999, 10.0, 99.9), (1000, 10.0, None), (0, 10.0, 0.0), (0, 9.9, None), (5000, 100.0, 50.0)],
    ids=["below", "at the floor", "nothing at all", "before the window's end", "a late look"],
)
def test_a_window_is_judged_by_its_average(size_bytes: int, waited_s: float, rate: float | None) -> None:
    """Below the floor the rate is named, at it nothing is; before a window has passed nothing is judged."""
    floor = RateFloor(100, 10)
    floor.asked(5.0)
    floor.arrived(size_bytes)
    found = floor.judge(5.0 + waited_s)
    assert found == (None if rate is None else pytest.approx(rate))


def test_pauses_of_our_own_do_not_count() -> None:
    """A minute in which nothing was asked for makes no source slow."""
    floor = RateFloor(100, 10)
    floor.asked(0.0)
    floor.arrived(600)
    floor.rested(5.0)
    assert floor.judge(65.0) is None
    floor.asked(65.0)
    floor.arrived(600)
    assert floor.judge(70.0) is None


def test_each_window_is_judged_by_itself() -> None:
    """One that is judged is over: the next begins with nothing."""
    floor = RateFloor(100, 10)
    floor.asked(0.0)
    assert [floor.judge(10.0), floor.judge(15.0), floor.judge(20.0)] == [0.0, None, 0.0]
    floor.arrived(1000)
    assert floor.judge(30.0) is None


def test_what_is_forgotten_does_not_count() -> None:
    """The silence of a broker that went is not the next one's."""
    floor = RateFloor(100, 10)
    floor.asked(0.0)
    floor.rested(9.0)
    floor.forget()
    floor.asked(9.0)
    assert floor.judge(12.0) is None


@given(st.lists(st.tuples(st.integers(0, 10**6), st.floats(0, 100)), max_size=50))
def test_no_floor_means_never(steps: list[tuple[int, float]]) -> None:
    """With 0 nothing is ever too slow."""
    floor, now = RateFloor(0, 10), 0.0
    floor.asked(now)
    for size, passed_s in steps:
        floor.arrived(size)
        now += passed_s
        assert floor.judge(now) is None
