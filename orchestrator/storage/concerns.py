"""Devices that a person should look at: silent, stale, or two under one id.

Every query stands on a partial index of ``tables.devices`` with the very same condition, so that finding and counting
cost what there is to find, and a sweep touches only rows that cross the limit.
"""

from datetime import datetime
from enum import StrEnum

from sqlalchemy import func, select, text, update
from sqlalchemy.ext.asyncio import AsyncConnection

from orchestrator.model.device import FIELDS, Device
from orchestrator.storage.tables import devices

_COLUMNS = [devices.c[name] for name in FIELDS]


class Concern(StrEnum):
    """What is the matter."""

    SILENT = "silent"
    STALE = "stale"
    DUPLICATE = "duplicate"


_HEARD = text("state = 'enrolled' AND silent = 0")
_WHERE = {
    Concern.SILENT: text("state = 'enrolled' AND silent = 1"),
    Concern.STALE: text("state = 'enrolled' AND stale_since IS NOT NULL"),
    Concern.DUPLICATE: text("state = 'enrolled' AND duplicate_since IS NOT NULL"),
}


async def count(conn: AsyncConnection) -> dict[Concern, int]:
    """Devices by concern."""
    return {
        concern: await conn.scalar(select(func.count()).select_from(devices).where(where)) or 0
        for concern, where in _WHERE.items()
    }


async def page(conn: AsyncConnection, concern: Concern, *, after: str = "", limit: int = 500) -> list[Device]:
    """Devices with one concern by id, beginning behind ``after``."""
    rows = await conn.execute(
        select(*_COLUMNS).where(_WHERE[concern], devices.c.id > after).order_by(devices.c.id).limit(limit)
    )
    return [Device.from_row(row) for row in rows.mappings()]


async def fall_silent(conn: AsyncConnection, heard_before: datetime, limit: int) -> list[str]:
    """Flag devices of which nothing was heard since an instant, the longest silent first; returns their ids."""
    crossed = (
        select(devices.c.id).where(_HEARD, devices.c.heard_at < heard_before).order_by(devices.c.heard_at).limit(limit)
    )
    ids = sorted(await conn.scalars(crossed))
    if ids:
        await conn.execute(update(devices).where(devices.c.id.in_(ids)).values(silent=True))
    return ids
