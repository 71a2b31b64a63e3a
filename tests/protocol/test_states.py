"""What the words of an update count as."""

from protocol.states import FAILURES, FINISHED, OUTCOMES, TOUCHED, State


def test_what_finished_means() -> None:
    """Declined, cancelled, expired and superseded end an update without being judged."""
    assert FINISHED < OUTCOMES
    assert OUTCOMES - FINISHED == {State.DECLINED, State.CANCELLED, State.EXPIRED, State.SUPERSEDED}
    assert FINISHED - FAILURES == {State.SUCCEEDED}


def test_no_outcome_leaves_software_half_changed() -> None:
    """A state in which software is being changed is never terminal."""
    assert not TOUCHED & OUTCOMES
