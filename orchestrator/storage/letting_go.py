"""What was held for a device's part in one rollout may go on once that part is over."""

from collections.abc import Sequence

from sqlalchemy.ext.asyncio import AsyncConnection

from orchestrator.model.assignment import PENDING, let_go
from orchestrator.storage import assignments
from orchestrator.storage.assignments import Change
from orchestrator.storage.engine_rows import held_for


async def let_go_of(conn: AsyncConnection, changes: Sequence[Change]) -> list[Change]:
    """Let go of what waited for these devices; returns what changed for it."""
    over = [
        (after.device, after.rollout)
        for before, after in changes
        if after.state != before.state and (after.is_terminal or after.state == PENDING)
    ]
    freed = [(row, let_go(row)) for row in await held_for(conn, over)]
    await assignments.save_all(conn, freed)
    return freed
