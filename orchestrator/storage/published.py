"""What each broker holds: per topic the order, the digest and when it runs out; and what shall be there.

A row is written after the broker has it. ``serial`` is the order of publishing on that broker: the marker in
``status/sync`` carries one, so a broker that comes back with older retained messages is told only what is later.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import String, bindparam, delete, func, literal, select
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from orchestrator.storage.tables import published, settings
from protocol.topics import Kind

_INGEST_KEY = "ingest_generation:"
_SERIAL_KEY = "serial:"
_ORDER_KEY = "signed_order"
_BATCH = 400
_NONE = literal("", String())
# Statements of every batch are made once: to make one costs as much as to run it.
_NEW = insert(published)
_RECORD = _NEW.on_conflict_do_update(
    index_elements=[published.c.broker, published.c.topic],
    set_={
        "serial": _NEW.excluded.serial,
        "epoch": _NEW.excluded.epoch,
        "seq": _NEW.excluded.seq,
        "digest": _NEW.excluded.digest,
        "payload": _NEW.excluded.payload,
        "since": _NEW.excluded.since,
        # Stored as sortable text: the later of the two; an empty text sorts first.
        "expires": func.nullif(
            func.max(func.coalesce(published.c.expires, _NONE), func.coalesce(_NEW.excluded.expires, _NONE)), _NONE
        ),
    },
)
_NEW_SETTING = insert(settings)
_PUT = _NEW_SETTING.on_conflict_do_update(index_elements=[settings.c.key], set_={"value": _NEW_SETTING.excluded.value})
_SETTINGS = select(settings.c.key, settings.c.value).where(settings.c.key.in_(bindparam("the_keys", expanding=True)))
_HELD = select(published.c.topic).where(
    published.c.broker == bindparam("the_broker"), published.c.topic.in_(bindparam("the_topics", expanding=True))
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Publication:
    """One retained topic as a broker has it.

    Attributes:
        digest: sha256 hex of the message.
        payload: The message itself, for directives.
        expires: When all that was ever signed for the topic has expired; None where nothing expires.
        since: Of the mark that it was signed for; None for what is not signed.
    """

    kind: Kind
    topic: str
    digest: str
    epoch: int = 0
    seq: int = 0
    payload: bytes | None = None
    expires: datetime | None = None
    since: datetime | None = None


async def record(conn: AsyncConnection, broker: str, items: Sequence[Publication]) -> int:
    """Write what a broker has now; returns its serial, the highest."""
    serial = await last_serial(conn, broker)
    rows = []
    for item in items:
        serial += 1
        rows.append(
            {
                "broker": broker,
                "topic": item.topic,
                "kind": item.kind.name,
                "serial": serial,
                "epoch": item.epoch,
                "seq": item.seq,
                "digest": item.digest,
                "payload": item.payload,
                "expires": item.expires,
                "since": item.since,
            }
        )
    if rows:
        await conn.execute(_RECORD, rows)
        await _put(conn, _SERIAL_KEY + broker, str(serial))
        await note_order(conn, max((item.epoch, item.seq) for item in items))
    return serial


async def take_serials(conn: AsyncConnection, broker: str, count: int) -> int:
    """Use up the next serials of a broker; returns the first of them."""
    last = await last_serial(conn, broker)
    await _put(conn, _SERIAL_KEY + broker, str(last + count))
    return last + 1


async def forget_progress(conn: AsyncConnection, broker: str) -> None:
    """Remove what is known of how far a broker is that is not used any more."""
    keys = [_SERIAL_KEY + broker, _INGEST_KEY + broker]
    await conn.execute(delete(settings).where(settings.c.key.in_(keys)))


async def highest_serial(conn: AsyncConnection) -> int:
    """The highest serial of what stands on any broker."""
    return int(await conn.scalar(select(func.max(published.c.serial))) or 0)


async def signed(conn: AsyncConnection, brokers: Collection[str], topics: Collection[str]) -> dict[str, Publication]:
    """The newest by (epoch, seq) of what these brokers have of signed topics."""
    found: dict[str, Publication] = {}
    wanted = list(topics)
    for start in range(0, len(wanted), _BATCH):
        batch = wanted[start : start + _BATCH]
        query = select(published).where(published.c.broker.in_(brokers), published.c.topic.in_(batch))
        for item in map(publication, await conn.execute(query)):
            known = found.get(item.topic)
            if known is None or (item.epoch, item.seq) > (known.epoch, known.seq):
                found[item.topic] = item
    return found


async def note_order(conn: AsyncConnection, order: tuple[int, int]) -> None:
    """Remember the highest (epoch, seq) that was signed for this database; a lower one changes nothing."""
    if order > (0, 0) and order > await highest_order(conn):
        await _put(conn, _ORDER_KEY, f"{order[0]}/{order[1]}")


async def last_serial(conn: AsyncConnection, broker: str) -> int:
    """The serial of what was published last on a broker; it never falls, though rows are removed."""
    return (await progress(conn, broker))[0]


async def highest_order(conn: AsyncConnection) -> tuple[int, int]:
    """The highest (epoch, seq) that is known here; it never falls, though topics are cleared."""
    text = await conn.scalar(select(settings.c.value).where(settings.c.key == _ORDER_KEY)) or "0/0"
    epoch, _, seq = text.partition("/")
    return int(epoch), int(seq)


async def get(conn: AsyncConnection, broker: str, topic: str) -> Publication | None:
    """One topic as the broker has it."""
    return (await get_many(conn, broker, [topic])).get(topic)


async def get_many(conn: AsyncConnection, broker: str, topics: Collection[str]) -> dict[str, Publication]:
    """Topics as the broker has them; those that it has not are left out."""
    wanted, found = list(topics), {}
    for start in range(0, len(wanted), _BATCH):
        rows = await conn.execute(
            select(published).where(published.c.broker == broker, published.c.topic.in_(wanted[start : start + _BATCH]))
        )
        found.update({row.topic: publication(row) for row in rows})
    return found


async def held(conn: AsyncConnection, broker: str, topics: Collection[str]) -> set[str]:
    """Those of the topics that the broker has."""
    wanted, found = list(topics), set()
    for start in range(0, len(wanted), _BATCH):
        batch = wanted[start : start + _BATCH]
        found |= set(await conn.scalars(_HELD, {"the_broker": broker, "the_topics": batch}))
    return found


async def page(
    conn: AsyncConnection, broker: str, *, after: int = 0, up_to: int | None = None, limit: int = 500
) -> tuple[list[Publication], int]:
    """Topics in the order of publishing, and the serial of the last one (``after`` when there is none)."""
    query = select(published).where(published.c.broker == broker, published.c.serial > after)
    if up_to is not None:
        query = query.where(published.c.serial <= up_to)
    rows = list(await conn.execute(query.order_by(published.c.serial).limit(limit)))
    return [publication(row) for row in rows], (rows[-1].serial if rows else after)


async def forget(conn: AsyncConnection, broker: str, topics: Iterable[str]) -> None:
    """Remove rows of topics that the broker does not hold any more."""
    wanted = list(topics)
    for start in range(0, len(wanted), _BATCH):
        await conn.execute(
            delete(published).where(published.c.broker == broker, published.c.topic.in_(wanted[start : start + _BATCH]))
        )


async def run_out(conn: AsyncConnection, broker: str, before: datetime, limit: int) -> list[Publication]:
    """Topics for which all that was signed expired before an instant, the oldest first."""
    rows = await conn.execute(
        select(published)
        .where(published.c.broker == broker, published.c.expires < before)
        .order_by(published.c.expires)
        .limit(limit)
    )
    return [publication(row) for row in rows]


async def progress(conn: AsyncConnection, broker: str) -> tuple[int, str]:
    """(``last_serial``, ``ingest_generation``)."""
    names = (_SERIAL_KEY + broker, _INGEST_KEY + broker)
    rows = await conn.execute(_SETTINGS, {"the_keys": names})
    found = {row.key: row.value for row in rows}
    return int(found.get(names[0], 0)), found.get(names[1], "")


async def ingest_generation(conn: AsyncConnection, broker: str) -> str:
    """Which generation of ingest listens at a broker; empty before the first."""
    return (await progress(conn, broker))[1]


async def set_ingest_generation(conn: AsyncConnection, broker: str, generation: str) -> None:
    """Begin a new generation: the broker's devices then say their level again. Mark ``Kind.STATUS_SYNC`` with it."""
    await _put(conn, _INGEST_KEY + broker, generation)


async def _put(conn: AsyncConnection, key: str, value: str) -> None:
    await conn.execute(_PUT, {"key": key, "value": value})


def publication(row: object) -> Publication:
    """A row of the table."""
    values = row._mapping  # type: ignore[attr-defined]  # noqa: SLF001 - SQLAlchemy's public name for it
    return Publication(
        kind=Kind[values["kind"]],
        topic=values["topic"],
        digest=values["digest"],
        epoch=values["epoch"],
        seq=values["seq"],
        payload=values["payload"],
        expires=values["expires"],
        since=values["since"],
    )
