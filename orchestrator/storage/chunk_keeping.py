"""Which releases a broker shall hold, which it holds, and which chunks no release there needs any more.

A release is needed while it waits for its first rollout (for a time), while one has not ended, and for a grace time
after the last one. That is asked of the rows every time and stored nowhere, so a rollout that begins just now counts.
Every question is about one release, or about a page of its chunks.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from sqlalchemy import ColumnElement, and_, exists, func, literal, or_, select, update
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from orchestrator.storage.chunk_tables import broker_releases
from orchestrator.storage.releases import WITHDRAWN
from orchestrator.storage.tables import Instant, published, release_chunks, releases, rollouts

_IDS_AT_ONCE = 400


class Held(StrEnum):
    """How much of a release stands on a broker."""

    WHOLE = "held"
    LACKING = "lacking"
    MIRRORS_ONLY = "mirrors-only"
    CLEARING = "clearing"
    CLEARED = "cleared"


@dataclass(frozen=True, slots=True)
class Keeping:
    """How long chunks stay.

    Attributes:
        kept: After publishing, for a release that was not rolled out since.
        grace: After the last rollout of a release ended.
    """

    kept: timedelta
    grace: timedelta


@dataclass(frozen=True, slots=True)
class OnBroker:
    """One release on one broker.

    Attributes:
        missing_bytes: What did not fit into the broker's budget.
        why: What keeps it from being whole there; "" where it is, or is being brought.
    """

    broker: str
    release: str
    state: Held
    missing_bytes: int = 0
    why: str = ""


def _needed(broker: str, keeping: Keeping, now: datetime) -> ColumnElement[bool]:
    """Whether a row of ``releases`` is needed."""
    row = broker_releases.alias()
    asked_at = (
        select(row.c.asked_at)
        .where(row.c.broker == broker, row.c.release == releases.c.id)
        .correlate(releases)
        .scalar_subquery()
    )
    since = func.coalesce(asked_at, releases.c.imported_at, type_=Instant())
    of_it = exists().where(rollouts.c.release == releases.c.id).correlate(releases)
    lives = of_it.where(rollouts.c.ended_at.is_(None))
    ended_lately = of_it.where(rollouts.c.ended_at > now - keeping.grace)
    waits = and_(since > now - keeping.kept, ~of_it.where(rollouts.c.created_at >= since))
    return or_(lives, and_(releases.c.state != WITHDRAWN, or_(ended_lately, waits)))


async def is_needed(conn: AsyncConnection, broker: str, release: str, keeping: Keeping, now: datetime) -> bool:
    """Whether a broker shall hold a release."""
    query = select(releases.c.id).where(releases.c.id == release, _needed(broker, keeping, now))
    return await conn.scalar(query) is not None


async def next_to_bring(
    conn: AsyncConnection, broker: str, keeping: Keeping, now: datetime, free_bytes: int
) -> str | None:
    """A needed release that is not whole on the broker, and may be: it fits, and was not tried just now."""
    found: str | None = await conn.scalar(
        select(releases.c.id)
        .outerjoin(
            broker_releases, and_(broker_releases.c.broker == broker, broker_releases.c.release == releases.c.id)
        )
        .where(
            releases.c.state != "importing",  # publish_release is at it
            or_(
                broker_releases.c.state.is_(None),
                and_(
                    broker_releases.c.state != Held.WHOLE,
                    broker_releases.c.missing_bytes <= free_bytes,
                    or_(broker_releases.c.retry_at.is_(None), broker_releases.c.retry_at <= now),
                ),
            ),
            _needed(broker, keeping, now),
        )
        .order_by(releases.c.id)
        .limit(1)
    )
    return found


async def next_to_clear(conn: AsyncConnection, broker: str, keeping: Keeping, now: datetime) -> str | None:
    """A release that nobody needs and that may still have chunks on the broker."""
    cleared = exists().where(
        broker_releases.c.broker == broker,
        broker_releases.c.release == releases.c.id,
        broker_releases.c.state == Held.CLEARED,
    )
    found: str | None = await conn.scalar(
        select(releases.c.id).where(~cleared, ~_needed(broker, keeping, now)).order_by(releases.c.id).limit(1)
    )
    return found


async def page_to_clear(
    conn: AsyncConnection, broker: str, prefix: str, release: str, keeping: Keeping, now: datetime, limit: int
) -> list[tuple[str, int]]:
    """(cid, bytes) of chunks of a release that stand on the broker and belong to no release that is needed."""
    other = release_chunks.alias()
    shared = exists().where(
        other.c.cid == release_chunks.c.cid, releases.c.id == other.c.release, _needed(broker, keeping, now)
    )
    topic = literal(prefix) + release_chunks.c.cid
    rows = await conn.execute(
        select(release_chunks.c.cid, release_chunks.c.length)
        .where(
            release_chunks.c.release == release,
            exists().where(published.c.broker == broker, published.c.topic == topic),
            ~shared.correlate(release_chunks),
        )
        .order_by(release_chunks.c.cid)
        .limit(limit)
    )
    return [(row.cid, row.length) for row in rows]


async def missing_page(
    conn: AsyncConnection, broker: str, prefix: str, release: str, *, after: str = "", limit: int = 256
) -> list[tuple[str, int]]:
    """(cid, bytes) of a release's chunks that the broker does not hold, in order of their ids.

    Args:
        prefix: The chunk topic without the cid.
    """
    rows = await conn.execute(
        select(release_chunks.c.cid, release_chunks.c.length)
        .where(release_chunks.c.release == release, release_chunks.c.cid > after, _absent(broker, prefix))
        .order_by(release_chunks.c.cid)
        .limit(limit)
    )
    return [(row.cid, row.length) for row in rows]


async def missing_bytes(conn: AsyncConnection, broker: str, prefix: str, release: str) -> int:
    """Bytes of a release's chunks that the broker does not hold."""
    total = select(func.sum(release_chunks.c.length)).where(
        release_chunks.c.release == release, _absent(broker, prefix)
    )
    return int(await conn.scalar(total) or 0)


def _absent(broker: str, prefix: str) -> ColumnElement[bool]:
    topic = literal(prefix) + release_chunks.c.cid
    return ~exists().where(published.c.broker == broker, published.c.topic == topic)


async def set_held(
    conn: AsyncConnection,
    broker: str,
    release: str,
    state: Held,
    *,
    missing_bytes: int = 0,
    why: str = "",
    retry_at: datetime | None = None,
) -> None:
    """Write how much of a release stands on a broker."""
    values = {"state": state.value, "missing_bytes": missing_bytes, "why": why, "retry_at": retry_at}
    new = insert(broker_releases).values(broker=broker, release=release, **values)
    await conn.execute(
        new.on_conflict_do_update(index_elements=[broker_releases.c.broker, broker_releases.c.release], set_=values)
    )


async def ask(conn: AsyncConnection, broker: str, release: str, now: datetime) -> None:
    """An operator publishes it: from now on it waits for a rollout."""
    new = insert(broker_releases).values(broker=broker, release=release, state=Held.LACKING.value, asked_at=now)
    await conn.execute(
        new.on_conflict_do_update(
            index_elements=[broker_releases.c.broker, broker_releases.c.release], set_={"asked_at": now}
        )
    )


async def lost(conn: AsyncConnection, broker: str, cids: Collection[str]) -> None:
    """Chunks are gone from a broker: no release that has one of them is whole there any more."""
    wanted = sorted(cids)
    for start in range(0, len(wanted), _IDS_AT_ONCE):
        holders = select(release_chunks.c.release).where(release_chunks.c.cid.in_(wanted[start : start + _IDS_AT_ONCE]))
        await conn.execute(
            update(broker_releases)
            .where(
                broker_releases.c.broker == broker,
                broker_releases.c.state == Held.WHOLE,
                broker_releases.c.release.in_(holders),
            )
            .values(state=Held.LACKING.value)
        )


async def reconsider(conn: AsyncConnection, broker: str) -> None:
    """The broker holds something else now: what did not fit is measured anew."""
    await conn.execute(
        update(broker_releases)
        .where(broker_releases.c.broker == broker, broker_releases.c.missing_bytes > 0)
        .values(retry_at=None, missing_bytes=0)
    )


async def on_brokers(conn: AsyncConnection, ids: Collection[str]) -> dict[str, list[OnBroker]]:
    """Where each of these releases stands."""
    found: dict[str, list[OnBroker]] = {}
    rows = await conn.execute(
        select(broker_releases).where(broker_releases.c.release.in_(list(ids))).order_by(broker_releases.c.broker)
    )
    for row in rows:
        item = OnBroker(row.broker, row.release, Held(row.state), row.missing_bytes, row.why)
        found.setdefault(row.release, []).append(item)
    return found


async def not_deliverable(conn: AsyncConnection, ids: Collection[str]) -> set[str]:
    """Those of the releases that were cleared and are not back on any broker: an offer would lead to nothing.

    One that is lacking on another broker may never have been there: offers wait for it too.
    """
    found = {release: {row.state for row in rows} for release, rows in (await on_brokers(conn, ids)).items()}
    gone, there = {Held.CLEARING, Held.CLEARED}, {Held.WHOLE, Held.MIRRORS_ONLY}
    return {release for release, states in found.items() if states & gone and not states & there}


async def leaving(conn: AsyncConnection, broker: str, keeping: Keeping) -> Sequence[tuple[datetime, str]]:
    """(when, release) of what stands on a broker and no unended rollout holds, by the time it may be cleared."""
    last_end = func.max(rollouts.c.ended_at, type_=Instant())
    begun = func.max(rollouts.c.created_at, type_=Instant())
    since = func.coalesce(broker_releases.c.asked_at, releases.c.imported_at, type_=Instant())
    rows = await conn.execute(
        select(releases.c.id, since.label("since"), last_end.label("ended"), begun.label("begun"))
        .join(broker_releases, broker_releases.c.release == releases.c.id)
        .outerjoin(rollouts, rollouts.c.release == releases.c.id)
        .where(broker_releases.c.broker == broker, broker_releases.c.state.in_([Held.WHOLE, Held.LACKING]))
        .group_by(releases.c.id)
        .having(func.count(rollouts.c.id) == func.count(rollouts.c.ended_at))
    )
    found = []
    for row in rows:
        waits = None if row.begun is not None and row.begun >= row.since else row.since + keeping.kept
        ends = None if row.ended is None else row.ended + keeping.grace
        found.append((max(at for at in (waits, ends) if at is not None), row.id))
    return sorted(found)
