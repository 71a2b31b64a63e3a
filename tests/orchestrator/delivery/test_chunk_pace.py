"""What is begun may overdraw; nothing is begun until that is paid back."""

from orchestrator.delivery.chunk_pace import LEAST_BYTES, Pace
from protocol.clock import ManualClock
from tests.orchestrator.delivery.rows import NOW


def test_the_rate_is_kept_over_time() -> None:
    """After a large window nothing is begun for as long as it takes to pay."""
    clock = ManualClock(NOW)
    pace = Pace(clock, 1000)
    assert pace.allows()
    pace.spend(LEAST_BYTES + 5000)
    clock.advance(4.9)
    assert not pace.allows()
    clock.advance(0.2)
    assert pace.allows()


def test_idleness_saves_up_a_window_at_most() -> None:
    """A day without work does not make a flood."""
    clock = ManualClock(NOW)
    pace = Pace(clock, 1000)
    clock.advance(86_400)
    assert pace.allows()
    pace.spend(LEAST_BYTES)
    assert not pace.allows()
