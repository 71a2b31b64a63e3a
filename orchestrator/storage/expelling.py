"""Closed devices on their way out: each broker ends their sessions and says so; the last one completes it."""

from collections.abc import Collection
from datetime import datetime

from sqlalchemy import and_, delete, exists, func, select, text, update
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from orchestrator.model.device import DeviceState
from orchestrator.storage.broker_tables import brokers
from orchestrator.storage.broker_tables import expelled as confirmed
from orchestrator.storage.tables import devices

_OPEN = text("state <> 'enrolled' AND session_ended_at IS NULL")  # as the index devices_to_expel says it


async def to_expel(conn: AsyncConnection, broker: str, limit: int) -> dict[str, str]:
    """State by id of closed devices whose session on a broker may still be open, the longest closed first."""
    there = exists().where(confirmed.c.device == devices.c.id, confirmed.c.broker == broker)
    rows = await conn.execute(
        select(devices.c.id, devices.c.state).where(_OPEN, ~there).order_by(devices.c.closed_at).limit(limit)
    )
    return {row.id: row.state for row in rows}


async def expelled(conn: AsyncConnection, broker: str, ids: Collection[str], now: datetime) -> None:
    """Note that a broker keeps closed devices out; they are out when every broker does."""
    rows = [{"device": device, "broker": broker} for device in ids]
    if rows:
        await conn.execute(insert(confirmed).on_conflict_do_nothing(), rows)
        await complete(conn, now)


async def complete(conn: AsyncConnection, now: datetime) -> None:
    """Note as out whom every broker that there is now keeps out."""
    there = exists().where(confirmed.c.device == devices.c.id, confirmed.c.broker == brokers.c.name)
    missing = select(func.count()).select_from(brokers).where(~there).correlate(devices).scalar_subquery()
    await conn.execute(update(devices).where(and_(_OPEN, missing == 0)).values(session_ended_at=now))
    done = select(devices.c.id).where(_OPEN)
    await conn.execute(delete(confirmed).where(confirmed.c.device.not_in(done)))


async def is_out(conn: AsyncConnection, broker: str, device: str) -> bool:
    """Whether a broker has nothing more to do about a device."""
    row = (
        await conn.execute(select(devices.c.state, devices.c.session_ended_at).where(devices.c.id == device))
    ).first()
    if row is None or row.state == DeviceState.ENROLLED or row.session_ended_at is not None:
        return True
    there = select(func.count()).where(confirmed.c.device == device, confirmed.c.broker == broker)
    return bool(await conn.scalar(there))
