"""Halting everything at once: one latch for the fleet, written before anybody is answered, checked with every send."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncConnection

from orchestrator.errors import ConflictError, UsageError
from orchestrator.model.audit import AuditKind
from orchestrator.model.rollout import Rollout, RolloutState
from orchestrator.rollouts.operations import check_reason
from orchestrator.storage import audit, dirty, events, fleet_latch, rollouts
from orchestrator.storage.database import Database
from orchestrator.storage.fleet_latch import FleetLatch
from protocol.clock import Clock
from protocol.topics import Kind

Barrier = Callable[[], Awaitable[None]]
"""Ends when sends in flight have ended."""
_ANNOUNCED = frozenset({RolloutState.RUNNING, RolloutState.PAUSED, RolloutState.COMPLETED})


@dataclass(frozen=True, slots=True)
class HeldFleet:
    """The latch, and the rollouts that it holds."""

    latch: FleetLatch
    rollouts: tuple[str, ...]


async def halt_all(
    db: Database, clock: Clock, reason: str = "", *, actor: str = "operator", barrier: Barrier
) -> HeldFleet:
    """Hold every device of every rollout that is not installing; returns when sends in flight have ended.

    Raises:
        UsageError: The reason is too long.
    """
    now = clock.now()
    latch = FleetLatch(now, actor, _checked(reason) or "halted by an operator")
    async with db.begin() as conn:
        await fleet_latch.set_latch(conn, latch)
        held = await _announced(conn, now)
        await _log(conn, "halt-all", latch.reason, held, actor, now)
        for rollout in held:  # the signer tells a database that knows of the halt by the number
            await rollouts.save(conn, rollout.id, halts=rollout.halts + 1)
        await _tell(conn, held, now)
        text = f"the fleet was halted: {latch.reason}"
        await events.add(conn, "fleet_halted", text, now, actor=actor, data={"rollouts": len(held)})
    await barrier()
    return HeldFleet(latch, _under_way(held))


async def lift_halt(db: Database, clock: Clock, reason: str, *, actor: str = "operator") -> HeldFleet:
    """Let every rollout go on that is not halted by itself.

    Raises:
        ConflictError: The fleet is not halted.
        UsageError: There is no reason, or it is too long.
    """
    now = clock.now()
    if not _checked(reason):
        raise UsageError("the fleet was halted; say why it may go on with --reason")
    async with db.begin() as conn:
        latch = await fleet_latch.get(conn)
        if latch is None:
            raise ConflictError("the fleet is not halted; there is nothing to lift")
        await fleet_latch.lift(conn)
        held = await _announced(conn, now)
        await _log(conn, "lift-halt", reason, held, actor, now)
        for rollout in held:
            if rollout.ended_at is None:
                await rollouts.save(conn, rollout.id, reason=reason, timed_from=now)
        await _tell(conn, held, now)
        text = f"the halt of the fleet was lifted: {reason}"
        await events.add(conn, "fleet_halt_lifted", text, now, actor=actor, data={"rollouts": len(held)})
    return HeldFleet(latch, _under_way(held))


async def _announced(conn: AsyncConnection, now: datetime) -> list[Rollout]:
    """Rollouts whose announcement says install, and may still be read."""
    return [
        rollout
        for rollout in await rollouts.in_states(conn, _ANNOUNCED)
        if rollout.ended_at is None or (rollout.announcement_expires is not None and rollout.announcement_expires > now)
    ]


def _under_way(held: list[Rollout]) -> tuple[str, ...]:
    """Those that had something left to do; what has ended only says that it holds, to whoever still reads it."""
    return tuple(rollout.id for rollout in held if rollout.ended_at is None)


async def _log(conn: AsyncConnection, verb: str, reason: str, held: list[Rollout], actor: str, now: datetime) -> None:
    figures = {"verb": verb, "reason": reason, "rollouts": [rollout.id for rollout in held]}
    await audit.append(conn, AuditKind.ORDER, at=now, actor=actor, cause=f"{verb}: {reason}", figures=figures)


async def _tell(conn: AsyncConnection, held: list[Rollout], now: datetime) -> None:
    ids = [rollout.id for rollout in held]
    await dirty.mark(conn, Kind.ANNOUNCE, ids, now)
    await dirty.mark(conn, Kind.STATUS_ROLLOUT, ids, now)
    await dirty.mark(conn, Kind.STATUS_FLEET, [""], now)


def _checked(reason: str) -> str:
    check_reason(reason)
    return reason.strip()
