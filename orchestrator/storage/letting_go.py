"""What was held for a device's part in one rollout may go on once that part is over."""

from collections.abc import Sequence
from dataclasses import replace

from sqlalchemy.ext.asyncio import AsyncConnection

from orchestrator.model.assignment import PENDING, let_go
from orchestrator.storage import assignments, rollouts
from orchestrator.storage.assignments import Change
from orchestrator.storage.engine_rows import held_for, left_inconsistent
from protocol.states import State


async def let_go_of(conn: AsyncConnection, changes: Sequence[Change]) -> list[Change]:
    """Let go of what waited for these devices; returns what changed for it."""
    over = [
        (after.device, after.rollout)
        for before, after in changes
        if after.state != before.state and (after.is_terminal or after.state == PENDING)
    ]
    freed = [(row, let_go(row)) for row in await held_for(conn, over)]
    freed += await _mended(conn, changes)
    await assignments.save_all(conn, freed)
    return freed


async def _mended(conn: AsyncConnection, changes: Sequence[Change]) -> list[Change]:
    """A device that was left inconsistent is there again once another rollout has brought that component back."""
    by = {after.device: after.rollout for before, after in changes if before.state != after.state == State.SUCCEEDED}
    broken = await left_inconsistent(conn, by)
    if not broken:
        return []
    named = {row.rollout for row in broken} | {by[row.device] for row in broken}
    brings = await rollouts.components(conn, named)
    return [
        (row, replace(row, scopes=[]))
        for row in broken
        if row.rollout != by[row.device] and brings.get(row.rollout) == brings.get(by[row.device])
    ]
