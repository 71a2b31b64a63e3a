"""How far the audit of a broker's chunks is: what it may have lost, and the slow round over everything."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from orchestrator.storage.chunk_tables import chunk_audits
from orchestrator.storage.tables import published, release_chunks
from protocol.topics import Kind


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    """One broker's.

    Attributes:
        heal_after, heal_up_to: Serials of what may be lost; equal where nothing is.
        began_at: When the round began that is under way, or ended last.
        after: The last topic of the round; "" where none is under way.
    """

    heal_after: int = 0
    heal_up_to: int = 0
    began_at: datetime | None = None
    after: str = ""


async def load(conn: AsyncConnection, broker: str) -> Audit:
    """How far it is; of a broker that is new here, at the beginning."""
    row = (await conn.execute(select(chunk_audits).where(chunk_audits.c.broker == broker))).first()
    if row is None:
        return Audit()
    return Audit(heal_after=row.heal_after, heal_up_to=row.heal_up_to, began_at=row.began_at, after=row.after)


async def save(conn: AsyncConnection, broker: str, audit: Audit) -> None:
    """Write how far it is."""
    values = {
        "heal_after": audit.heal_after,
        "heal_up_to": audit.heal_up_to,
        "began_at": audit.began_at,
        "after": audit.after,
    }
    new = insert(chunk_audits).values(broker=broker, **values)
    await conn.execute(new.on_conflict_do_update(index_elements=[chunk_audits.c.broker], set_=values))


async def later_page(conn: AsyncConnection, broker: str, after: int, up_to: int, limit: int) -> tuple[list[str], int]:
    """(chunk topics in a page of what was published after a serial, the serial that the page ends with)."""
    rows = list(
        await conn.execute(
            select(published.c.topic, published.c.serial, published.c.kind)
            .where(published.c.broker == broker, published.c.serial > after, published.c.serial <= up_to)
            .order_by(published.c.serial)
            .limit(limit)
        )
    )
    return [row.topic for row in rows if row.kind == Kind.CHUNK.name], rows[-1].serial if rows else up_to


async def round_page(conn: AsyncConnection, broker: str, prefix: str, after: str, limit: int) -> list[str]:
    """Chunk topics that the broker holds, in order, from the one after ``after`` on."""
    rows = await conn.scalars(
        select(published.c.topic)
        .where(
            published.c.broker == broker,
            published.c.topic > max(after, prefix),
            published.c.topic < prefix + "g",  # cids are hex digits
        )
        .order_by(published.c.topic)
        .limit(limit)
    )
    return list(rows)


async def retained_bytes(conn: AsyncConnection, broker: str, prefix: str) -> int:
    """Bytes of all chunks that the broker holds. Looks at each of them: once a connection."""
    length = select(func.max(release_chunks.c.length)).where(
        release_chunks.c.cid == func.substr(published.c.topic, len(prefix) + 1)
    )
    total = select(func.sum(length.correlate(published).scalar_subquery())).where(
        published.c.broker == broker, published.c.topic > prefix, published.c.topic < prefix + "g"
    )
    return int(await conn.scalar(total) or 0)
