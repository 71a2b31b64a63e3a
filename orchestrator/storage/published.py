"""What each broker holds: per topic the order, the digest and when it runs out; and what shall be there.

A row is written after the broker has it. ``serial`` is the order of publishing on that broker: the marker in
``status/sync`` carries one, so a broker that comes back with older retained messages is told only what is later.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import String, bindparam, delete, exists, func, literal, select
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from orchestrator.storage.tables import assignments, devices, published, rollouts, settings
from protocol.topics import Kind

INGEST_KEY = "ingest_generation"
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
    """

    kind: Kind
    topic: str
    digest: str
    epoch: int = 0
    seq: int = 0
    payload: bytes | None = None
    expires: datetime | None = None


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
            }
        )
    if rows:
        await conn.execute(_RECORD, rows)
        await _put(conn, _SERIAL_KEY + broker, str(serial))
        await note_order(conn, max((item.epoch, item.seq) for item in items))
    return serial


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


async def unsent_offers(conn: AsyncConnection, broker: str, prefix: str, rollout: str) -> list[str]:
    """Devices of a rollout that have an open grant and whose offer never reached the broker.

    Args:
        prefix: The offer topic up to the device.
    """
    topic = literal(prefix) + assignments.c.device + literal("/") + assignments.c.rollout
    rows = await conn.scalars(
        select(assignments.c.device).where(
            assignments.c.rollout == rollout,
            assignments.c.grant.in_(["download", "activate"]),
            ~exists().where(published.c.broker == broker, published.c.topic == topic),
        )
    )
    return list(rows)


async def reached(conn: AsyncConnection, rollout: str) -> set[str]:
    """Devices whose offer of a rollout stands on some broker. Looks at every offer that does: for once a rollout."""
    suffix = f"/{rollout}"
    topics = await conn.scalars(
        select(published.c.topic).where(
            published.c.kind == Kind.OFFER.name, func.substr(published.c.topic, -len(suffix)) == suffix
        )
    )
    return {topic.split("/")[-2] for topic in topics}


async def open_offers(conn: AsyncConnection, keys: Collection[tuple[str, str]]) -> set[tuple[str, str]]:
    """Those of (device, rollout) whose offer is still needed: not closed, device enrolled, rollout not ended."""
    found: set[tuple[str, str]] = set()
    wanted = sorted({rollout for _, rollout in keys})
    for rollout in wanted:
        ids = [device for device, of in keys if of == rollout]
        rows = await conn.scalars(
            select(assignments.c.device)
            .join(rollouts, rollouts.c.id == assignments.c.rollout)
            .join(devices, devices.c.id == assignments.c.device)
            .where(
                devices.c.state == "enrolled",
                assignments.c.rollout == rollout,
                assignments.c.device.in_(ids),
                assignments.c.grant.in_(["download", "activate"]),
                rollouts.c.ended_at.is_(None),
            )
        )
        found |= {(device, rollout) for device in rows}
    return found


async def progress(conn: AsyncConnection, broker: str) -> tuple[int, str]:
    """(``last_serial``, ``ingest_generation``)."""
    names = (_SERIAL_KEY + broker, INGEST_KEY)
    rows = await conn.execute(_SETTINGS, {"the_keys": names})
    found = {row.key: row.value for row in rows}
    return int(found.get(names[0], 0)), found.get(INGEST_KEY, "")


async def ingest_generation(conn: AsyncConnection) -> str:
    """Which generation of ingest listens; empty before the first."""
    return (await progress(conn, ""))[1]


async def set_ingest_generation(conn: AsyncConnection, generation: str) -> None:
    """Begin a new generation: devices then say their level again. Mark ``Kind.STATUS_SYNC`` dirty with it."""
    await _put(conn, INGEST_KEY, generation)


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
    )
