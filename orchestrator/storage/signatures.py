"""Under which director key the live directives stand: what must be signed anew before that key may leave."""

from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from orchestrator.storage.published import Publication, publication
from orchestrator.storage.tables import published
from protocol.topics import Kind


async def signed_by(conn: AsyncConnection, keyid: str, now: datetime) -> dict[Kind, int]:
    """How many topics hold a directive that has not expired and names a key, by kind.

    One pass over the live directives, for a person who asks; a key id is 64 hex digits that stand in the clear.
    """
    rows = await conn.execute(
        select(published.c.kind, func.count())
        .where(
            published.c.kind.in_([Kind.ANNOUNCE.name, Kind.OFFER.name]),
            published.c.expires > now,
            func.instr(published.c.payload, keyid.encode()) > 0,
        )
        .group_by(published.c.kind)
    )
    return {Kind[kind]: count for kind, count in rows}


async def signed_by_others(
    conn: AsyncConnection, keyid: str, now: datetime, *, after: int, up_to: int, limit: int = 500
) -> tuple[list[Publication], int]:
    """A page of live directives that do not name a key, in the order of publishing; and the last serial looked at."""
    rows = list(
        await conn.execute(
            select(published)
            .where(
                published.c.kind.in_([Kind.ANNOUNCE.name, Kind.OFFER.name]),
                published.c.serial > after,
                published.c.serial <= up_to,
                published.c.expires > now,
                func.instr(published.c.payload, keyid.encode()) == 0,
            )
            .order_by(published.c.serial)
            .limit(limit)
        )
    )
    return [publication(row) for row in rows], (rows[-1].serial if len(rows) == limit else up_to)
