"""A limit of the rate: it holds on average from the start, and no burst is larger than a window."""

from hypothesis import given
from hypothesis import strategies as st

from device_client.download.pace import Pace


@given(
    st.integers(1, 10**7),
    st.lists(st.tuples(st.integers(1, 2**20), st.floats(0, 5)), min_size=1, max_size=30),
)
def test_the_average_holds_at_every_instant(rate: int, asks: list[tuple[int, float]]) -> None:
    """Whatever both lanes ask for and when, no more than rate x time and one window is asked for."""
    pace, now, asked = Pace(rate), 100.0, 0
    for size, pause_s in asks:
        now += pause_s
        at = now + pace.take(size, now)
        assert asked <= rate * (at - 100.0) + max(1, rate * at * 1e-12) + 1e-6
        asked += size


def test_what_was_not_used_is_not_saved_up() -> None:
    """After a long pause there is no larger burst."""
    pace = Pace(100)
    assert pace.take(100, 0.0) == 0
    assert pace.take(100, 50.0) == 0
    assert pace.take(100, 50.0) == 1
    assert pace.take(100, 50.0) == 2


def test_no_limit() -> None:
    """0 means that nothing is held back."""
    pace = Pace(0)
    assert [pace.take(10**9, 0.0) for _ in range(3)] == [0, 0, 0]
    assert pace.window_bytes(123) == 123


def test_a_low_limit_makes_windows_small() -> None:
    """A second's worth at a time."""
    assert Pace(50).window_bytes(100) == 50
    assert Pace(500).window_bytes(100) == 100
