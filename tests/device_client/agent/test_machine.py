"""The update machine: its table row by row, and what never happens whatever comes in whatever order."""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from device_client.agent import events as ev
from device_client.agent.effects import Effect
from device_client.agent.journal import Update
from device_client.agent.machine import MAX_STORES, IllegalEvent, Step, advance, begin
from device_client.agent.machine_table import TABLE, Place
from device_client.agent.recovery import MAX_RESTARTS, recover
from protocol.directives import Action, Grant, Offer, ReleaseRef
from protocol.errors import ErrorCode
from protocol.reports import Reason
from protocol.states import OUTCOMES, TOUCHED, Phase, State

NOW = datetime(2026, 11, 23, tzinfo=UTC)
SHUT = (Reason(gate="power", code="battery_low"),)
OFFER = Offer(
    fleet="f", issued=NOW, rollout="r", expires=NOW, epoch=1, seq=1, device="d", grant=Grant.DOWNLOAD, key_wrap="k",
    release=ReleaseRef(path="cam/1.1.0/manifest", length=1, sha256="ab" * 32, counter=0),
)  # fmt: skip
ACTIVATE_OFFER = OFFER.model_copy(update={"grant": Grant.ACTIVATE})
OFFLINE_OFFER = OFFER.model_copy(update={"offline_until": NOW})
PLACES: list[Place] = sorted({place for place, _ in TABLE}, key=str)
SAMPLES: dict[type, ev.Event] = {
    ev.Fits: ev.Fits("app", "1.1.0", "1.0.0"),
    ev.AlreadyRuns: ev.AlreadyRuns("app", "1.1.0"),
    ev.Refused: ev.Refused(ErrorCode.HARDWARE, "no"),
    ev.OfferRenewed: ev.OfferRenewed(OFFER, granted=False),
    ev.GrantEnded: ev.GrantEnded(),
    ev.Announced: ev.Announced(Action.INSTALL),
    ev.LeaseEnded: ev.LeaseEnded(),
    ev.Closed: ev.Closed("why"),
    ev.Superseded: ev.Superseded("superseded by rollout r-2"),
    ev.Heard: ev.Heard("other", outcome=False),
    ev.GatesOpen: ev.GatesOpen(),
    ev.GatesOpenOffline: ev.GatesOpenOffline(),
    ev.GatesShut: ev.GatesShut(SHUT),
    ev.Waited: ev.Waited(7.0),
    ev.WaitedTooLong: ev.WaitedTooLong("late"),
    ev.TurnedAway: ev.TurnedAway(SHUT),
    ev.Declined: ev.Declined("no"),
    ev.Fetched: ev.Fetched(7),
    ev.FetchInterrupted: ev.FetchInterrupted(),
    ev.Failed: ev.Failed(ErrorCode.CHUNK, "broke", "log"),
    ev.Installed: ev.Installed(),
    ev.Activated: ev.Activated(),
    ev.HealthPassed: ev.HealthPassed("fine"),
    ev.VerifyTimedOut: ev.VerifyTimedOut("late"),
    ev.Committed: ev.Committed(),
    ev.RolledBack: ev.RolledBack(),
}
ANYWHERE = (ev.OfferRenewed, ev.GrantEnded, ev.Announced, ev.Heard, ev.Waited)


def _at(place: Place, **changes: object) -> Update:
    state, phase = place
    return Update(offer=OFFER, state=state, phase=phase).model_copy(update=changes)


def test_every_event_has_a_sample() -> None:
    """This file speaks of every event there is."""
    assert set(SAMPLES) == set(get_args(ev.Event))


@pytest.mark.parametrize("place", PLACES, ids=str)
@pytest.mark.parametrize("kind", SAMPLES, ids=lambda kind: kind.__name__)
def test_the_table_decides(place: Place, kind: type) -> None:
    """An event with a row leads where the row says; one without a row is illegal; none loses the offer."""
    offer = OFFLINE_OFFER if kind is ev.GatesOpenOffline else ACTIVATE_OFFER
    update = _at(place, granted=True, offer=offer, nonce="asked-01")
    if kind not in ANYWHERE and (place, kind) not in TABLE:
        with pytest.raises(IllegalEvent):
            advance(update, SAMPLES[kind], "fresh-01")
        return
    after = advance(update, SAMPLES[kind], "fresh-01").update
    assert after.offer.rollout == OFFER.rollout
    if kind in ANYWHERE:
        assert (after.state, after.phase) == place
    elif kind is ev.GatesOpen and place == (State.FETCHED, Phase.INSTALL):
        assert (after.state, after.phase) == (State.WAITING, Phase.INSTALL)
    else:
        assert (after.state, after.phase) == TABLE[place, kind]


@pytest.mark.parametrize("state", sorted(OUTCOMES))
@pytest.mark.parametrize("kind", SAMPLES, ids=lambda kind: kind.__name__)
def test_an_outcome_stays(state: State, kind: type) -> None:
    """After an outcome nothing changes the state, and no event but its being heard has an effect."""
    update = _at((state, None), nonce="outcome1")
    try:
        step = advance(update, SAMPLES[kind], "fresh-01")
    except IllegalEvent:
        return
    assert step.update.state is state
    assert step.effects == ()


def test_an_outcome_is_over_when_it_was_heard() -> None:
    """Another nonce, or the nonce without the outcome, is not enough."""
    update = _at((State.SUCCEEDED, None), nonce="outcome1")
    assert advance(update, ev.Heard("outcome1", outcome=True), "n").effects == (Effect.FORGET,)
    assert advance(update, ev.Heard("outcome1", outcome=False), "n") == Step(update, ())
    assert advance(update, ev.Heard("outcome2", outcome=True), "n") == Step(update, ())


@pytest.mark.parametrize("place", PLACES, ids=str)
def test_every_place_leads_on(place: Place) -> None:
    """From every place some events lead to an outcome; there is no trap."""
    reached, pending = {place}, [place]
    while pending:
        here = pending.pop()
        for (start, _), end in TABLE.items():
            if start == here and end not in reached:
                reached.add(end)
                pending.append(end)
    assert any(state in OUTCOMES for state, _ in reached)


@pytest.mark.parametrize(
    ("place", "kind"),
    [
        (place, kind)
        for place in PLACES
        for kind in (ev.Closed, ev.Superseded, ev.Declined, ev.Failed)
        if place[0] in (State.WAITING, State.FETCHED, State.INSTALLED)
        and (kind is not ev.Failed or place[1] is not Phase.DOWNLOAD)
    ],
    ids=str,
)
def test_whoever_waits_can_be_told_to_stop(place: Place, kind: type) -> None:
    """A closed offer and a person's no end every wait: before installing at once, after it by going back."""
    after = advance(_at(place), SAMPLES[kind], "fresh-01").update
    if place in ((State.INSTALLED, Phase.ACTIVATE), (State.WAITING, Phase.ACTIVATE)):
        assert after.state is State.ROLLING_BACK
    else:
        assert after.is_over


@pytest.mark.parametrize("place", [place for place in PLACES if (place, ev.Superseded) in TABLE], ids=str)
def test_an_offer_that_is_closed_for_another(place: Place) -> None:
    """It ends in every place where a closed one does, and in the same way, but for the word before installing."""
    superseded = advance(_at(place), SAMPLES[ev.Superseded], "fresh-01")
    closed = advance(_at(place), ev.Closed("superseded by rollout r-2"), "fresh-01")
    assert superseded.effects == closed.effects
    word = State.SUPERSEDED if closed.update.state is State.CANCELLED else closed.update.state
    assert superseded.update == closed.update.model_copy(update={"state": word})
    assert superseded.update.detail == "superseded by rollout r-2"


@pytest.mark.parametrize("place", PLACES, ids=str)
def test_abort(place: Place) -> None:
    """Before installing an abort cancels; from then on it goes back, until committing, which it lets be."""
    step = advance(_at(place), ev.Announced(Action.ABORT), "fresh-01")
    if place[0] in (State.COMMITTING, State.ROLLING_BACK):
        assert step.update.state is place[0]
    elif place[0] in TOUCHED or place == (State.WAITING, Phase.ACTIVATE):
        assert (step.update.state, step.effects) == (State.ROLLING_BACK, (Effect.ROLL_BACK,))
    else:
        assert step.update.state is State.CANCELLED
        assert (Effect.STOP_FETCHING in step.effects) == (place[0] is State.DOWNLOADING)


def test_hold_stops_a_transfer_and_takes_an_unused_grant_back() -> None:
    """On hold nothing more is fetched, and what was granted before counts no more; on resume it is asked anew."""
    step = advance(_at((State.DOWNLOADING, None)), ev.Announced(Action.HOLD), "n")
    assert (step.update.state, step.update.phase) == (State.WAITING, Phase.DOWNLOAD)
    assert step.effects[0] is Effect.STOP_FETCHING
    waiting = _at((State.WAITING, Phase.INSTALL), granted=True, offer=ACTIVATE_OFFER, nonce="asked-01", heard=True)
    held = advance(waiting, ev.Announced(Action.HOLD), "n").update
    assert not held.may_activate
    shut = advance(held, ev.GatesShut((Reason(gate="order", code="hold"),)), "shut-001").update
    resumed = advance(shut, ev.Announced(Action.INSTALL), "n").update
    asked = advance(resumed, ev.GatesOpen(), "asked-02")
    assert asked.update.nonce == "asked-02"
    assert asked.update.state is State.WAITING
    assert asked.effects == (Effect.REPORT_READINESS,)


def test_a_grant_that_ran_out_is_asked_for_again() -> None:
    """A grant that ended before the gates were judged does not leave the device waiting for ever."""
    waiting = _at((State.WAITING, Phase.INSTALL), granted=True, offer=ACTIVATE_OFFER, nonce="asked-01", heard=True)
    ended = advance(waiting, ev.GrantEnded(), "n").update
    step = advance(ended, ev.GatesOpen(), "asked-02")
    assert step.effects == (Effect.REPORT_READINESS,)
    assert (step.update.nonce, step.update.heard) == ("asked-02", False)


def test_asking_is_not_repeated_by_the_machine() -> None:
    """Gates that are still open while an answer is awaited change nothing."""
    waiting = _at((State.WAITING, Phase.INSTALL), nonce="asked-01")
    assert advance(waiting, ev.GatesOpen(), "n") == Step(waiting, ())


@pytest.mark.parametrize("heard_first", [True, False])
def test_commit_needs_health_and_an_answer(heard_first: bool) -> None:
    """Either alone keeps verifying; both in any order commit."""
    update = _at((State.VERIFYING, None), nonce="verify-1")
    events: list[ev.Event] = [ev.HealthPassed(), ev.Heard("verify-1", outcome=False)]
    if heard_first:
        events.reverse()
    first = advance(update, events[0], "n")
    assert (first.update.state, first.effects) == (State.VERIFYING, ())
    second = advance(first.update, events[1], "n")
    assert (second.update.state, second.effects) == (State.COMMITTING, (Effect.COMMIT,))


def test_a_closed_offer_keeps_the_key() -> None:
    """What was staged under a key can be read to the end."""
    closed = OFFER.model_copy(update={"grant": Grant.CLOSED, "key_wrap": None})
    after = advance(_at((State.VERIFYING, None)), ev.OfferRenewed(closed, granted=False), "n").update
    assert after.offer.key_wrap == "k"
    assert after.offer.grant is Grant.CLOSED


def test_a_loop_ends() -> None:
    """More than the bounded number of saved steps from installing on ends with the former version."""
    update = _at((State.INSTALLING, None), stores=MAX_STORES)
    step = advance(update, ev.Installed(), "n")
    assert step.update.state is State.ROLLING_BACK
    assert step.effects == (Effect.ROLL_BACK,)


def test_installing_cut_off_too_often_goes_back() -> None:
    """The second restart in mid-install is the last."""
    update = _at((State.INSTALLING, None), installs=1)
    again = recover(update, "b", "again-01", runs_new_version=False)
    assert again.effects == (Effect.INSTALL,)
    assert recover(again.update, "b", "again-01", runs_new_version=False).update.state is State.ROLLING_BACK


@pytest.mark.parametrize(
    ("state", "ends", "code", "says"),
    [
        (State.ACTIVATING, State.ROLLING_BACK, ErrorCode.INSTALL, "5 restarts while activating"),
        (State.VERIFYING, State.ROLLING_BACK, ErrorCode.HEALTH, "5 restarts while verifying"),
        (State.ROLLING_BACK, State.INCONSISTENT, ErrorCode.CHUNK, "rolling back failed: 5 restarts while rolling back"),
    ],
)
def test_restarts_that_bring_on_the_next_one_end(state: State, ends: State, code: ErrorCode, says: str) -> None:
    """A version that reboots the device whenever it is proven would do so until the battery is empty."""
    update = _at((state, None), code=ErrorCode.CHUNK, detail="broke")
    for _ in range(MAX_RESTARTS):
        update = recover(update, "b", "again-01", runs_new_version=True).update
        assert update.state is state
    last = recover(update, "b", "again-01", runs_new_version=True)
    assert (last.update.state, last.update.code) == (ends, code)
    assert says in last.update.detail
    assert last.effects
    assert last.update.restarts == 0


@pytest.mark.parametrize("state", [State.WAITING, State.DOWNLOADING, State.INSTALLED, State.COMMITTING])
def test_restarts_elsewhere_are_no_failure(state: State) -> None:
    """A device that is switched off every night downloads, waits and commits all the same."""
    phase = {State.WAITING: Phase.INSTALL, State.INSTALLED: Phase.ACTIVATE}.get(state)
    update = _at((state, phase), restarts=10 * MAX_RESTARTS)
    step = recover(update, "b", "again-01", runs_new_version=True)
    assert not step.update.is_over
    assert step.update.state is not State.ROLLING_BACK


@pytest.mark.parametrize("place", PLACES, ids=str)
@pytest.mark.parametrize("runs_new", [True, False])
def test_a_restart_keeps_what_runs(place: Place, runs_new: bool) -> None:
    """A restart loses the grant, switches nothing that was not decided before it, and always does something."""
    update = _at(place, granted=True, offer=ACTIVATE_OFFER, nonce="asked-01", heard=True, healthy=True)
    step = recover(update, "boot-2", "again-01", runs_new_version=runs_new)
    assert not step.update.granted
    assert step.update.boot_id == "boot-2"
    assert step.effects
    assert Effect.ACTIVATE not in step.effects or place[0] is State.ACTIVATING
    assert Effect.INSTALL not in step.effects or place[0] is State.INSTALLING
    assert Effect.COMMIT not in step.effects or place[0] is State.COMMITTING
    if place == (State.VERIFYING, None):
        assert (step.update.state is State.VERIFYING) == runs_new
        assert not step.update.healthy or not runs_new


@pytest.mark.parametrize("phase", list(Phase))
def test_shut_gates_are_said_once_and_again_after_a_restart(phase: Phase) -> None:
    """The same reasons are not said twice; other ones, and a restart that may have lost the report, say them anew."""
    shut = advance(_at((State.WAITING, phase)), ev.GatesShut(SHUT), "shut-001")
    assert shut.effects == (Effect.REPORT_READINESS,)
    assert advance(shut.update, ev.GatesShut(SHUT), "shut-002").effects == ()
    other = advance(shut.update, ev.GatesShut((Reason(gate="disk", code="disk_full"),)), "shut-002")
    assert (other.update.nonce, other.effects) == ("shut-002", (Effect.REPORT_READINESS,))
    again = advance(
        recover(shut.update, "b", "again-01", runs_new_version=False).update, ev.GatesShut(SHUT), "shut-003"
    )
    assert (again.update.nonce, again.effects) == ("shut-003", (Effect.REPORT_READINESS,))


def test_gates_that_shut_take_the_grant_back() -> None:
    """A grant answers one question: after a new report it counts no more."""
    granted = _at((State.WAITING, Phase.INSTALL), granted=True, offer=ACTIVATE_OFFER, nonce="asked-01")
    shut = advance(granted, ev.GatesShut(SHUT), "shut-001").update
    asked = advance(shut, ev.GatesOpen(), "asked-02")
    assert asked.update.state is State.WAITING
    assert asked.effects == (Effect.REPORT_READINESS,)


@pytest.mark.parametrize("state", sorted(OUTCOMES))
def test_an_outcome_is_reported_again_after_a_restart(state: State) -> None:
    """It is repeated until heard; what was staged is cleared, for a kill may have come between outcome and clearing."""
    step = recover(_at((state, None), nonce="outcome1"), "b", "again-01", runs_new_version=True)
    assert (step.update.state, step.effects) == (state, (Effect.CLEAN_UP, Effect.REPORT_STATE))
    assert step.update.nonce == "outcome1"


def test_a_restart_while_verifying_asks_anew() -> None:
    """An answer that was heard before the restart proves nothing of what runs now: a new nonce must come back."""
    verifying = _at((State.VERIFYING, None), nonce="before-1", heard=True, healthy=True)
    step = recover(verifying, "boot-2", "again-01", runs_new_version=True)
    assert (step.update.nonce, step.update.heard, step.update.healthy) == ("again-01", False, False)
    healthy = advance(step.update, ev.HealthPassed(), "n").update
    assert healthy.state is State.VERIFYING
    assert advance(healthy, ev.Heard("before-1", outcome=False), "n").update.state is State.VERIFYING
    assert advance(healthy, ev.Heard("again-01", outcome=False), "n").update.state is State.COMMITTING


def test_an_offer_that_is_closed_while_its_files_are_written() -> None:
    """There is no stopping in mid-write; as soon as it is written the device goes back, whatever the gates say."""
    closed = OFFER.model_copy(update={"grant": Grant.CLOSED, "reason": "the rollout has ended"})
    installing = advance(_at((State.INSTALLING, None)), ev.OfferRenewed(closed, granted=False), "n").update
    with pytest.raises(IllegalEvent):
        advance(installing, ev.Closed("the rollout has ended"), "n")
    step = advance(installing, ev.Installed(), "n")
    assert (step.update.state, step.effects) == (State.ROLLING_BACK, (Effect.ROLL_BACK,))
    assert (step.update.code, step.update.detail) == (None, "the rollout has ended")


def test_a_lease_that_ends_in_mid_transfer() -> None:
    """The transfer stops and waits with what it has; an open gate (a new lease) lets it go on."""
    step = advance(_at((State.DOWNLOADING, None)), ev.LeaseEnded(), "n")
    assert (step.update.state, step.update.phase) == (State.WAITING, Phase.DOWNLOAD)
    assert step.effects == (Effect.STOP_FETCHING, Effect.JUDGE_GATES)
    assert advance(step.update, ev.GatesOpen(), "n").effects == (Effect.FETCH,)


@pytest.mark.parametrize(
    "place", [(State.INSTALLING, None), (State.INSTALLED, Phase.ACTIVATE), (State.VERIFYING, None)], ids=str
)
def test_an_abort_is_no_failure_of_the_release(place: Place) -> None:
    """A device that goes back because it was told to names no code: nothing failed, and nothing is set aside."""
    back = advance(_at(place), ev.Announced(Action.ABORT), "n").update
    assert (back.state, back.code, back.detail) == (State.ROLLING_BACK, None, "the rollout was aborted")
    over = advance(back, ev.RolledBack(), "over-001").update
    assert (over.state, over.code, over.detail) == (State.ROLLED_BACK, None, "the rollout was aborted")


def test_waiting_adds_up_within_a_phase() -> None:
    """While gates are shut it adds up; when they open it begins anew, except where they were forced."""
    place = (State.WAITING, Phase.INSTALL)
    update = advance(_at(place, reasons=list(SHUT), waited_s=5.0), ev.Waited(7), "n").update
    assert update.waited_s == 12
    assert advance(_at(place, waited_s=5.0), ev.Waited(7), "n").update.waited_s == 5, "nothing is shut"
    assert advance(update, ev.GatesShut((Reason(gate="disk", code="full"),)), "n").update.waited_s == 12
    assert advance(update, ev.GatesOpen(), "n").update.waited_s == 0
    forced = advance(update, ev.GatesOpen(forced=True), "nonce-01").update
    assert (forced.waited_s, forced.reasons) == (12, [])
    granted = forced.model_copy(update={"granted": True, "offer": ACTIVATE_OFFER})
    inside = advance(granted, ev.GatesOpen(forced=True), "nonce-02").update
    assert (inside.state, inside.waited_s) == (State.INSTALLING, 12)
    assert advance(inside, ev.Installed(), "n").update.waited_s == 0


@pytest.mark.parametrize(
    ("place", "back"),
    [
        ((State.INSTALLING, None), (State.WAITING, Phase.INSTALL)),
        ((State.ACTIVATING, None), (State.WAITING, Phase.ACTIVATE)),
    ],
    ids=str,
)
def test_turned_away_at_the_last_moment(place: Place, back: Place) -> None:
    """Back to waiting with the reasons, asked for anew; neither an attempt nor a step is burnt, however often."""
    waiting = _at(back, granted=True, offer=ACTIVATE_OFFER, nonce="asked-01", stores=7, installs=1)
    inside = advance(waiting, ev.GatesOpen(), "fresh-01").update
    assert (inside.state, inside.phase) == place
    step = advance(inside, ev.TurnedAway(SHUT), "fresh-02")
    after = step.update
    assert (after.state, after.phase, after.reasons, after.nonce) == (*back, list(SHUT), "fresh-02")
    assert (after.stores, after.installs, after.granted, after.heard) == (7, 1, False, False)
    assert step.effects == (Effect.REPORT_READINESS,)


@pytest.mark.parametrize(
    ("state", "end"), [(State.INSTALLING, State.CANCELLED), (State.ACTIVATING, State.ROLLING_BACK)], ids=str
)
def test_turned_away_from_what_was_closed_meanwhile(state: State, end: State) -> None:
    """A closed offer says it once, while there was no turning back: it is not waited for a grant that never comes."""
    closed = OFFER.model_copy(update={"grant": Grant.CLOSED, "reason": "over"})
    step = advance(_at((state, None), offer=closed), ev.TurnedAway(SHUT), "fresh-01")
    assert (step.update.state, step.update.detail) == (end, "over")


@pytest.mark.parametrize(
    "changes",
    [
        {"offer": OFFER},
        {"offer": OFFLINE_OFFER.model_copy(update={"grant": Grant.CLOSED})},
        {"offer": OFFLINE_OFFER, "action": Action.HOLD},
    ],
    ids=["an offer that asks to be asked", "a closed offer", "a hold"],
)
@pytest.mark.parametrize("place", [p for p, kind in TABLE if kind is ev.GatesOpenOffline], ids=str)
def test_an_order_that_changed_while_gates_were_judged_is_not_followed_unasked(
    place: Place, changes: dict[str, object]
) -> None:
    """What the gates let through then, the order lets through no more: nothing happens until they are judged anew."""
    update = _at(place, **changes)
    assert advance(update, ev.GatesOpenOffline(), "n") == Step(update, ())


def test_offline_the_whole_way_is_gone_unasked() -> None:
    """From open gates to committing without one answer; health alone decides."""
    update = Update(offer=OFFLINE_OFFER, state=State.EVALUATING)
    for event in (
        ev.Fits("app", "1.1.0", "1.0.0"), ev.GatesOpenOffline(), ev.Fetched(1), ev.GatesOpenOffline(), ev.Installed(),
        ev.GatesOpenOffline(), ev.Activated(),
    ):  # fmt: skip
        update = advance(update, event, "nonce-01").update
    assert (update.state, update.heard) == (State.VERIFYING, False)
    assert advance(update, ev.HealthPassed(), "n").effects == (Effect.COMMIT,)
    assert advance(update, ev.Failed(ErrorCode.HEALTH, "no"), "n").effects == (Effect.ROLL_BACK,)


def test_who_was_granted_its_activation_is_heard_before_it_commits() -> None:
    """An offline order that was replaced before activating leaves no trace: the answer is needed again."""
    waiting = _at((State.WAITING, Phase.ACTIVATE), offline=True, offer=ACTIVATE_OFFER, granted=True, nonce="asked-01")
    verifying = advance(advance(waiting, ev.GatesOpen(), "n").update, ev.Activated(), "nonce-02").update
    assert advance(verifying, ev.HealthPassed(), "n").update.state is State.VERIFYING


def test_a_restart_while_verifying_offline_proves_itself_again() -> None:
    """Health that passed before the restart proves nothing of what runs now; there is still nobody to ask."""
    verifying = _at((State.VERIFYING, None), offline=True, healthy=True, offer=OFFLINE_OFFER, nonce="before-1")
    step = recover(verifying, "boot-2", "again-01", runs_new_version=True)
    assert (step.update.state, step.update.healthy) == (State.VERIFYING, False)
    assert advance(step.update, ev.HealthPassed(), "n").effects == (Effect.COMMIT,)


@dataclass
class World:
    """A device around the machine: its effects under way, its disk, and the orchestrator that answers it."""

    update: Update = field(default_factory=lambda: Update(offer=OFFER))
    under_way: list[tuple[Effect, Update]] = field(default_factory=list)
    installed: bool = False
    runs_new: bool = False
    live: bool = False
    healthy: bool = False
    answered: bool = False
    forgotten: bool = False
    unasked: bool = False
    committed_unasked: bool = False
    granted_nonces: set[str] = field(default_factory=set)
    nonces: list[str] = field(default_factory=list)

    def start(self) -> None:
        """Take the offer on."""
        self._follow(begin(self.update))

    def happens(self, event: ev.Event) -> None:
        """One event; what is illegal changes nothing."""
        self.nonces.append(f"nonce-{len(self.nonces):04}")
        before = self.update.model_copy(deep=True)
        try:
            step = advance(self.update, event, self.nonces[-1])
        except IllegalEvent:
            assert self.update == before
            return
        self._check(before, step)
        self._follow(step)

    def restart(self) -> None:
        """Everything under way is lost, the journal stays."""
        self.under_way.clear()
        self.live = self.healthy = self.answered = False
        self.nonces.append(f"nonce-{len(self.nonces):04}")
        step = recover(self.update, "boot", self.nonces[-1], runs_new_version=self.runs_new)
        assert Effect.INSTALL not in step.effects or self.update.state is State.INSTALLING
        assert Effect.ACTIVATE not in step.effects or self.update.state is State.ACTIVATING
        self._follow(step)

    def tick(self) -> None:
        """The runner judges shut gates again."""
        if self.update.state in (State.WAITING, State.FETCHED, State.INSTALLED):
            self.under_way.append((Effect.JUDGE_GATES, self.update))

    def offer(self, grant: Grant, nonce: str, *, heard: bool, outcome: bool = False, offline: bool = False) -> None:
        """What the runner makes of an offer."""
        over = self.update.is_over
        granted = grant is Grant.ACTIVATE and nonce != "" and nonce == self.update.nonce and not over
        if grant is Grant.ACTIVATE:
            self.granted_nonces.add(nonce)
        if granted:
            self.live = True
        if not over:
            self.unasked = offline and grant is Grant.DOWNLOAD
            words = {"grant": grant, "seq": 2, "nonce": nonce or None, "offline_until": NOW if offline else None}
            offer = OFFER.model_copy(update=words)
            self.happens(ev.OfferRenewed(offer, granted))
        if heard and nonce:
            self.answered = self.answered or nonce == self.update.nonce
            self.happens(ev.Heard(nonce, outcome=outcome))
        if grant is Grant.CLOSED and not self.update.is_over:
            self.happens(ev.Superseded("superseded") if nonce else ev.Closed("closed"))

    def grant_ends(self) -> None:
        """The monotonic clock has passed the grant."""
        self.live = False
        self.happens(ev.GrantEnded())

    def announced(self, action: Action) -> None:
        """The rollout's word changes."""
        self.happens(ev.Announced(action))

    def ends(self, index: int, choice: int) -> None:
        """One effect that is under way ends, well or badly."""
        if not self.under_way:
            return
        effect, asked = self.under_way.pop(index % len(self.under_way))
        match effect:
            case Effect.EVALUATE:
                self._evaluated(choice)
            case Effect.JUDGE_GATES:
                self._judged(asked, choice)
            case Effect.FETCH if choice == 1:
                self.under_way.append((effect, asked))
                self.happens(ev.FetchInterrupted())
            case Effect.FETCH:
                self.happens(ev.Fetched(1) if choice != 2 else ev.Failed(ErrorCode.CHUNK, "x"))
            case Effect.INSTALL | Effect.ACTIVATE if choice == 1:
                self._turned_away(asked)
            case Effect.INSTALL:
                self.installed = choice != 2
                self.happens(ev.Installed() if self.installed else ev.Failed(ErrorCode.INSTALL, "x"))
            case Effect.ACTIVATE:
                self.runs_new = choice != 2
                self.happens(ev.Activated() if self.runs_new else ev.Failed(ErrorCode.INSTALL, "x"))
            case Effect.CHECK_HEALTH:
                if choice != 2 and self.update.state is State.VERIFYING:
                    self.healthy = True
                self.happens(ev.HealthPassed() if choice != 2 else ev.Failed(ErrorCode.HEALTH, "x"))
            case _:
                self._last_step_ends(effect, choice)

    def _last_step_ends(self, effect: Effect, choice: int) -> None:
        if choice == 2:
            self.happens(ev.Failed(ErrorCode.INSTALL, "x"))
        elif effect is Effect.COMMIT:
            self.happens(ev.Committed())
        elif effect is Effect.ROLL_BACK:
            self.runs_new = self.installed = False
            self.happens(ev.RolledBack())

    def _evaluated(self, choice: int) -> None:
        if choice == 2:
            self.happens(ev.Refused(ErrorCode.HARDWARE, "x"))
        else:
            self.happens(ev.Fits("app", "1.1.0", "1.0.0"))

    def _judged(self, asked: Update, choice: int) -> None:
        if (asked.state, asked.phase) != (self.update.state, self.update.phase):
            return  # a judgement of what has passed says nothing
        if choice == 1 or self.update.action is not Action.INSTALL:
            self.happens(ev.GatesShut(SHUT if choice == 1 else (Reason(gate="order", code="hold"),)))
        elif choice == 2:
            self.happens(ev.Declined("x"))
        elif choice == 3:
            self.happens(ev.Refused(ErrorCode.UNSAFE, "x"))
        else:
            self.happens(ev.GatesOpenOffline() if asked.offer.offline_until else ev.GatesOpen())

    def _turned_away(self, asked: Update) -> None:
        if (asked.state, asked.phase) == (self.update.state, self.update.phase):
            self.happens(ev.TurnedAway(SHUT))

    def _check(self, before: Update, step: Step) -> None:
        after = step.update
        if Effect.INSTALL in step.effects or Effect.ACTIVATE in step.effects:
            assert self.live or self.unasked, "without a live grant for the nonce that was asked with"
            assert before.action is Action.INSTALL
            assert (before.offer.grant is Grant.ACTIVATE) != self.unasked
        if Effect.ACTIVATE in step.effects:
            self.committed_unasked = self.unasked
        if Effect.ACTIVATE in step.effects:
            assert self.installed
        if after.state is State.VERIFYING and before.state is not State.VERIFYING:
            self.healthy = self.answered = False
        if Effect.COMMIT in step.effects:
            assert self.healthy, "without a passed health check since the last start"
            assert self.answered or self.committed_unasked, "without an answer to the version that runs"
            assert self.runs_new
        if after.nonce != before.nonce and after.state is State.WAITING:
            assert not after.granted, "a new question, and an old answer"
        if after.is_over and not before.is_over:
            self._check_outcome(before, after)

    def _check_outcome(self, before: Update, after: Update) -> None:
        match after.state:
            case State.SUCCEEDED:
                assert self.runs_new
                assert before.state is State.COMMITTING
            case State.INCONSISTENT:
                assert before.state is State.ROLLING_BACK
            case _:
                assert not self.runs_new, "the former version runs"

    def _follow(self, step: Step) -> None:
        self.update = step.update
        for effect in step.effects:
            if effect is Effect.STOP_FETCHING:
                self.under_way = [item for item in self.under_way if item[0] is not Effect.FETCH]
            elif effect is Effect.FORGET:
                self.forgotten = True
            elif effect not in (Effect.REPORT_STATE, Effect.REPORT_READINESS, Effect.CLEAN_UP):
                self.under_way.append((effect, step.update))


def _random_step(world: World, draw: tuple[int, int, int]) -> None:
    kind, index, choice = draw
    match kind:
        case 0 | 1 | 2 | 3 | 4 | 5:
            world.ends(index, choice if kind < 2 else 0)
        case 6:
            older = world.nonces[-1 - index % len(world.nonces)] if world.nonces else ""
            nonce = world.update.nonce if choice else older
            world.offer(
                [Grant.DOWNLOAD, Grant.ACTIVATE, Grant.ACTIVATE, Grant.ACTIVATE][choice], nonce, heard=index % 2 == 0
            )
        case 7:
            world.offer(Grant.ACTIVATE, world.update.nonce, heard=True)
        case 8:
            world.announced(
                [Action.INSTALL, Action.INSTALL, Action.HOLD, Action.ABORT][choice]
                if index % 3 == 0
                else Action.INSTALL
            )
        case 9 if choice == 3:
            world.offer(Grant.DOWNLOAD, "", heard=False, offline=True)
        case 9:
            world.grant_ends()
        case 10:
            world.restart()
        case 11 | 12:
            world.tick()
        case 13 if choice == 3:
            world.offer(Grant.CLOSED, world.update.nonce, heard=True)
        case 14 if world.update.state is State.VERIFYING and choice == 3:
            world.happens(ev.VerifyTimedOut("late"))
        case _:
            pass


DRAWS = st.lists(st.tuples(st.integers(0, 14), st.integers(0, 7), st.integers(0, 3)), max_size=60)


@settings(max_examples=600, deadline=None)
@given(DRAWS, st.booleans(), st.booleans())
def test_whatever_happens_it_ends(draws: list[tuple[int, int, int]], restarts: bool, offline: bool) -> None:
    """After any history, with grants used, lost and run out, a world that behaves brings it to a heard outcome.

    On the way nothing is installed or activated without a live grant for the nonce that was asked with, or an offer
    that lets the device go on unasked; nothing is activated before it was installed, nothing is committed before it was
    healthy and heard, unless it was activated unasked, and every outcome but success leaves the former version running.
    The orchestrator that behaves answers each nonce once.
    """
    world = World(Update(offer=OFFLINE_OFFER if offline else OFFER), unasked=offline)
    world.start()
    for draw in draws:
        _random_step(world, draw)
    if restarts:
        world.restart()
    if world.update.action is not Action.ABORT:
        world.announced(Action.INSTALL)
    for _ in range(80):
        if world.update.is_over:
            break
        if world.under_way:
            world.ends(0, 0)
            continue
        nonce = world.update.nonce
        asking = world.update.state is State.WAITING and not world.update.reasons
        asking = asking and world.update.phase is not Phase.DOWNLOAD and nonce not in world.granted_nonces
        if (nonce and not world.update.heard) or asking:
            world.offer(Grant.ACTIVATE if asking else Grant.DOWNLOAD, nonce, heard=True)
        world.tick()
    assert world.update.is_over, f"stuck in {world.update.state} {world.update.phase}"
    world.offer(Grant.CLOSED, world.update.nonce, heard=True, outcome=True)
    assert world.forgotten


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(list(SAMPLES.values())), max_size=40), st.sampled_from(PLACES))
def test_any_sequence_of_events_is_taken_or_refused(events: list[ev.Event], place: Place) -> None:
    """Events in any order, sensible or not: taken or IllegalEvent, and the number of steps is bounded."""
    update = _at(place)
    for number, event in enumerate(events):
        try:
            step = advance(update, event, f"nonce-{number:04}")
        except IllegalEvent:
            continue
        assert Effect.INSTALL not in step.effects
        assert Effect.ACTIVATE not in step.effects
        update = step.update
        assert update.stores <= MAX_STORES + 3
