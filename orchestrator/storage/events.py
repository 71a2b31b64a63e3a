"""What happened, in order: operators' acts and the engine's decisions with their figures."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from orchestrator.model.audit import AuditKind
from orchestrator.storage import audit
from orchestrator.storage.tables import events


async def add(
    conn: AsyncConnection,
    kind: str,
    text: str,
    now: datetime,
    *,
    actor: str = "engine",
    rollout: str = "",
    device: str = "",
    data: Mapping[str, Any] | None = None,
) -> None:
    """Append one event.

    Args:
        kind: A word for programs, such as ``rollout_halted``.
        text: A sentence for people.
        data: Figures.
    """
    await conn.execute(
        insert(events).values(
            at=now, kind=kind, actor=actor, rollout=rollout, device=device, text=text, data=dict(data or {})
        )
    )


async def add_order(
    conn: AsyncConnection,
    kind: str,
    text: str,
    now: datetime,
    *,
    actor: str,
    device: str = "",
    data: Mapping[str, Any] | None = None,
) -> None:
    """Append what a person ordered, to the audit log too: write it before what follows from it."""
    figures = {"verb": kind, **(data or {})}
    await audit.append(conn, AuditKind.ORDER, at=now, actor=actor, cause=text, device=device, figures=figures)
    await add(conn, kind, text, now, actor=actor, device=device, data=data)


async def page(
    conn: AsyncConnection, *, after: int = 0, limit: int = 100, rollout: str = "", device: str = ""
) -> list[dict[str, Any]]:
    """Events with an id above ``after``, the oldest first."""
    query = select(events).where(events.c.id > after)
    if rollout:
        query = query.where(events.c.rollout == rollout)
    if device:
        query = query.where(events.c.device == device)
    rows = await conn.execute(query.order_by(events.c.id).limit(limit))
    return [dict(row) for row in rows.mappings()]
