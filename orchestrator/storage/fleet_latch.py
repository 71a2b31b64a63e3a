"""The latch on the whole fleet: while it is there, no rollout offers or grants anything, whatever its own state is."""

import json
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import delete, select
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from orchestrator.storage.tables import settings

_KEY = "fleet_latch"
_READ = select(settings.c.value).where(settings.c.key == _KEY)


@dataclass(frozen=True, slots=True)
class FleetLatch:
    """Who halted the fleet, when and why."""

    at: datetime
    by: str
    reason: str


async def get(conn: AsyncConnection) -> FleetLatch | None:
    """The latch, or None while the fleet is not halted."""
    stored = await conn.scalar(_READ)
    if stored is None:
        return None
    values = json.loads(stored)
    return FleetLatch(datetime.fromisoformat(values["at"]), values["by"], values["reason"])


async def set_latch(conn: AsyncConnection, latch: FleetLatch) -> None:
    """Halt the fleet; the newest latch replaces an older one."""
    value = json.dumps({"at": latch.at.isoformat(), "by": latch.by, "reason": latch.reason})
    row = insert(settings).values(key=_KEY, value=value)
    await conn.execute(row.on_conflict_do_update(index_elements=[settings.c.key], set_={"value": value}))


async def lift(conn: AsyncConnection) -> None:
    """Let the fleet go on."""
    await conn.execute(delete(settings).where(settings.c.key == _KEY))
