"""What the engine judges, read from the rows: a fixed number of indexed questions per rollout, whatever its size."""

from sqlalchemy.ext.asyncio import AsyncConnection

from orchestrator.model.rollout import Rollout
from orchestrator.rollouts.carrying_out import has_free_permit
from orchestrator.rollouts.engine import time_limits
from orchestrator.rollouts.facts import Facts
from orchestrator.rollouts.steadiness import Steadiness
from orchestrator.storage import assignments, chunk_keeping, fleet_latch, rollouts
from orchestrator.storage.engine_rows import EngineRows


async def load_facts(conn: AsyncConnection, rollout_id: str, steadiness: Steadiness | None = None) -> Facts | None:
    """What the engine judges; None when there is no such rollout."""
    rollout = await rollouts.get(conn, rollout_id)
    return None if rollout is None else await _facts_of(conn, rollout, steadiness, await _is_latched(conn))


async def load_active(conn: AsyncConnection, steadiness: Steadiness | None = None) -> list[Facts]:
    """What the engine judges, of every rollout that has not ended; the heaviest first."""
    found = sorted(await rollouts.not_ended(conn), key=lambda rollout: -rollout.spec.rank)
    is_latched = await _is_latched(conn) if found else False
    return [await _facts_of(conn, rollout, steadiness, is_latched) for rollout in found]


async def _is_latched(conn: AsyncConnection) -> bool:
    return await fleet_latch.get(conn) is not None


async def _facts_of(conn: AsyncConnection, rollout: Rollout, steadiness: Steadiness | None, is_latched: bool) -> Facts:
    rows, spec = EngineRows(conn, rollout.id), rollout.spec
    waiting = await rows.waiting_scopes() if spec.max_unavailable else {}
    limits = time_limits(spec)
    return Facts(
        rollout=rollout,
        stages=await rollouts.load_stages(conn, rollout.id),
        counts=await assignments.load_counts(conn, rollout.id),
        next_offer_expiry=await rollouts.next_offer_expiry(conn, rollout.id),
        is_deliverable=not await chunk_keeping.not_deliverable(conn, [rollout.release]),
        oldest=await rows.oldest(limits) if limits else {},
        next_let_go=await rows.next_let_go(),
        next_grant_end=await rows.next_grant_end(),
        has_free_permit=has_free_permit(spec, waiting),
        is_latched=is_latched,
        steady_from=steadiness.since if steadiness else None,
        leapt_at=steadiness.leapt_at if steadiness else None,
    )
