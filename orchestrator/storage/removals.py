"""What was cleared on each broker, kept for a while: a broker that comes back from an old file holds it again.

A topic that is due to be cleared keeps its row in ``published`` until its broker has confirmed it; then it stands here,
under a serial of its own, so that the marker in ``status/sync`` says whether the broker's file knows of it.
"""

from collections.abc import Collection
from datetime import datetime

from sqlalchemy import delete, exists, func, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from orchestrator.storage import published
from orchestrator.storage.broker_tables import removals
from orchestrator.storage.published import Publication
from orchestrator.storage.tables import published as topics
from protocol.topics import Kind

MAX_REMOVALS = 200_000
"""Per broker; the oldest are dropped beyond it. What they named has expired, so no device takes it."""


async def cleared(conn: AsyncConnection, broker: str, items: Collection[Publication], now: datetime) -> None:
    """A broker has confirmed that these are gone."""
    if not items:
        return
    await published.forget(conn, broker, [item.topic for item in items])
    first = await published.take_serials(conn, broker, len(items))
    rows = [
        {"broker": broker, "serial": first + place, "topic": item.topic, "kind": item.kind.name, "at": now}
        for place, item in enumerate(items)
    ]
    await conn.execute(insert(removals), rows)


async def later(conn: AsyncConnection, broker: str, *, after: int, limit: int) -> list[tuple[int, Kind, str]]:
    """(serial, kind, topic) of what was cleared after a serial and was not published again since."""
    again = exists().where(topics.c.broker == removals.c.broker, topics.c.topic == removals.c.topic)
    rows = await conn.execute(
        select(removals.c.serial, removals.c.kind, removals.c.topic)
        .where(removals.c.broker == broker, removals.c.serial > after, ~again)
        .order_by(removals.c.serial)
        .limit(limit)
    )
    return [(row.serial, Kind[row.kind], row.topic) for row in rows]


async def trim(conn: AsyncConnection, broker: str, before: datetime, most: int = MAX_REMOVALS) -> None:
    """Drop what is older than an instant, and the oldest beyond ``most``."""
    mine = removals.c.broker == broker
    kept = select(removals.c.serial).where(mine).order_by(removals.c.serial.desc()).limit(1).offset(most - 1)
    await conn.execute(delete(removals).where(mine, removals.c.at < before))
    await conn.execute(delete(removals).where(mine, removals.c.serial < func.coalesce(kept.scalar_subquery(), 0)))
