"""Which topics must be rendered and published again, on which broker.

A mark is written in the transaction that changed what the topic shows, for every broker at once: who marks knows none
of them. There is no outbox of messages: delivery renders from the rows as they are at send time, so ten changes of one
topic cost one publish.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from functools import cache
from typing import Any

from sqlalchemy import CompoundSelect, bindparam, delete, func, select, true, tuple_, union_all
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from orchestrator.storage.broker_tables import brokers
from orchestrator.storage.tables import Instant, dirty
from protocol.topics import Kind

Mark = tuple[Kind, str, datetime]
"""(kind, values joined by "/" in template order, when it was marked last)."""
_BATCH = 500
_INSTANT = timedelta(microseconds=1)
_WHAT = (dirty.c.kind, dirty.c.key, dirty.c.broker)
_SINCE = (
    select(dirty.c.kind, dirty.c.key, dirty.c.since)
    .where(tuple_(dirty.c.kind, dirty.c.key).in_(bindparam("the_marks", expanding=True)))
    .order_by(dirty.c.since)  # of several brokers' marks the latest counts
)
_ROW: tuple[Any, ...] = (
    bindparam("the_kind"),
    bindparam("the_key"),
    brokers.c.name,
    bindparam("the_since", type_=Instant()),
)
_COLUMNS = ["kind", "key", "broker", "since"]
_NEW = insert(dirty).from_select(_COLUMNS, select(*_ROW).where(true()))
_NEW_AT = insert(dirty).from_select(_COLUMNS, select(*_ROW).where(brokers.c.name == bindparam("the_broker")))
_MARK = _NEW.on_conflict_do_update(index_elements=_WHAT, set_={"since": _NEW.excluded.since})
_MARK_AT = _NEW_AT.on_conflict_do_update(index_elements=_WHAT, set_={"since": _NEW_AT.excluded.since})
_REPEAT = insert(dirty).on_conflict_do_nothing()
_DONE = delete(dirty).where(
    dirty.c.broker == bindparam("the_broker"),
    dirty.c.kind == bindparam("the_kind"),
    dirty.c.key == bindparam("the_key"),
    dirty.c.since == bindparam("the_since", type_=Instant()),
)


def offer_key(device: str, rollout: str) -> str:
    """The key of ``Kind.OFFER``."""
    return f"{device}/{rollout}"


async def mark(
    conn: AsyncConnection, kind: Kind, keys: Iterable[str], now: datetime, *, only: str | None = None
) -> None:
    """Mark topics of one kind."""
    await mark_all(conn, {kind: keys}, now, only=only)


async def mark_all(
    conn: AsyncConnection, keys: Mapping[Kind, Iterable[str]], now: datetime, *, only: str | None = None
) -> None:
    """Mark topics; one that is marked already gets a later ``since``, so that ``done`` cannot lose the change.

    Args:
        only: The one broker on which they must be published again; None is all of them.
    """
    wanted = [(kind.name, key) for kind, of in keys.items() for key in sorted(set(of))]
    there = {} if only is None else {"the_broker": only}
    for start in range(0, len(wanted), _BATCH):
        batch = wanted[start : start + _BATCH]
        rows = await conn.execute(_SINCE, {"the_marks": batch})
        since = {(row.kind, row.key): row.since for row in rows}
        await conn.execute(
            _MARK if only is None else _MARK_AT,
            [
                {"the_kind": kind, "the_key": key, "the_since": max(now, former + _INSTANT) if former else now} | there
                for kind, key in batch
                for former in (since.get((kind, key)),)
            ],
        )


async def repeat(conn: AsyncConnection, broker: str, items: Sequence[Mark]) -> None:
    """Mark for one broker what others have since: under the same ``since``, so that it need not be signed anew.

    Only while nothing is being sent there: a mark that stands already stays as it is.
    """
    if items:
        rows = [{"broker": broker, "kind": kind.name, "key": key, "since": since} for kind, key, since in items]
        await conn.execute(_REPEAT, rows)


async def count(conn: AsyncConnection) -> dict[str, int]:
    """Marks by broker."""
    rows = await conn.execute(select(dirty.c.broker, func.count().label("n")).group_by(dirty.c.broker))
    return {row.broker: row.n for row in rows}


async def take(conn: AsyncConnection, broker: str, kinds: Sequence[Kind], limit: int) -> list[Mark]:
    """Up to ``limit`` marks: kinds in the order given, within a kind the oldest first. They stay marked."""
    rows = await conn.execute(_oldest_of(tuple(kinds)), {"the_broker": broker, "the_limit": limit})
    return sorted(
        ((Kind[row.kind], row.key, row.since) for row in rows), key=lambda mark: (kinds.index(mark[0]), mark[2])
    )[:limit]


@cache
def _oldest_of(kinds: tuple[Kind, ...]) -> CompoundSelect[Any]:
    """One statement, and of each kind no more rows than can be taken."""
    parts = (
        select(dirty.c.kind, dirty.c.key, dirty.c.since)
        .where(dirty.c.broker == bindparam("the_broker"), dirty.c.kind == kind.name)
        .order_by(dirty.c.since)
        .limit(bindparam("the_limit"))
        .subquery()
        for kind in kinds
    )
    return union_all(*(select(part) for part in parts))


async def done(conn: AsyncConnection, broker: str, items: Iterable[Mark]) -> None:
    """Remove marks that were published; one that was marked again meanwhile stays."""
    rows = [
        {"the_broker": broker, "the_kind": kind.name, "the_key": key, "the_since": since} for kind, key, since in items
    ]
    if rows:
        await conn.execute(_DONE, rows)
