"""How long an update has waited for gates of its device: counted in portions, past the deadline it ends."""

from datetime import UTC, datetime

import pytest

from device_client.agent import events as ev
from device_client.agent.journal import Update
from device_client.agent.waiting import WaitingClock
from protocol.directives import Grant, Offer, ReleaseRef
from protocol.reports import Reason
from protocol.states import Phase, State

NOW = datetime(2026, 11, 25, tzinfo=UTC)
OFFER = Offer(
    fleet="f", issued=NOW, rollout="r", expires=NOW, epoch=1, seq=1, device="d", grant=Grant.DOWNLOAD, key_wrap="k",
    release=ReleaseRef(path="cam/1.1.0/manifest", length=1, sha256="ab" * 32, counter=0),
)  # fmt: skip
SHUT = [Reason(gate="power", code="battery_low", detail="battery at 31 %; at least 40 % is needed")]
HELD = [Reason(gate="order", code="hold")]


def _waiting(reasons: list[Reason], waited_s: float = 0, state: State = State.WAITING) -> Update:
    return Update(offer=OFFER, state=state, phase=Phase.INSTALL, reasons=reasons, waited_s=waited_s)


def test_it_ends_at_the_deadline() -> None:
    """Not before; the gate and its figure are named."""
    clock = WaitingClock(100, expires=True)
    assert clock.see(_waiting(SHUT), 1000) is None
    assert clock.see(_waiting(SHUT, 99), 1000.9) is None
    assert clock.see(_waiting(SHUT, 99), 1001) == ev.WaitedTooLong(
        "waited 100 s for power: battery at 31 %; at least 40 % is needed"
    )


def test_portions() -> None:
    """What was waited is handed over now and then, each second once."""
    clock = WaitingClock(6400, expires=True)
    told = [clock.see(_waiting(SHUT), now) for now in range(0, 401, 25)]
    assert [event for event in told if event] == [ev.Waited(100.0)] * 4


@pytest.mark.parametrize(
    "update",
    [_waiting(HELD, 200), _waiting([], 200), _waiting(SHUT, 200, State.DOWNLOADING), _waiting(SHUT, 200, State.FAILED)],
    ids=["held by the rollout", "open, without a grant", "downloading", "over"],
)
def test_what_does_not_count(update: Update) -> None:
    """Waiting for others, and what is no waiting; a wait that was interrupted so is not counted through it."""
    clock = WaitingClock(100, expires=True)
    assert clock.see(_waiting(SHUT), 0) is None
    assert clock.see(update, 99) is None
    assert clock.see(_waiting(SHUT), 99.5) is None
    assert clock.see(_waiting(SHUT), 100) is None


def test_a_gate_beside_a_hold_counts() -> None:
    """The device is not ready, whatever the rollout says."""
    clock = WaitingClock(100, expires=True)
    clock.see(_waiting([*HELD, *SHUT]), 0)
    assert isinstance(clock.see(_waiting([*HELD, *SHUT]), 100), ev.WaitedTooLong)


def test_without_an_end() -> None:
    """Where gates are passed by instead, it is told at the deadline that so long was waited."""
    clock = WaitingClock(100, expires=False)
    clock.see(_waiting(SHUT, 99.5), 0)
    assert clock.see(_waiting(SHUT, 99.5), 0.5) == ev.Waited(0.5)


def test_no_deadline() -> None:
    """Nothing is counted, nothing ends."""
    clock = WaitingClock(0, expires=True)
    clock.see(_waiting(SHUT), 0)
    assert clock.see(_waiting(SHUT), 1e9) is None
