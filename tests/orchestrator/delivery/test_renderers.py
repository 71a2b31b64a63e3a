"""What is said, from rows; above all what is never said while a rollout is latched."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.delivery.renderers import announcement_draft, offer_draft
from orchestrator.model.assignment import Assignment
from orchestrator.model.plan import RolloutSpec, StageSpec
from orchestrator.model.rollout import Rollout, RolloutState
from protocol.directives import Action, Grant, ReleaseRef
from protocol.states import OUTCOMES, State

NOW = datetime(2026, 11, 24, tzinfo=UTC)
LEASE = timedelta(hours=24)
RELEASE = ReleaseRef(path="gateway/1.1.0/manifest", length=3, sha256="a" * 64, counter=0)
SPEC = RolloutSpec(release="gateway/1.1.0", stages=[StageSpec(name="all", percent=100)])


def _rollout(state: RolloutState, expires: datetime | None = None) -> Rollout:
    return Rollout(
        id="r-1", release="gateway/1.1.0", state=state, spec=SPEC, created_at=NOW, announcement_expires=expires
    )


def _assignment(**changes: object) -> Assignment:
    values: dict[str, object] = {"rollout": "r-1", "device": "dev1", "stage": 0, "place": 0.5, "state": "offered"}
    return Assignment(**(values | changes))  # type: ignore[arg-type]


def _offer(assignment: Assignment, state: RolloutState, *, ever_sent: bool = True) -> dict[str, object] | None:
    return offer_draft(assignment, _rollout(state), RELEASE, ever_sent=ever_sent, now=NOW, lease=LEASE, grant_s=900)


@pytest.mark.parametrize(
    ("state", "action"),
    [
        (RolloutState.DRAFT, None),
        (RolloutState.SCHEDULED, None),
        (RolloutState.RUNNING, Action.INSTALL),
        (RolloutState.PAUSED, Action.INSTALL),
        (RolloutState.COMPLETED, Action.INSTALL),
        (RolloutState.HALTED, Action.HOLD),
        (RolloutState.ABORTED, Action.ABORT),
    ],
)
def test_the_announcement_says_what_the_rollout_does(state: RolloutState, action: Action | None) -> None:
    """Each state has its one action; what has not begun is not announced."""
    draft = announcement_draft(_rollout(state), RELEASE, NOW, LEASE)
    assert (draft["action"] if draft else None) == action


def test_a_lease_that_the_engine_set_is_kept() -> None:
    """Until it has run out; then there is a new one."""
    soon, past = NOW + timedelta(minutes=1), NOW - timedelta(minutes=1)
    kept = announcement_draft(_rollout(RolloutState.RUNNING, soon), RELEASE, NOW, LEASE)
    renewed = announcement_draft(_rollout(RolloutState.RUNNING, past), RELEASE, NOW, LEASE)
    assert kept and kept["expires"] == soon
    assert renewed and renewed["expires"] == NOW + LEASE


def test_a_download_offer_names_what_was_heard() -> None:
    """The nonce of the newest report is echoed."""
    draft = _offer(_assignment(grant="download", nonce="nonce-1234"), RolloutState.RUNNING)
    assert draft and draft["grant"] is Grant.DOWNLOAD
    assert draft["heard"] == {"nonce": "nonce-1234", "outcome": None}


def test_an_activate_grant_answers_one_nonce() -> None:
    """It carries the nonce of the readiness that it answers, and its life."""
    assignment = _assignment(grant="activate", nonce="nonce-9999", grant_nonce="nonce-1234")
    draft = _offer(assignment, RolloutState.PAUSED)
    assert draft and (draft["grant"], draft["nonce"], draft["grant_s"]) == (Grant.ACTIVATE, "nonce-1234", 900)


def test_an_activate_grant_is_void_when_it_is_held_back() -> None:
    """Its signature ends with its life on the device, not with the lease: a halt is hidden no longer than that."""
    assignment = _assignment(grant="activate", nonce="nonce-9999", grant_nonce="nonce-1234", offer_expires=NOW + LEASE)
    draft = _offer(assignment, RolloutState.RUNNING)
    assert draft and draft["expires"] == NOW + timedelta(seconds=900)
    download = _offer(_assignment(grant="download", offer_expires=NOW + LEASE), RolloutState.RUNNING)
    assert download and download["expires"] == NOW + LEASE


def test_a_closed_offer_names_the_outcome() -> None:
    """So the device knows that its outcome was heard, even when the rollout has halted or ended."""
    assignment = _assignment(
        grant="closed", state=State.ROLLED_BACK, nonce="nonce-1234", outcome_digest="b" * 64, close_reason="x" * 500
    )
    for state in (RolloutState.HALTED, RolloutState.COMPLETED, RolloutState.ABORTED):
        draft = _offer(assignment, state, ever_sent=False)
        assert draft and draft["grant"] is Grant.CLOSED
        assert draft["heard"] == {"nonce": "nonce-1234", "outcome": "b" * 64}
        assert len(str(draft["reason"])) == 200


def test_a_halted_device_in_mid_update_keeps_its_offer() -> None:
    """A device that was offered before is still heard, with what it may do already."""
    assignment = _assignment(grant="activate", grant_nonce="nonce-1234", nonce="nonce-5678", state=State.VERIFYING)
    draft = _offer(assignment, RolloutState.HALTED)
    assert draft and draft["grant"] is Grant.DOWNLOAD and "nonce" not in draft
    assert draft["heard"] == {"nonce": "nonce-5678", "outcome": None}


def test_a_closed_offer_without_a_report_is_not_begun() -> None:
    """Who was never offered anything and said nothing gets nothing."""
    assert _offer(_assignment(grant="closed"), RolloutState.RUNNING, ever_sent=False) is None


@given(
    state=st.sampled_from([RolloutState.HALTED, RolloutState.ABORTED, RolloutState.DRAFT, RolloutState.SCHEDULED]),
    grant=st.sampled_from(["none", "download", "activate", "closed"]),
    step=st.sampled_from(["pending", "offered", *State]),
    nonce=st.sampled_from([None, "nonce-1234"]),
    grant_nonce=st.sampled_from([None, "nonce-1234"]),
    ever_sent=st.booleans(),
)
def test_a_latched_rollout_never_offers(
    state: RolloutState, grant: str, step: str, nonce: str | None, grant_nonce: str | None, *, ever_sent: bool
) -> None:
    """Whatever an assignment's row says: no activate grant, and no first download offer."""
    assignment = _assignment(grant=grant, state=step, nonce=nonce, grant_nonce=grant_nonce)
    draft = _offer(assignment, state, ever_sent=ever_sent)
    if draft is not None:
        assert draft["grant"] is not Grant.ACTIVATE
        assert ever_sent or draft["grant"] is Grant.CLOSED


@given(step=st.sampled_from(["offered", *State]), grant=st.sampled_from(["download", "closed"]))
def test_only_a_terminal_assignment_names_an_outcome(step: str, grant: str) -> None:
    """A digest of a former attempt is not echoed to a device that is in the middle of the next."""
    draft = _offer(_assignment(grant=grant, state=step, nonce="n" * 8, outcome_digest="b" * 64), RolloutState.RUNNING)
    assert draft is not None
    assert (draft["heard"]["outcome"] is not None) == (step in OUTCOMES)  # type: ignore[index]


@pytest.mark.parametrize("state", [RolloutState.RUNNING, RolloutState.PAUSED, RolloutState.COMPLETED])
def test_a_halted_fleet_holds_every_rollout(state: RolloutState) -> None:
    """No first offer, no grant; an abort stays an abort."""
    held = announcement_draft(_rollout(state), RELEASE, NOW, LEASE, fleet_halted=True)
    assert held and held["action"] is Action.HOLD
    aborted = announcement_draft(_rollout(RolloutState.ABORTED), RELEASE, NOW, LEASE, fleet_halted=True)
    assert aborted and aborted["action"] is Action.ABORT
    granted = _assignment(grant="activate", grant_nonce="nonce-0001")
    for ever_sent, expected in ((False, None), (True, Grant.DOWNLOAD)):
        draft = offer_draft(
            granted, _rollout(state), RELEASE, ever_sent=ever_sent, now=NOW, lease=LEASE, grant_s=900, fleet_halted=True
        )
        assert (draft and draft["grant"]) == expected


def test_an_emergency_sends_no_windows() -> None:
    """What the release and the device demand by themselves still holds there."""
    window = {"days": ["sun"], "start": "02:00", "minutes": 60}
    for emergency in (False, True):
        spec = RolloutSpec.model_validate(
            {**SPEC.model_dump(), "policy": {"windows": [window], "min_battery_percent": 40}, "emergency": emergency}
        )
        rollout = Rollout(id="r-1", release=SPEC.release, state=RolloutState.RUNNING, spec=spec, created_at=NOW)
        draft = announcement_draft(rollout, RELEASE, NOW, LEASE)
        assert draft is not None and draft["policy"].min_battery_percent == 40
        assert (draft["policy"].windows is None) is emergency


def test_the_end_of_an_attempt_is_heard_while_the_next_one_waits() -> None:
    """A device that will be offered again is done with the attempt before: the offer stays closed and names its end."""
    row = _assignment(
        state="pending", grant="closed", nonce="nonce-0001", outcome_digest="d" * 64, close_reason="failed"
    )
    draft = _offer(row, RolloutState.RUNNING)
    assert draft is not None
    assert (draft["grant"], draft["attempt"], draft["heard"]) == (
        Grant.CLOSED,
        1,
        {"nonce": "nonce-0001", "outcome": "d" * 64},
    )
