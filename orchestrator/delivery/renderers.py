"""What an announcement and an offer say, from rows as they are now. Pure: one function per topic.

The latch check stands here: a rollout that is halted or aborted gets no new offer and no activate grant, whatever the
assignment's row still says. None means that there is nothing to publish.
"""

from datetime import datetime, timedelta
from typing import Any

from orchestrator.model.assignment import PENDING, Assignment
from orchestrator.model.plan import announced_policy
from orchestrator.model.rollout import Rollout, RolloutState
from protocol.directives import Action, Grant, ReleaseRef

Draft = dict[str, Any]

ACTIONS = {
    RolloutState.RUNNING: Action.INSTALL,
    RolloutState.PAUSED: Action.INSTALL,
    RolloutState.COMPLETED: Action.INSTALL,
    RolloutState.HALTED: Action.HOLD,
    RolloutState.ABORTED: Action.ABORT,
}
"""Design, section 7. What is not here is not announced."""
LATCHED = frozenset({RolloutState.HALTED, RolloutState.ABORTED})
_REASON_CHARS = 200


def is_latched(rollout: Rollout, *, fleet_halted: bool) -> bool:
    """Whether nothing new may be offered: the rollout is halted or aborted, or the whole fleet is halted."""
    return fleet_halted or rollout.state in LATCHED


def announcement_draft(
    rollout: Rollout, release: ReleaseRef, now: datetime, lease: timedelta, *, fleet_halted: bool = False
) -> Draft | None:
    """The announcement of a rollout, or None while it has not begun."""
    action = ACTIONS.get(rollout.state)
    if action is None:
        return None
    if fleet_halted and action is Action.INSTALL:
        action = Action.HOLD
    return {
        "rollout": rollout.id,
        "release": release,
        "action": action,
        "policy": announced_policy(rollout.spec),
        "expires": _later(rollout.announcement_expires, now, lease),
    }


def offer_draft(
    assignment: Assignment,
    rollout: Rollout,
    release: ReleaseRef,
    *,
    ever_sent: bool,
    now: datetime,
    lease: timedelta,
    grant_s: float,
    fleet_halted: bool = False,
) -> Draft | None:
    """The offer to one device, without its key wrap; None where there is nothing to say.

    Args:
        ever_sent: The broker holds an offer of this rollout for this device.
        grant_s: Life of an activate grant on the device's clock.
    """
    if rollout.state not in ACTIONS or assignment.grant == "none":
        return None
    latched = is_latched(rollout, fleet_halted=fleet_halted)
    grant = _grant(assignment, latched=latched)
    if not ever_sent and not _may_begin(assignment, grant, latched=latched):
        return None
    draft: Draft = {
        "rollout": rollout.id,
        "device": assignment.device,
        "attempt": assignment.attempt,
        "release": release,
        "grant": grant,
        "expires": _later(assignment.offer_expires, now, lease),
        "heard": {
            "nonce": assignment.nonce,
            # One that will try again has ended too: the attempt before.
            "outcome": assignment.outcome_digest if assignment.is_terminal or assignment.state == PENDING else None,
        },
    }
    if grant is Grant.ACTIVATE:
        # It runs out by itself as soon as it would on the device: who holds it back can hide a halt no longer.
        soon = now + timedelta(seconds=grant_s)
        draft |= {"nonce": assignment.grant_nonce, "grant_s": max(1, round(grant_s))}
        draft |= {"expires": min(draft["expires"], soon)}
    if grant is Grant.CLOSED:
        draft["reason"] = assignment.close_reason[:_REASON_CHARS]
    return draft


def _grant(assignment: Assignment, *, latched: bool) -> Grant:
    grant = Grant(assignment.grant)
    if grant is Grant.ACTIVATE and (latched or assignment.grant_nonce is None):
        return Grant.DOWNLOAD  # it keeps what it has and waits
    return grant


def _may_begin(assignment: Assignment, grant: Grant, *, latched: bool) -> bool:
    """Whether a first offer may go out; an answer to a report may, even where the former offer was cleared."""
    if grant is Grant.CLOSED:
        return assignment.nonce is not None
    return not latched


def _later(stored: datetime | None, now: datetime, lease: timedelta) -> datetime:
    return stored if stored is not None and stored > now else now + lease
