"""What an operator may do with a rollout. Each verb is one transaction; engine and delivery act on what it wrote."""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import datetime, timedelta
from random import Random, SystemRandom
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from orchestrator.errors import ConflictError, NotFoundError, UsageError
from orchestrator.model.assignment import OFFERED, PENDING, Assignment
from orchestrator.model.audit import AuditKind
from orchestrator.model.device import Device
from orchestrator.model.rollout import Rollout, RolloutSpec, RolloutState
from orchestrator.rollouts.members import Groups, Place, place_members, select_members
from orchestrator.rollouts.rules import stage_counts
from orchestrator.storage import assignments, audit, devices, dirty, events, groups, offered, releases, rollouts
from orchestrator.storage.database import Database
from orchestrator.storage.releases import PUBLISHED
from protocol.clock import Clock
from protocol.manifest import ReleaseInfo
from protocol.states import State
from protocol.topics import Kind

_PAGE = 500
_VERBS: dict[str, tuple[frozenset[RolloutState], RolloutState]] = {
    "start": (frozenset({RolloutState.DRAFT, RolloutState.SCHEDULED}), RolloutState.RUNNING),
    "pause": (frozenset({RolloutState.RUNNING}), RolloutState.PAUSED),
    "resume": (frozenset({RolloutState.PAUSED, RolloutState.HALTED}), RolloutState.RUNNING),
    "halt": (frozenset({RolloutState.RUNNING, RolloutState.PAUSED}), RolloutState.HALTED),
    "abort": (
        frozenset(
            {
                RolloutState.DRAFT,
                RolloutState.SCHEDULED,
                RolloutState.RUNNING,
                RolloutState.PAUSED,
                RolloutState.HALTED,
            }
        ),
        RolloutState.ABORTED,
    ),
}
"""Verb -> (states it applies to, state it leads to)."""
_PAST = {"start": "started", "pause": "paused", "resume": "resumed", "halt": "halted", "abort": "aborted"}
MAX_REASON_CHARS = 500
JUST_NOW = timedelta(minutes=1)
"""A start that passed while the command was on its way still counts as now."""

Barrier = Callable[[], Awaitable[None]]


async def create(
    db: Database,
    clock: Clock,
    spec: RolloutSpec,
    rollout_id: str = "",
    random: Random | None = None,
    *,
    actor: str = "operator",
) -> Rollout:
    """Make a plan, choose its members and place them in stages. Nothing is sent.

    Args:
        rollout_id: Empty: the next ``r-N``.
        actor: Who says so, for the audit log and the events; with every verb.

    Raises:
        NotFoundError: The release or a group does not exist.
        UsageError: It was to start in the past: a slip in the date, which would start it at once.
        ConflictError: The id is taken, the release is not published, a stage is empty or members are left over.
    """
    now = clock.now()
    if spec.start_at is not None and spec.start_at < now - JUST_NOW:
        raise UsageError(f"start_at {spec.start_at:%Y-%m-%dT%H:%M:%S%z}: is past; name a later time, or leave it out")
    async with db.begin() as conn:
        name = rollout_id or await rollouts.next_id(conn)
        if await rollouts.get(conn, name) is not None:
            raise ConflictError(f"rollout {name}: exists already; name another, or leave the id out")
        info = await _release_info(conn, spec.release)
        members = await _load_groups(conn, spec)
        chosen = select_members(await _all_devices(conn), spec.members, members, info)
        places = place_members(name, chosen, spec, members, random or SystemRandom())
        state = RolloutState.SCHEDULED if spec.start_at else RolloutState.DRAFT
        await rollouts.insert(conn, name, spec, state, now)
        text = f"{spec.release} to {len(places)} devices in {len(spec.stages)} stages"
        plan = {"spec": spec.model_dump(mode="json", exclude_none=True), "members": len(places)}
        await _log_order(conn, "create", now, actor, f"created: {text}", name, state, **plan)
        await _insert_members(conn, name, places)
        await events.add(conn, "rollout_created", text, now, actor=actor, rollout=name)
        await _mark_status(conn, name, now)
        return await _get(conn, name)


async def start(db: Database, clock: Clock, rollout_id: str, *, actor: str = "operator") -> Rollout:
    """Announce it and open its first stage; raises as ``order``."""
    return await order(db, clock, rollout_id, "start", actor=actor)


async def pause(db: Database, clock: Clock, rollout_id: str, reason: str = "", *, actor: str = "operator") -> Rollout:
    """Make no new offers; raises as ``order``."""
    return await order(db, clock, rollout_id, "pause", reason, actor=actor)


async def resume(db: Database, clock: Clock, rollout_id: str, reason: str = "", *, actor: str = "operator") -> Rollout:
    """Go on; after a halt a reason is needed, and rules are judged on what comes from now on; raises as ``order``."""
    return await order(db, clock, rollout_id, "resume", reason, actor=actor)


async def halt(
    db: Database, clock: Clock, rollout_id: str, reason: str = "", *, barrier: Barrier, actor: str = "operator"
) -> Rollout:
    """Hold every device that is not installing; returns when sends in flight have ended; raises as ``order``."""
    halted = await order(db, clock, rollout_id, "halt", reason or "halted by an operator", actor=actor)
    await barrier()
    return halted


async def abort(
    db: Database, clock: Clock, rollout_id: str, reason: str = "", *, barrier: Barrier, actor: str = "operator"
) -> Rollout:
    """End it for good; raises as ``order``."""
    aborted = await order(db, clock, rollout_id, "abort", reason or "aborted by an operator", actor=actor)
    await barrier()
    return aborted


async def order(
    db: Database, clock: Clock, rollout_id: str, verb: str, reason: str = "", *, actor: str = "operator"
) -> Rollout:
    """Carry out one verb.

    Raises:
        NotFoundError: There is no such rollout.
        ConflictError: Its state does not allow it.
        UsageError: A reason is missing or too long.
    """
    now, allowed = clock.now(), _VERBS[verb]
    if len(reason) > MAX_REASON_CHARS:
        raise UsageError(f"--reason: at most {MAX_REASON_CHARS} characters, found {len(reason)}")
    async with db.begin() as conn:
        rollout = await _get(conn, rollout_id)
        if rollout.state not in allowed[0]:
            expected = " or ".join(sorted(allowed[0]))
            raise ConflictError(f"rollout {rollout_id}: is {rollout.state}; {verb} needs one that is {expected}")
        if verb == "resume" and rollout.state is RolloutState.HALTED and not reason:
            raise UsageError(f"rollout {rollout_id}: was halted ({rollout.reason}); resume it with --reason")
        values: dict[str, Any] = {"state": allowed[1], "reason": reason}
        if verb == "start":
            values["started_at"] = now
        if verb in {"halt", "abort"}:
            values["halts"] = rollout.halts + 1  # the signer tells a database that knows of the halt by it
        if verb == "resume":
            values["acknowledged"] = await _acknowledge(conn, rollout)
        text = f"{_PAST[verb]}: {reason}" if reason else _PAST[verb]
        figures = {"halts": values.get("halts", rollout.halts), "acknowledged": values.get("acknowledged", {})}
        await _log_order(conn, verb, now, actor, text, rollout_id, allowed[1], reason=reason, **figures)
        await rollouts.save(conn, rollout_id, **values)
        if verb == "abort":
            await _cancel_unreached(conn, rollout_id, now)
        if verb != "pause":
            await dirty.mark(conn, Kind.ANNOUNCE, [rollout_id], now)
        await events.add(conn, f"rollout_{_PAST[verb]}", text, now, actor=actor, rollout=rollout_id)
        await _mark_status(conn, rollout_id, now)
        return await _get(conn, rollout_id)


async def _log_order(
    conn: AsyncConnection,
    verb: str,
    now: datetime,
    actor: str,
    text: str,
    rollout_id: str,
    state: RolloutState,
    **figures: Any,  # noqa: ANN401 - JSON
) -> None:
    """Before anything moves because of it."""
    told = {"verb": verb, "state": state.value, **figures}
    await audit.append(conn, AuditKind.ORDER, at=now, actor=actor, cause=text, rollout=rollout_id, figures=told)


async def _get(conn: AsyncConnection, rollout_id: str) -> Rollout:
    rollout = await rollouts.get(conn, rollout_id)
    if rollout is None:
        raise NotFoundError(f"rollout {rollout_id}: there is none; see 'flagship rollout list'")
    return rollout


async def _release_info(conn: AsyncConnection, release_id: str) -> ReleaseInfo:
    release = await releases.get(conn, release_id)
    if release is None:
        raise NotFoundError(f"release {release_id}: there is none; see 'flagship release list'")
    if release.state != PUBLISHED:
        raise ConflictError(
            f"release {release_id}: is {release.state}; publish it with 'flagship release publish' first"
        )
    return ReleaseInfo.model_validate(release.info)


async def _load_groups(conn: AsyncConnection, spec: RolloutSpec) -> Groups:
    names = {spec.members.group, *(stage.group for stage in spec.stages)} - {None}
    found: dict[str, frozenset[str]] = {}
    for name in sorted(str(name) for name in names):
        if not await groups.exists(conn, name):
            raise NotFoundError(f"group {name}: there is none; see 'flagship group list'")
        found[name] = frozenset(await groups.members(conn, name))
    return found


async def _all_devices(conn: AsyncConnection) -> list[Device]:
    found: list[Device] = []
    while page := await devices.page(conn, after=found[-1].id if found else "", limit=_PAGE):
        found += page
    return found


async def _insert_members(conn: AsyncConnection, rollout_id: str, places: list[Place]) -> None:
    rows = [Assignment(rollout=rollout_id, device=p.device, stage=p.stage, place=p.order) for p in places]
    await assignments.insert_all(conn, rows)
    stages = await rollouts.load_stages(conn, rollout_id)
    sizes = [sum(place.stage == stage.position for place in places) for stage in stages]
    await rollouts.save_stages(conn, [replace(s, members=n) for s, n in zip(stages, sizes, strict=True)])


async def _acknowledge(conn: AsyncConnection, rollout: Rollout) -> dict[str, list[int]]:
    """What a person has seen who resumes: (failed, finished) of every stage so far."""
    if rollout.state is not RolloutState.HALTED:
        return {str(stage): list(seen) for stage, seen in rollout.acknowledged.items()}
    found: dict[str, list[int]] = {}
    for stage, counts in (await assignments.load_counts(conn, rollout.id)).items():
        seen = stage_counts("", 0, counts)
        found[str(stage)] = [seen.failed, seen.finished]
    return found


async def _cancel_unreached(conn: AsyncConnection, rollout_id: str, now: datetime) -> None:
    """Devices that no offer has reached are done: they will never say so. The others do.

    One whose offer is on its way just now is among them; it hears of the abort, and its own outcome replaces this.
    """
    reached = await offered.reached(conn, rollout_id)
    after = ""
    while page := await assignments.of_rollout(conn, rollout_id, after=after, limit=_PAGE):
        after = page[-1].device
        done = [row for row in page if row.state == PENDING or (row.state == OFFERED and row.device not in reached)]
        await assignments.save_all(conn, [(row, _cancelled(row, now)) for row in done])
        await dirty.mark(conn, Kind.STATUS_DEVICE, [row.device for row in done], now)


def _cancelled(row: Assignment, now: datetime) -> Assignment:
    done = replace(row, state=State.CANCELLED.value, ready=False, asking=False, updated_at=now)
    return done if row.state == PENDING else replace(done, grant="closed", grant_nonce=None, close_reason="aborted")


async def _mark_status(conn: AsyncConnection, rollout_id: str, now: datetime) -> None:
    await dirty.mark(conn, Kind.STATUS_ROLLOUT, [rollout_id], now)
    await dirty.mark(conn, Kind.STATUS_FLEET, [""], now)
