"""Releases that were imported, and the chunks that each consists of."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from orchestrator.storage.tables import release_chunks, releases, rollouts
from protocol.directives import ReleaseRef

IMPORTING, PUBLISHED, WITHDRAWN = "importing", "published", "withdrawn"
_ROWS_AT_ONCE = 10_000
_IDS_AT_ONCE = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseRecord:
    """One row of ``releases``; the fields are its columns.

    Attributes:
        id: ``product/version``.
        path: TUF target path of the sealed manifest; ``length`` and ``sha256`` are the manifest's.
        wrapped_key: The content key, sealed to the signer.
        image_bytes: What is installed on a device.
        chunk_bytes: Ciphertext, each chunk counted once, with the manifest's pieces.
        published_bytes: What was sent to the broker for it.
    """

    id: str
    product: str
    version: str
    component: str
    path: str
    length: int
    sha256: str
    counter: int
    info: dict[str, Any]
    wrapped_key: bytes
    image_bytes: int
    chunk_bytes: int
    state: str
    imported_at: datetime
    published_bytes: int = 0


async def insert_release(conn: AsyncConnection, record: ReleaseRecord, lengths: Mapping[str, int]) -> None:
    """Add a release and its chunks (cid -> ciphertext bytes)."""
    await conn.execute(insert(releases).values(**asdict(record)))
    rows = [{"release": record.id, "cid": cid, "length": length} for cid, length in lengths.items()]
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        await conn.execute(insert(release_chunks), rows[start : start + _ROWS_AT_ONCE])


async def get(conn: AsyncConnection, release_id: str) -> ReleaseRecord | None:
    """One release, or None."""
    row = (await conn.execute(select(releases).where(releases.c.id == release_id))).mappings().first()
    return None if row is None else ReleaseRecord(**row)


async def chunks(conn: AsyncConnection, release_id: str) -> dict[str, int]:
    """What a release consists of: cid -> ciphertext bytes, pieces of the sealed manifest included."""
    query = select(release_chunks.c.cid, release_chunks.c.length).where(release_chunks.c.release == release_id)
    return {row.cid: row.length for row in await conn.execute(query)}


async def is_published_chunk(conn: AsyncConnection, cid: str) -> bool:
    """Whether a chunk belongs to a release that is published and not withdrawn."""
    query = (
        select(release_chunks.c.cid)
        .join(releases, releases.c.id == release_chunks.c.release)
        .where(release_chunks.c.cid == cid, releases.c.state == PUBLISHED)
        .limit(1)
    )
    return await conn.scalar(query) is not None


async def chunk_page(
    conn: AsyncConnection, release_id: str, *, after: str = "", limit: int = 200
) -> Sequence[tuple[str, int]]:
    """(cid, ciphertext bytes) of a release in order of cids, from the one after ``after`` on."""
    query = (
        select(release_chunks.c.cid, release_chunks.c.length)
        .where(release_chunks.c.release == release_id, release_chunks.c.cid > after)
        .order_by(release_chunks.c.cid)
        .limit(limit)
    )
    return [(row.cid, row.length) for row in await conn.execute(query)]


async def chunks_of_rollouts(conn: AsyncConnection, wants: Mapping[str, Collection[str]]) -> set[str]:
    """Those of the chunks, by rollout, that belong to the rollout's release."""
    found: set[str] = set()
    for rollout, cids in wants.items():
        release = select(rollouts.c.release).where(rollouts.c.id == rollout).scalar_subquery()
        wanted = sorted(cids)
        for start in range(0, len(wanted), _IDS_AT_ONCE):
            some = wanted[start : start + _IDS_AT_ONCE]
            query = select(release_chunks.c.cid).where(
                release_chunks.c.release == release, release_chunks.c.cid.in_(some)
            )
            found |= set(await conn.scalars(query))
    return found


async def page(conn: AsyncConnection, *, after: str = "", limit: int = 200) -> Sequence[ReleaseRecord]:
    """Releases in order of their ids, from the one after ``after`` on."""
    query = select(releases).where(releases.c.id > after).order_by(releases.c.id).limit(limit)
    return [ReleaseRecord(**row) for row in (await conn.execute(query)).mappings()]


async def published_infos(conn: AsyncConnection, product: str) -> list[dict[str, Any]]:
    """``ReleaseInfo`` of every published release of a product, as stored."""
    query = select(releases.c.info).where(releases.c.product == product, releases.c.state == PUBLISHED)
    return list(await conn.scalars(query.order_by(releases.c.id)))


async def set_state(conn: AsyncConnection, release_id: str, state: str) -> None:
    """Move a release on."""
    await conn.execute(update(releases).where(releases.c.id == release_id).values(state=state))


async def release_published(conn: AsyncConnection, release: str, sent_bytes: int) -> None:
    """A release is on the broker: add what was sent for it, and say so."""
    await conn.execute(
        update(releases).where(releases.c.id == release).values(published_bytes=releases.c.published_bytes + sent_bytes)
    )
    await conn.execute(
        update(releases).where(releases.c.id == release, releases.c.state == "importing").values(state="published")
    )


@dataclass(frozen=True, slots=True)
class ReleaseFacts:
    """What directives say of a release."""

    ref: ReleaseRef
    wrapped_key: bytes
    state: str


async def image_bytes(conn: AsyncConnection, release: str) -> int:
    """Bytes of what a release installs; 0 where it does not exist."""
    return int(await conn.scalar(select(releases.c.image_bytes).where(releases.c.id == release)) or 0)


async def release_facts(conn: AsyncConnection, ids: Collection[str]) -> dict[str, ReleaseFacts]:
    """Releases by id; those that do not exist are left out."""
    columns = (releases.c.id, releases.c.path, releases.c.length, releases.c.sha256, releases.c.counter)
    rows = await conn.execute(
        select(*columns, releases.c.wrapped_key, releases.c.state).where(releases.c.id.in_(list(ids)))
    )
    return {
        row.id: ReleaseFacts(
            ReleaseRef(path=row.path, length=row.length, sha256=row.sha256, counter=row.counter),
            row.wrapped_key,
            row.state,
        )
        for row in rows
    }
