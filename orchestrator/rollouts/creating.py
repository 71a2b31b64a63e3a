"""How a rollout comes to be, and how it begins: its plan is tried when it is made, its members are fixed at its start.

Choosing members looks at the whole fleet, in a snapshot of its own; placing them takes many short transactions. Only
what comes last, the flip of the rollout's state, is one transaction with a check that nothing has changed.
"""

from dataclasses import replace
from datetime import timedelta
from random import Random

from sqlalchemy.ext.asyncio import AsyncConnection

from orchestrator.errors import ConflictError, UsageError
from orchestrator.model.assignment import PENDING
from orchestrator.model.plan import AtEnd, RolloutSpec
from orchestrator.model.rollout import Rollout, RolloutState
from orchestrator.rollouts import operations, placing
from orchestrator.rollouts.operations import Order
from orchestrator.rollouts.plans import Plan
from orchestrator.storage import assignments, dirty, events, rollouts
from orchestrator.storage.database import Database
from orchestrator.storage.exclusions import exclude_gone
from protocol.clock import Clock, rfc3339
from protocol.topics import Kind
from protocol.versions import compare

MAX_PLAN_BYTES = 3 * 2**19
"""With defaults: every decision of the engine is logged with it."""

_LEAP = timedelta(minutes=10)
"""The clock may have been set back while members were placed."""


async def create(
    db: Database,
    clock: Clock,
    spec: RolloutSpec,
    rollout_id: str = "",
    random: Random | None = None,
    *,
    actor: str = "operator",
) -> Rollout:
    """Make a plan and try it: who would take part as the fleet stands now. Nothing is sent, nobody is placed yet.

    Args:
        rollout_id: Empty: the next ``r-N``.
        random: Chooses; whoever starts it chooses anew.
        actor: Who orders it; stands in the event.

    Raises:
        NotFoundError: The release, a group or a listed device does not exist.
        UsageError: It was to start or end in the past: a slip in the date, which would start it at once.
        ConflictError: The id is taken, the release is not published, no device could come to the end of it, a stage
            is empty, or members are left over.
    """
    now = clock.now()
    if (size := len(spec.model_dump_json())) > MAX_PLAN_BYTES:
        raise UsageError(
            f"plan: at most {MAX_PLAN_BYTES} B with all defaults written out, found {size}; "
            "name groups instead of devices, or fewer rules in each stage"
        )
    if rollout_id:
        async with db.read() as conn:
            await _check_free(conn, rollout_id)
    plan = await _choose(db, clock, spec, rollout_id, random)
    async with db.begin() as conn:
        name = rollout_id or await rollouts.next_id(conn)
        await _check_free(conn, name)
        waits = spec.needs_approval or spec.start_at is None
        state = RolloutState.DRAFT if waits else RolloutState.SCHEDULED
        await rollouts.insert(conn, name, spec, state, now)
        await _note_sizes(conn, name, plan)
        text = f"{spec.release} to {len(plan)} devices in {len(spec.stages)} stages"
        whole = spec.model_dump(mode="json", exclude_none=True)
        given = Order(verb="create", actor=actor)
        await operations.log_order(conn, name, given, now, f"created: {text}", state, spec=whole, members=len(plan))
        await events.add(conn, "rollout_created", text, now, actor=actor, rollout=name)
        await dirty.mark(conn, Kind.STATUS_ROLLOUT, [name], now)
        await dirty.mark(conn, Kind.STATUS_FLEET, [""], now)
        return await operations.get(conn, name)


async def start(
    db: Database,
    clock: Clock,
    rollout_id: str,
    *,
    actor: str = "operator",
    version: int | None = None,
    reason: str = "",
) -> Rollout:
    """Choose members anew, give each its place, announce the rollout; its first stage opens with the next look.

    A crash in between leaves a draft that may be started again.

    Raises:
        NotFoundError: There is no such rollout.
        ConflictError: Its state does not allow it, its release was withdrawn, or the plan fits no more: the sentence
            says how.
    """
    given = Order(verb="start", actor=actor, version=version, reason=reason)
    operations.check_reason(reason)
    async with db.read() as conn:
        rollout = await operations.get(conn, rollout_id)
    operations.check_order(rollout, given)
    if rollout_id in db.starting:
        raise ConflictError(f"rollout {rollout_id}: is being started already; look again in a moment")
    db.starting.add(rollout_id)
    since = clock.now() - _LEAP
    try:
        plan = await _choose(db, clock, rollout.spec, rollout_id)
        await placing.place(db, rollout_id, plan)

        async def note(conn: AsyncConnection) -> None:
            await _check_placed(conn, rollout_id, len(plan))
            await exclude_gone(conn, since, clock.now())
            await _note_sizes(conn, rollout_id, plan)

        return await operations.order(db, clock, rollout_id, replace(given, version=rollout.version), also=note)
    finally:
        db.starting.discard(rollout_id)


async def clone(
    db: Database, clock: Clock, rollout_id: str, new_id: str = "", *, release: str = "", actor: str = "operator"
) -> Rollout:
    """Make a new draft of a rollout's plan, of another release where one is named; times that are past are left out.

    Raises:
        NotFoundError: There is no such rollout, or release.
        ConflictError: The plan fits no device any more; as ``create``.
    """
    async with db.read() as conn:
        rollout = await operations.get(conn, rollout_id)
    changes: dict[str, object] = {"release": release or rollout.spec.release}
    now, spec = clock.now(), rollout.spec
    if spec.end_at is not None and spec.end_at <= now:
        if spec.members.dynamic:
            raise ConflictError(
                f"rollout {rollout_id}: ended at {rfc3339(spec.end_at)} and has dynamic members; "
                "create a new one with a later end_at"
            )
        changes |= {"end_at": None, "at_end": AtEnd.STOP}
    if spec.start_at is not None and spec.start_at <= now:
        changes["start_at"] = None
    plan = RolloutSpec.model_validate({**spec.model_dump(exclude_unset=True), **changes})
    return await create(db, clock, plan, new_id, actor=actor)


async def _choose(db: Database, clock: Clock, spec: RolloutSpec, rollout_id: str, random: Random | None = None) -> Plan:
    what = f"rollout {rollout_id}" if rollout_id else "plan"

    async def work(conn: AsyncConnection) -> Plan:
        facts = await placing.load_facts(conn, spec, compare, rollout_id)
        await placing.check_possible(conn, spec, facts, clock.now())
        return await placing.plan_members(conn, spec, facts, what=what, random=random)

    return await db.look(work)


async def _check_free(conn: AsyncConnection, rollout_id: str) -> None:
    if await rollouts.get(conn, rollout_id) is not None:
        raise ConflictError(f"rollout {rollout_id}: exists already; name another, or leave the id out")


async def _check_placed(conn: AsyncConnection, rollout_id: str, members: int) -> None:
    """Another process that started it at the same time took some rows away: nobody may be lost."""
    counts = await assignments.load_counts(conn, rollout_id)
    placed = sum(found.get(f"state:{PENDING}", 0) for found in counts.values())
    if placed != members:
        raise ConflictError(f"rollout {rollout_id}: {placed} of {members} members are placed; start it again")


async def _note_sizes(conn: AsyncConnection, rollout_id: str, plan: Plan) -> None:
    stages = await rollouts.load_stages(conn, rollout_id)
    await rollouts.save_stages(conn, [replace(s, members=n) for s, n in zip(stages, plan.sizes(), strict=True)])
