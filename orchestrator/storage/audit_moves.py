"""What changed in what assignments count as, into the audit log: the counters follow from it."""

from collections.abc import Sequence
from datetime import UTC, datetime

from sqlalchemy.ext.asyncio import AsyncConnection

from orchestrator.model.assignment import Assignment
from orchestrator.model.audit import AuditKind
from orchestrator.model.audit_counts import MOVES_PER_ENTRY, Move, moves_of
from orchestrator.storage.audit import append
from orchestrator.storage.lead import sync_of, writing_of

REPORTED = ("devices", "as devices reported")


async def log_moves(
    conn: AsyncConnection,
    changes: Sequence[tuple[Assignment | None, Assignment]],
    *,
    now: datetime | None = None,
    actor: str = "",
    cause: str = "",
) -> None:
    """Append those of ``changes`` that change a counter of devices; one that joins was None before.

    Who and why are those of the transaction's last entry where they are not said, and devices' reports where it has
    none.
    """
    latest = max((after.updated_at for _, after in changes if after.updated_at), default=None)
    await _log(conn, moves_of(changes), now or latest, actor, cause)


async def log_joined(
    conn: AsyncConnection, rollout: str, places: Sequence[tuple[str, int]], keys: Sequence[str]
) -> None:
    """Append new members, as (device, stage), that all count under the same keys."""
    moves = [[rollout, stage, device, [], list(keys)] for device, stage in places]
    await _log(conn, moves, actor="engine", cause="members were placed")


async def log_left(conn: AsyncConnection, rollout: str, places: Sequence[tuple[str, int]], keys: Sequence[str]) -> None:
    """Append members whose places are taken away before the rollout begins."""
    moves = [[rollout, stage, device, list(keys), []] for device, stage in places]
    await _log(conn, moves, actor="engine", cause="places that a start left unfinished were taken away")


async def _log(
    conn: AsyncConnection, moves: Sequence[Move], now: datetime | None = None, actor: str = "", cause: str = ""
) -> None:
    if not moves:
        return
    writing = writing_of(sync_of(conn))
    told = writing.told or REPORTED
    at = now or writing.at or datetime.now(UTC)
    for start in range(0, len(moves), MOVES_PER_ENTRY):
        some = moves[start : start + MOVES_PER_ENTRY]
        rollouts, devices = {move[0] for move in some}, {move[2] for move in some}
        await append(
            conn,
            AuditKind.MOVES,
            at=at,
            actor=actor or told[0],
            cause=cause or told[1],
            rollout=some[0][0] if len(rollouts) == 1 else "",
            device=some[0][2] if len(devices) == 1 else "",
            figures={"moves": some},
        )
