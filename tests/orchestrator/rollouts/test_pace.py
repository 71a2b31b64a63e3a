"""The token bucket: never more than its rate and one burst, and never slower than asked."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.rollouts.pace import Bucket

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)


def test_without_a_pace_the_batch_is_the_only_limit() -> None:
    """No credit is counted and no time is waited for."""
    bucket = Bucket(None).filled(NOW)
    assert bucket.budget(500) == 500
    assert bucket.spent(500) == bucket
    assert bucket.next_at() is None


def test_the_first_offer_is_made_at_once() -> None:
    """A new rollout does not wait for its first token, but gets one only."""
    assert Bucket(0.1).filled(NOW).budget(10) == 1


def test_a_clock_that_went_back_adds_nothing() -> None:
    """Nor does it take away what is there."""
    bucket = Bucket(60, 2.0, NOW).filled(NOW - timedelta(hours=1))
    assert bucket.budget(10) == 2
    assert bucket.filled(NOW).budget(10) == 5  # the burst, whatever the clock says


@given(
    st.floats(0.1, 6000),
    st.lists(st.tuples(st.floats(0, 600), st.integers(0, 100)), max_size=50),
)
def test_the_pace_is_never_exceeded(per_minute: float, looks: list[tuple[float, int]]) -> None:
    """Over any looks, offers are at most the first, the burst, and what the rate gives in that time."""
    bucket, now, made = Bucket(per_minute), NOW, 0
    for seconds, ready in looks:
        now += timedelta(seconds=seconds)
        bucket = bucket.filled(now)
        offers = bucket.budget(ready)
        assert 0 <= offers <= ready
        bucket, made = bucket.spent(offers), made + offers
        elapsed_s = (now - NOW).total_seconds()
        assert made <= max(1.0, bucket.capacity) + elapsed_s * per_minute / 60 + 1e-3


@given(st.floats(0.1, 6000))
def test_next_at_is_when_the_next_offer_may_be_made(per_minute: float) -> None:
    """At that moment there is one token, rounding errors or not."""
    bucket = Bucket(per_minute).filled(NOW).spent(1)
    at = bucket.next_at()
    assert at is not None
    assert bucket.filled(at + timedelta(microseconds=1)).budget(10) >= 1
    assert bucket.filled(NOW + (at - NOW) * 0.9).budget(10) == 0
