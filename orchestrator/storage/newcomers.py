"""Devices that came, or changed in what plans ask for: dynamic rollouts look at each once."""

from collections.abc import Collection

from sqlalchemy import delete, select
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from orchestrator.storage.engine_tables import newcomers

_BATCH = 500
_NEW = insert(newcomers).on_conflict_do_nothing()


async def note(conn: AsyncConnection, devices: Collection[str]) -> None:
    """These are to be looked at."""
    rows = [{"device": device} for device in devices]
    for start in range(0, len(rows), _BATCH):
        await conn.execute(_NEW, rows[start : start + _BATCH])


async def some(conn: AsyncConnection, limit: int) -> list[str]:
    """The next ones."""
    return list(await conn.scalars(select(newcomers.c.device).order_by(newcomers.c.device).limit(limit)))


async def seen(conn: AsyncConnection, devices: Collection[str]) -> None:
    """These were looked at."""
    await conn.execute(delete(newcomers).where(newcomers.c.device.in_(list(devices))))


async def forget_all(conn: AsyncConnection) -> None:
    """Nobody asks for them."""
    await conn.execute(delete(newcomers))
