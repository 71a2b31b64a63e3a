"""Which topics must be rendered and published again.

A mark is written in the transaction that changed what the topic shows. There is no outbox of messages: delivery
renders from the rows as they are at send time, so ten changes of one topic cost one publish.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from functools import cache
from typing import Any

from sqlalchemy import CompoundSelect, bindparam, delete, select, tuple_, union_all
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from orchestrator.storage.tables import Instant, dirty
from protocol.topics import Kind

Mark = tuple[Kind, str, datetime]
"""(kind, values joined by "/" in template order, when it was marked last)."""
_BATCH = 500
_INSTANT = timedelta(microseconds=1)
_SINCE = select(dirty.c.kind, dirty.c.key, dirty.c.since).where(
    tuple_(dirty.c.kind, dirty.c.key).in_(bindparam("the_marks", expanding=True))
)
_NEW = insert(dirty)
_MARK = _NEW.on_conflict_do_update(index_elements=[dirty.c.kind, dirty.c.key], set_={"since": _NEW.excluded.since})
_DONE = delete(dirty).where(
    dirty.c.kind == bindparam("the_kind"),
    dirty.c.key == bindparam("the_key"),
    dirty.c.since == bindparam("the_since", type_=Instant()),
)


def offer_key(device: str, rollout: str) -> str:
    """The key of ``Kind.OFFER``."""
    return f"{device}/{rollout}"


async def mark(conn: AsyncConnection, kind: Kind, keys: Iterable[str], now: datetime) -> None:
    """Mark topics of one kind."""
    await mark_all(conn, {kind: keys}, now)


async def mark_all(conn: AsyncConnection, keys: Mapping[Kind, Iterable[str]], now: datetime) -> None:
    """Mark topics; one that is marked already gets a later ``since``, so that ``done`` cannot lose the change."""
    wanted = [(kind.name, key) for kind, of in keys.items() for key in sorted(set(of))]
    for start in range(0, len(wanted), _BATCH):
        batch = wanted[start : start + _BATCH]
        rows = await conn.execute(_SINCE, {"the_marks": batch})
        since = {(row.kind, row.key): row.since for row in rows}
        await conn.execute(
            _MARK,
            [
                {"kind": kind, "key": key, "since": max(now, former + _INSTANT) if former else now}
                for kind, key in batch
                for former in (since.get((kind, key)),)
            ],
        )


async def take(conn: AsyncConnection, kinds: Sequence[Kind], limit: int) -> list[Mark]:
    """Up to ``limit`` marks: kinds in the order given, within a kind the oldest first. They stay marked."""
    rows = await conn.execute(_oldest_of(tuple(kinds)), {"the_limit": limit})
    return sorted(
        ((Kind[row.kind], row.key, row.since) for row in rows), key=lambda mark: (kinds.index(mark[0]), mark[2])
    )[:limit]


@cache
def _oldest_of(kinds: tuple[Kind, ...]) -> CompoundSelect[Any]:
    """One statement, and of each kind no more rows than can be taken."""
    parts = (
        select(dirty.c.kind, dirty.c.key, dirty.c.since)
        .where(dirty.c.kind == kind.name)
        .order_by(dirty.c.since)
        .limit(bindparam("the_limit"))
        .subquery()
        for kind in kinds
    )
    return union_all(*(select(part) for part in parts))


async def done(conn: AsyncConnection, items: Iterable[Mark]) -> None:
    """Remove marks that were published; one that was marked again meanwhile stays."""
    rows = [{"the_kind": kind.name, "the_key": key, "the_since": since} for kind, key, since in items]
    if rows:
        await conn.execute(_DONE, rows)
