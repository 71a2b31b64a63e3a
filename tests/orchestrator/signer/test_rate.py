"""A burst, then what time brings."""

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.signer.rate import RateLimit


def test_a_burst_and_then_one_per_interval() -> None:
    """The wait that is told is the wait that is needed."""
    limit = RateLimit(60, 2)
    assert [limit.take(0.0) for _ in range(3)] == [0.0, 0.0, 1.0]
    assert limit.take(0.5) == 0.5
    assert limit.take(1.0) == 0.0


def test_a_clock_that_goes_back_brings_nothing() -> None:
    """Nor does it take anything away."""
    limit = RateLimit(60, 1)
    assert limit.take(100.0) == 0.0
    assert limit.take(0.0) > 0
    assert limit.take(1.0) == 0.0


@given(steps=st.lists(st.floats(min_value=0, max_value=30), max_size=60), burst=st.integers(1, 20))
def test_never_more_than_burst_and_rate_allow(steps: list[float], burst: int) -> None:
    """However askers come."""
    limit, now, taken = RateLimit(60, burst), 0.0, 0
    for step in steps:
        now += step
        taken += limit.take(now) == 0.0
        assert taken <= burst + now + 1e-6
