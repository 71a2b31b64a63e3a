"""The update machine: the rules that do not fit in its table. Pure.

``advance`` takes the update and an event and returns the update after it with the effects that follow. An event
that has no row for the present state is out of place: it raises ``IllegalEvent`` and changes nothing.

``machine_table`` says where an event leads and what is done on arrival. What does not fit in it:

- ``waiting`` has a phase, so rows name (state, phase).
- a grant that is missing keeps open gates waiting, and is asked for (``_open``).
- gates that shut right before what they guard lead back, and burn nothing (``_turned_away``).
- verifying ends when it is healthy *and* heard, in either order; offline, healthy is enough (``_verified``).
"""

from dataclasses import dataclass
from typing import assert_never

from device_client.agent import events as ev
from device_client.agent.effects import Effect
from device_client.agent.journal import Update
from device_client.agent.machine_table import (
    ACTIVATING,
    COMMITTING,
    DOWNLOADING,
    ENTER,
    EVALUATING,
    FETCHED,
    INSTALLED,
    INSTALLING,
    REPORTED,
    ROLLING_BACK,
    TABLE,
    WAIT_ACTIVATE,
    WAIT_DOWNLOAD,
    WAIT_INSTALL,
    Place,
)
from protocol.directives import Action, Grant
from protocol.errors import ErrorCode
from protocol.states import OUTCOMES, TOUCHED, Phase, State

MAX_STORES = 30


class IllegalEvent(RuntimeError):  # noqa: N818 - named as h11 names it
    """An event came in a state that has no row for it; nothing changed."""


@dataclass(frozen=True, slots=True)
class Step:
    """What follows from one event."""

    update: Update
    effects: tuple[Effect, ...]


def begin(offer_update: Update) -> Step:
    """Take on a new offer."""
    return Step(offer_update.model_copy(update={"state": State.EVALUATING}), ENTER[EVALUATING])


def advance(update: Update, event: ev.Event, nonce: str) -> Step:
    """One step.

    Args:
        update: As it was saved last.
        event: What happened.
        nonce: A fresh one, used if this step makes a report that is to be heard.

    Raises:
        IllegalEvent: The event has no place here; nothing changed.
    """
    match event:
        case ev.OfferRenewed():
            return _renewed(update, event)
        case ev.GrantEnded():
            # Its nonce was answered and will not be again: with a new one the open gates are asked for anew.
            ended = {"granted": False, **({"nonce": ""} if _has_asked(update) else {})}
            return Step(update.model_copy(update=ended), ())
        case ev.Announced():
            return _announced(update, event, nonce)
        case ev.Heard():
            return _heard(update, event)
        case ev.GatesOpen():
            return _open(update, event, nonce)
        case ev.GatesOpenOffline():
            return _open_offline(update, nonce)
        case ev.GatesShut():
            return _shut(update, event, nonce)
        case ev.Waited(seconds):
            longer = {"waited_s": update.waited_s + seconds} if update.reasons else {}
            return Step(update.model_copy(update=longer), ())
        case ev.TurnedAway():
            return _turned_away(update, event, nonce)
        case _:
            return _by_table(update, event, nonce)


def _by_table(update: Update, event: ev.Event, nonce: str) -> Step:
    place = TABLE.get(((update.state, update.phase), type(event)))
    if place is None:
        raise IllegalEvent(f"{type(event).__name__} in {update.state} {update.phase or ''}".rstrip())
    changes: dict[str, object] = {}
    match event:
        case ev.Fits():
            changes = {"component": event.component, "version": event.version, "from_version": event.from_version}
        case ev.AlreadyRuns():
            changes = {"component": event.component, "version": event.version, "from_version": event.version}
        case ev.Refused():
            changes = {"code": event.code, "detail": event.detail}
        case ev.Failed():
            changes = {"code": event.code, "detail": event.detail, "log": event.log}
            if update.state is State.ROLLING_BACK:
                changes["detail"] = f"rolling back failed: {event.detail}; before it: {update.detail}"[:500]
        case ev.VerifyTimedOut():
            changes = {"code": ErrorCode.TIMEOUT, "detail": event.detail}
        case ev.Closed(why) | ev.Superseded(why) | ev.Declined(why) | ev.WaitedTooLong(why):
            changes = {"detail": why}
        case ev.Fetched():
            changes = {"bytes_fetched": event.bytes_fetched}
        case ev.FetchInterrupted():
            return Step(update.model_copy(update={"resumed": True, "resumes": update.resumes + 1}), ())
        case ev.HealthPassed():
            return _verified(update.model_copy(update={"healthy": True, "log": event.log}))
        case ev.Installed() if update.offer.grant is Grant.CLOSED:
            place, changes = ROLLING_BACK, {"detail": update.offer.reason or "closed"}  # while it was being written
        case ev.Installed() | ev.LeaseEnded() | ev.Activated() | ev.Committed() | ev.RolledBack():
            pass
        case (
            ev.OfferRenewed() | ev.GrantEnded() | ev.Announced() | ev.Heard()
            | ev.GatesOpen() | ev.GatesOpenOffline() | ev.GatesShut() | ev.TurnedAway() | ev.Waited()
        ):  # fmt: skip
            raise RuntimeError("advance() routes these elsewhere")
        case _:
            assert_never(event)
    return arrive(update, place, changes, nonce)


def arrive(update: Update, place: Place, changes: dict[str, object], nonce: str = "") -> Step:
    """Arrive somewhere: the state, the counters, a new nonce where it is reported, the effects of arrival."""
    state, phase = place
    changes |= {"state": state, "phase": phase, "reasons": [], "restarts": 0}
    if place not in (INSTALLING, ACTIVATING):  # what was forced open is judged there once more
        changes["waited_s"] = 0.0
    if state is State.INSTALLING:
        changes["installs"] = update.installs + 1
    if state is State.VERIFYING:
        changes["healthy"] = False
    effects = ENTER.get(place, ())
    if state in OUTCOMES:
        effects = (Effect.CLEAN_UP, Effect.REPORT_STATE)
    if update.state is State.DOWNLOADING and place != FETCHED:
        effects = (Effect.STOP_FETCHING, *effects)
    if (place in REPORTED or state in OUTCOMES) and nonce:
        changes |= {"nonce": nonce, "heard": False}
    if state in TOUCHED or update.state in TOUCHED:
        changes["stores"] = update.stores + 1
    after = update.model_copy(update=changes)
    if after.stores > MAX_STORES and state in TOUCHED:
        # A loop between states must end: whatever it is, the former version is the safe place.
        return arrive(
            after, ROLLING_BACK, {"code": ErrorCode.INSTALL, "detail": f"more than {MAX_STORES} steps"}, nonce
        )
    return Step(after, effects)


def _open(update: Update, event: ev.GatesOpen, nonce: str) -> Step:
    place: Place = (update.state, update.phase)
    if place == WAIT_DOWNLOAD:
        return arrive(update, DOWNLOADING, {})
    if place == FETCHED:
        return _ask(update, Effect.REPORT_STATE, nonce, forced=event.forced)
    if place not in (WAIT_INSTALL, INSTALLED, WAIT_ACTIVATE):
        raise IllegalEvent(f"GatesOpen in {update.state}")
    if update.may_activate:
        return arrive(update, TABLE[place, ev.GatesOpen], {"offline": False}, nonce)
    if update.state is State.WAITING and not update.reasons and update.nonce:
        return Step(update, ())  # asked already; the reporter repeats it until it is heard
    return _ask(update, Effect.REPORT_READINESS, nonce, forced=event.forced)


def _open_offline(update: Update, nonce: str) -> Step:
    place = TABLE.get(((update.state, update.phase), ev.GatesOpenOffline))
    if place is None:
        raise IllegalEvent(f"GatesOpenOffline in {update.state}")
    if not update.may_go_unasked:
        return Step(update, ())  # the order changed while the gates were judged; they are judged again
    return arrive(update, place, {"offline": True}, nonce)


def _ask(update: Update, effect: Effect, nonce: str, *, forced: bool) -> Step:
    """Say that all gates are open, so that a grant may answer this nonce; forced, the wait goes on being over."""
    changes: dict[str, object] = {"state": State.WAITING, "phase": update.phase, "reasons": []}
    changes |= {"nonce": nonce, "heard": False, "granted": False, **({} if forced else {"waited_s": 0.0})}
    return Step(update.model_copy(update=changes), (effect,))


def _has_asked(update: Update) -> bool:
    return update.state is State.WAITING and update.phase is not Phase.DOWNLOAD and not update.reasons


def _shut(update: Update, event: ev.GatesShut, nonce: str) -> Step:
    place: Place = (update.state, update.phase)
    if (place, ev.GatesShut) not in TABLE:
        raise IllegalEvent(f"GatesShut in {update.state}")
    reasons = list(event.reasons)
    same = [(r.gate, r.code) for r in reasons] == [(r.gate, r.code) for r in update.reasons]
    changed: dict[str, object] = {"state": State.WAITING, "phase": update.phase, "reasons": reasons}
    if same and update.nonce and place != FETCHED:
        return Step(update.model_copy(update=changed), ())
    changed |= {"nonce": nonce, "heard": False, "granted": False}  # a grant answered the report before this one
    effect = Effect.REPORT_STATE if place == FETCHED else Effect.REPORT_READINESS
    return Step(update.model_copy(update=changed), (effect,))


def _turned_away(update: Update, event: ev.TurnedAway, nonce: str) -> Step:
    place = TABLE.get(((update.state, update.phase), ev.TurnedAway))
    if place is None:
        raise IllegalEvent(f"TurnedAway in {update.state}")
    if update.offer.grant is Grant.CLOSED:  # it said so while there was no turning back, and says it but once
        ends = ev.Superseded if update.offer.is_superseded else ev.Closed
        return arrive(update, TABLE[place, ends], {"detail": update.offer.reason or "closed"}, nonce)
    state, phase = place
    changes: dict[str, object] = {"state": state, "phase": phase, "reasons": list(event.reasons)}
    changes |= {"nonce": nonce, "heard": False, "granted": False, "offline": False}
    # A wait is no attempt: what arriving here has counted is given back.
    changes |= {"stores": update.stores - 1, "installs": update.installs - (update.state is State.INSTALLING)}
    return Step(update.model_copy(update=changes), (Effect.REPORT_READINESS,))


def _renewed(update: Update, event: ev.OfferRenewed) -> Step:
    # A closed offer carries no key; what was staged with it must stay readable until this is over.
    offer = event.offer.model_copy(update={"key_wrap": event.offer.key_wrap or update.offer.key_wrap})
    changes: dict[str, object] = {"offer": offer}
    if event.granted:
        changes["granted"] = True
    after = update.model_copy(update=changes)
    if event.granted and after.state is State.WAITING and after.phase in (Phase.INSTALL, Phase.ACTIVATE):
        return Step(after, (Effect.JUDGE_GATES,))
    return Step(after, ())


def _announced(update: Update, event: ev.Announced, nonce: str) -> Step:
    after = update.model_copy(update={"action": event.action})
    if update.is_over:
        return Step(after, ())
    match event.action:
        case Action.ABORT:
            return _aborted(after, nonce)
        case Action.HOLD if after.state is State.DOWNLOADING:
            waiting = {"state": State.WAITING, "phase": Phase.DOWNLOAD}
            return Step(after.model_copy(update=waiting), (Effect.STOP_FETCHING, Effect.JUDGE_GATES))
        case Action.HOLD | Action.INSTALL:
            if after.state is State.WAITING and update.action is not event.action:
                # Ask anew: a grant that was asked for before a halt is not answered after it.
                cleared = {"nonce": "", "granted": False} if after.phase is not Phase.DOWNLOAD else {}
                return Step(after.model_copy(update=cleared), (Effect.JUDGE_GATES,))
            return Step(after, ())
        case _:
            assert_never(event.action)


def _aborted(update: Update, nonce: str) -> Step:
    if update.state in (State.COMMITTING, State.ROLLING_BACK):
        return Step(update, ())
    touched = update.state in TOUCHED or (update.state, update.phase) == WAIT_ACTIVATE
    if touched:
        return arrive(update, ROLLING_BACK, {"detail": "the rollout was aborted"})
    return arrive(update, (State.CANCELLED, None), {"detail": "the rollout was aborted"}, nonce)


def _heard(update: Update, event: ev.Heard) -> Step:
    if event.nonce != update.nonce:
        return Step(update, ())
    after = update.model_copy(update={"heard": True})
    if after.is_over:
        return Step(after, (Effect.FORGET,)) if event.outcome else Step(update, ())
    if after.state is State.VERIFYING:
        return _verified(after)
    return Step(after, ())


def _verified(update: Update) -> Step:
    """Commit once the new version is healthy and the orchestrator has answered *it*; offline there is no one to ask."""
    if update.healthy and (update.heard or update.offline):
        return arrive(update, COMMITTING, {})
    return Step(update, ())
