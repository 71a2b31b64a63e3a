"""Which brokers there are, and what each of them still lacks of what the others have.

A broker that joins gets what the others hold: marks under the same ``since``, releases that are in use. One that left
is forgotten with all that was known of it.
"""

from collections.abc import Collection, Sequence
from datetime import datetime
from functools import partial

from sqlalchemy import Column, Table, delete, exists, func, insert, literal, select
from sqlalchemy.dialects.sqlite import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection

from orchestrator.storage import dirty, expelling, published
from orchestrator.storage.broker_tables import behind, brokers, expelled, removals
from orchestrator.storage.chunk_tables import broker_releases, chunk_audits
from orchestrator.storage.database import Database
from orchestrator.storage.tables import dirty as marks
from orchestrator.storage.tables import published as topics
from orchestrator.storage.tables import releases, rollouts
from protocol.topics import Kind, Topics

PAGE = 500
LIVE = (Kind.ANNOUNCE, Kind.OFFER, Kind.CERT, Kind.STATUS_FLEET, Kind.STATUS_ROLLOUT, Kind.STATUS_DEVICE)
"""What a broker that joins is told from rows; trust topics come with the first connection, chunks with releases."""


async def names(conn: AsyncConnection) -> list[str]:
    """Those that ``serve`` was started with last."""
    return list(await conn.scalars(select(brokers.c.name).order_by(brokers.c.name)))


async def use(db: Database, wanted: Sequence[str], of_topics: Topics, now: datetime) -> tuple[list[str], list[str]]:
    """From now on these are the brokers; returns those that joined and those that left.

    Before anything else is done with the database. What is cut off is done again by the next call.
    """
    async with db.read() as conn:
        before = await names(conn)
    joined, left = sorted(set(wanted) - set(before)), sorted(set(before) - set(wanted))
    for name in joined:
        for other in before:
            await _mark_what_it_holds(db, name, other, of_topics, now)
    async with db.begin() as conn:
        for name in joined:
            same = select(marks.c.kind, marks.c.key, literal(name), func.max(marks.c.since))
            copied = same.where(marks.c.broker.in_(before)).group_by(marks.c.kind, marks.c.key)
            columns = ["kind", "key", "broker", "since"]
            await conn.execute(upsert(marks).from_select(columns, copied).on_conflict_do_nothing())
            await conn.execute(insert(brokers), {"name": name})
            await fall_behind(conn, [name], await _in_use(conn), now)
        for name in left:
            await _forget(conn, name)
        await expelling.complete(conn, now)  # nobody waits for who left
    return joined, left


async def _in_use(conn: AsyncConnection) -> list[str]:
    """Published releases with a rollout that has not ended, or with none yet."""
    of = rollouts.c.release == releases.c.id
    query = select(releases.c.id).where(
        releases.c.state == "published", exists().where(of, rollouts.c.ended_at.is_(None)) | ~exists().where(of)
    )
    return list(await conn.scalars(query))


async def _mark_what_it_holds(db: Database, name: str, other: str, of_topics: Topics, now: datetime) -> None:
    after: int | None = 0
    while after is not None:
        after = await db.write(partial(_mark_page, name=name, other=other, of_topics=of_topics, now=now, after=after))


async def _mark_page(
    conn: AsyncConnection, *, name: str, other: str, of_topics: Topics, now: datetime, after: int
) -> int | None:
    items, last = await published.page(conn, other, after=after, limit=PAGE)
    live = [item for item in items if item.kind in LIVE]
    keyed = [(item.kind, "/".join(of_topics.parse(item.topic).values.values()), item.since or now) for item in live]
    await dirty.repeat(conn, name, keyed)
    return last if items else None


async def _forget(conn: AsyncConnection, name: str) -> None:
    await conn.execute(delete(brokers).where(brokers.c.name == name))
    for table in (marks, topics, behind, removals, expelled, broker_releases, chunk_audits):
        await conn.execute(delete(table).where(_broker(table) == name))
    await published.forget_progress(conn, name)


def _broker(table: Table) -> Column[str]:
    return table.c.broker


async def fall_behind(
    conn: AsyncConnection, some: Collection[str], of_releases: Collection[str], now: datetime
) -> None:
    """These brokers are to have these releases."""
    rows = [{"broker": name, "release": release, "since": now} for name in some for release in of_releases]
    if rows:
        await conn.execute(upsert(behind).on_conflict_do_nothing(), rows)


async def catch_up(conn: AsyncConnection, broker: str, release: str) -> None:
    """This broker has all of this release."""
    await conn.execute(delete(behind).where(behind.c.broker == broker, behind.c.release == release))


async def lacking(conn: AsyncConnection, broker: str) -> list[str]:
    """Releases that a broker is to have and has not, the oldest wish first."""
    query = select(behind.c.release).where(behind.c.broker == broker).order_by(behind.c.since, behind.c.release)
    return list(await conn.scalars(query))


async def all_lacking(conn: AsyncConnection) -> dict[str, list[str]]:
    """Releases that are not complete, by broker."""
    found: dict[str, list[str]] = {}
    for row in await conn.execute(select(behind).order_by(behind.c.since, behind.c.release)):
        found.setdefault(row.broker, []).append(row.release)
    return found
