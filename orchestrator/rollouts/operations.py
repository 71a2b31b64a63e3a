"""What an operator may order of a rollout that there is. Each verb is one transaction; engine and delivery act on it.

``creating`` makes and starts them, ``reverting`` takes back what they did, ``fleet_halt`` halts all of them.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from orchestrator.errors import ConflictError, NotAllowedError, NotFoundError, UsageError
from orchestrator.model.assignment import OFFERED
from orchestrator.model.audit import AuditKind
from orchestrator.model.failure import FailureClass
from orchestrator.model.rollout import Rollout, RolloutState, StageState
from orchestrator.rollouts import steps
from orchestrator.rollouts.rules import judged_keys
from orchestrator.rollouts.trying_again import less_acknowledged, try_again
from orchestrator.storage import assignments, audit, dirty, events, offered, rollouts
from orchestrator.storage.database import Database
from orchestrator.storage.engine_rows import EngineRows
from protocol.clock import Clock
from protocol.states import State
from protocol.topics import Kind

_PAGE = 500
_S = RolloutState
_VERBS: dict[str, tuple[frozenset[RolloutState], RolloutState | None]] = {
    "submit": (frozenset({_S.DRAFT}), _S.AWAITING_APPROVAL),
    "approve": (frozenset({_S.AWAITING_APPROVAL}), _S.SCHEDULED),
    "reject": (frozenset({_S.AWAITING_APPROVAL}), _S.DRAFT),
    "start": (frozenset({_S.DRAFT, _S.SCHEDULED}), _S.RUNNING),
    "pause": (frozenset({_S.RUNNING}), _S.PAUSED),
    "resume": (frozenset({_S.PAUSED, _S.HALTED}), _S.RUNNING),
    "promote": (frozenset({_S.RUNNING}), None),
    "halt": (frozenset({_S.RUNNING, _S.PAUSED}), _S.HALTED),
    "retry": (frozenset({_S.RUNNING, _S.PAUSED, _S.HALTED, _S.COMPLETED}), None),
    "abort": (
        frozenset({_S.DRAFT, _S.AWAITING_APPROVAL, _S.SCHEDULED, _S.RUNNING, _S.PAUSED, _S.HALTED}),
        _S.ABORTED,
    ),
}
"""Verb -> (states it applies to, state it leads to; None where it stays)."""
_PAST = {
    "submit": "submitted", "approve": "approved", "reject": "rejected", "start": "started", "pause": "paused",
    "resume": "resumed", "promote": "promoted", "halt": "halted", "retry": "retried", "abort": "aborted",
}  # fmt: skip
MAX_REASON_CHARS = 500

Also = Callable[[AsyncConnection], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """A verb with all that belongs to it.

    Attributes:
        actor: Who orders it.
        version: Of the rollout, as the person who orders saw it; None: whatever it is now.
        devices: Which of the failed ones, with ``retry``; none named: all.
        classes: Which failures, with ``retry``; none named: all.
    """

    verb: str
    reason: str = ""
    actor: str = "operator"
    version: int | None = None
    devices: frozenset[str] = frozenset()
    classes: frozenset[FailureClass] = frozenset()


async def order(db: Database, clock: Clock, rollout_id: str, given: Order, *, also: Also | None = None) -> Rollout:
    """Carry out one verb.

    Args:
        also: Done in the same transaction, before the rollout changes.

    Raises:
        NotFoundError: There is no such rollout.
        ConflictError: Its state does not allow it, or somebody else changed it since it was looked at.
        NotAllowedError: Who submitted it may not approve it.
        UsageError: A reason is missing or too long.
    """
    now = clock.now()
    check_reason(given.reason)
    async with db.begin() as conn:
        rollout = await get(conn, rollout_id)
        check_order(rollout, given)
        values = _changes(rollout, given, now)
        text = f"{_PAST[given.verb]}: {given.reason}" if given.reason else _PAST[given.verb]
        await log_order(conn, rollout_id, given, now, text, values.get("state", rollout.state))
        if also is not None:
            await also(conn)
        match given.verb:
            case "resume":
                values["acknowledged"] = await _acknowledge(conn, rollout)
            case "abort":
                await _cancel_unreached(conn, rollout_id, now)
            case "promote":
                text = await _promote(conn, rollout, now)
            case "retry":
                again = await try_again(conn, rollout, given, now)
                text = f"{len(again)} devices try again" + (f": {given.reason}" if given.reason else "")
                values["acknowledged"] = less_acknowledged(rollout, again)
        await rollouts.save(conn, rollout_id, **values)
        if given.verb in _ANNOUNCED:
            await dirty.mark(conn, Kind.ANNOUNCE, [rollout_id], now)
        await events.add(conn, f"rollout_{_PAST[given.verb]}", text, now, actor=given.actor, rollout=rollout_id)
        await _mark_status(conn, rollout_id, now)
        return await get(conn, rollout_id)


def check_reason(reason: str) -> None:
    """Refuse a reason that is too long; raises UsageError."""
    if len(reason) > MAX_REASON_CHARS:
        raise UsageError(f"--reason: at most {MAX_REASON_CHARS} characters, found {len(reason)}")


async def log_order(
    conn: AsyncConnection,
    rollout_id: str,
    given: Order,
    now: datetime,
    text: str,
    state: RolloutState,
    **more: Any,  # noqa: ANN401 - JSON
) -> None:
    """Into the audit log, before anything moves because of it."""
    figures: dict[str, Any] = {"verb": given.verb, "state": state.value, "reason": given.reason, **more}
    if given.version is not None:
        figures["version"] = given.version
    if given.devices or given.classes:
        figures |= {"devices": sorted(given.devices), "classes": sorted(given.classes)}
    await audit.append(
        conn, AuditKind.ORDER, at=now, actor=given.actor, cause=text, rollout=rollout_id, figures=figures
    )


_ANNOUNCED = frozenset({"start", "resume", "halt", "abort", "retry"})


def allowed_verbs(rollout: Rollout) -> list[str]:
    """What may be ordered in the state that a rollout is in."""
    return [verb for verb, (states, _) in _VERBS.items() if rollout.state in states]


def check_order(rollout: Rollout, given: Order) -> None:
    """Refuse an order that a rollout's state, version or plan does not allow; raises as ``order``."""
    allowed, name = _VERBS[given.verb][0], f"rollout {rollout.id}"
    if rollout.state not in allowed:
        may = ", ".join(allowed_verbs(rollout)) or "nothing"
        raise ConflictError(
            f"{name}: is {rollout.state}; {given.verb} needs one that is {' or '.join(sorted(allowed))}; "
            f"allowed now: {may}"
        )
    if given.version is not None and given.version != rollout.version:
        raise ConflictError(
            f"{name}: version {rollout.version}, you looked at version {given.version}: somebody changed it since; "
            f"look again with 'flagship rollout show {rollout.id}'"
        )
    if given.verb == "resume" and rollout.state is _S.HALTED and not given.reason:
        raise UsageError(f"{name}: was halted ({rollout.reason}); resume it with --reason")
    if given.verb == "reject" and not given.reason:
        raise UsageError(f"{name}: say why with --reason")
    if given.verb == "start" and rollout.spec.needs_approval and not rollout.approved_by:
        raise ConflictError(
            f"{name}: its plan needs approval; 'flagship rollout submit {rollout.id}', "
            "then somebody else: 'flagship rollout approve'"
        )
    if given.verb == "approve" and given.actor == rollout.submitted_by:
        raise NotAllowedError(
            f"{name}: was submitted by {rollout.submitted_by}; another person approves it, with a token of their own"
        )


def _changes(rollout: Rollout, given: Order, now: datetime) -> dict[str, Any]:
    values: dict[str, Any] = {} if given.verb in ("promote", "retry") else {"reason": given.reason}
    after = _VERBS[given.verb][1]
    if after is not None:
        values["state"] = after
    match given.verb:
        case "submit":
            values |= {"submitted_by": given.actor, "approved_by": ""}
        case "approve":
            values |= {"approved_by": given.actor}
        case "start":
            values |= {"started_at": now, "timed_from": now}
        case "resume":
            values |= {"timed_from": now, "wants_revert": False}
        case "halt" | "abort":
            values |= {"halts": rollout.halts + 1}  # the signer tells a database that knows of the halt by it
            if rollout.started_at is None:  # nobody was placed, and nobody has anything left to do
                values |= {"ended_at": now}
        case "retry" if rollout.state is _S.COMPLETED:
            values |= {"state": _S.RUNNING, "ended_at": None, "timed_from": now}
    return values


async def _promote(conn: AsyncConnection, rollout: Rollout, now: datetime) -> str:
    """Pass the stage that is under way, whatever its rule says; the engine opens the next one."""
    stages = await rollouts.load_stages(conn, rollout.id)
    under_way = next((stage for stage in stages if stage.state is not StageState.PASSED), None)
    if under_way is None or under_way.state is StageState.PENDING or under_way is stages[-1]:
        name = under_way.name if under_way else stages[-1].name
        raise ConflictError(f"rollout {rollout.id}: no stage comes after {name} that could be opened now")
    await rollouts.save_stages(conn, [replace(under_way, state=StageState.PASSED, passed_at=now)])
    return f"promoted: stage {under_way.name} passed by order"


async def get(conn: AsyncConnection, rollout_id: str) -> Rollout:
    """One rollout; raises NotFoundError."""
    rollout = await rollouts.get(conn, rollout_id)
    if rollout is None:
        raise NotFoundError(f"rollout {rollout_id}: there is none; see 'flagship rollout list'")
    return rollout


async def _acknowledge(conn: AsyncConnection, rollout: Rollout) -> dict[str, dict[str, int]]:
    """What a person has seen who resumes: what rules are judged on, by stage."""
    if rollout.state is not RolloutState.HALTED:
        return {str(stage): dict(seen) for stage, seen in rollout.acknowledged.items()}
    found = await assignments.load_counts(conn, rollout.id)
    return {str(stage): judged_keys(counts) for stage, counts in found.items()}


async def _cancel_unreached(conn: AsyncConnection, rollout_id: str, now: datetime) -> None:
    """Devices that were offered something which no broker has are done: they will never say so. The others do.

    One whose offer is on its way just now is among them; it hears of the abort, and its own outcome replaces this.
    Those that were never offered anything are the engine's, batch by batch.
    """
    reached = await offered.reached(conn, rollout_id)
    rows, after = EngineRows(conn, rollout_id), ""
    while page := await rows.queued(after, _PAGE):
        after = page[-1].device
        done = [row for row in page if row.state == OFFERED and row.device not in reached]
        await assignments.save_all(conn, [(row, steps.end(row, State.CANCELLED, "aborted", now)) for row in done])
        await dirty.mark(conn, Kind.STATUS_DEVICE, [row.device for row in done], now)


async def _mark_status(conn: AsyncConnection, rollout_id: str, now: datetime) -> None:
    await dirty.mark(conn, Kind.STATUS_ROLLOUT, [rollout_id], now)
    await dirty.mark(conn, Kind.STATUS_FLEET, [""], now)
