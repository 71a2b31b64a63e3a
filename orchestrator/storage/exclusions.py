"""Taking a device out of every rollout that it has a part in."""

from dataclasses import replace
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from orchestrator.model.assignment import exclude
from orchestrator.storage import assignments, dirty
from orchestrator.storage.tables import devices
from protocol.states import State
from protocol.topics import Kind

DUPLICATE = "two live devices speak under this id"


async def exclude_gone(conn: AsyncConnection, since: datetime, now: datetime) -> None:
    """Take out every device that was revoked, retired or found twice since then: it may have been placed after that."""
    gone = select(devices.c.id, devices.c.state, devices.c.closed_reason)
    for row in (await conn.execute(gone.where(devices.c.closed_at >= since))).all():
        await exclude_device(conn, row.id, f"device {row.state}: {row.closed_reason}", now)
    twice = select(devices.c.id).where(devices.c.state == "enrolled", devices.c.duplicate_since >= since)
    for device in await conn.scalars(twice):
        await exclude_device(conn, device, DUPLICATE, now)


async def exclude_device(conn: AsyncConnection, device: str, why: str, now: datetime) -> list[str]:
    """Close what is open for a device, free its permits, and mark the topics that show it; returns the rollouts."""
    known = await assignments.of_device(conn, device)
    open_rows = [row for row in known if not row.is_terminal]
    await assignments.save_all(conn, [(row, exclude(row, why, now)) for row in open_rows], now=now, cause=why)
    kept = [row for row in known if row.state == State.INCONSISTENT and row.scopes]
    freed = [(row, replace(row, scopes=[])) for row in kept]
    await assignments.save_all(conn, freed, now=now, cause=why)
    offered = [dirty.offer_key(device, row.rollout) for row in open_rows if row.offered_at is not None]
    rollouts = sorted(row.rollout for row in open_rows)
    await dirty.mark(conn, Kind.OFFER, offered, now)
    await dirty.mark(conn, Kind.STATUS_ROLLOUT, rollouts, now)
    return rollouts
