"""Releases and their chunks in rows."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from sqlalchemy import select

from orchestrator.errors import ConflictError
from orchestrator.storage import releases
from orchestrator.storage.database import Database
from orchestrator.storage.releases import IMPORTING, PUBLISHED, ReleaseRecord
from orchestrator.storage.tables import release_chunks

NOW = datetime(2026, 11, 24, tzinfo=UTC)
RECORD = ReleaseRecord(
    id="gateway/1.1.0",
    product="gateway",
    version="1.1.0",
    component="app",
    path="gateway/1.1.0/manifest",
    length=100,
    sha256="1" * 64,
    counter=3,
    info={"pieces": ["2" * 64]},
    wrapped_key=b"\x00sealed",
    image_bytes=1000,
    chunk_bytes=900,
    state=IMPORTING,
    imported_at=NOW,
)


async def test_a_release_is_read_as_it_was_written(db: Database) -> None:
    """With its chunks; its state moves on."""
    async with db.begin() as conn:
        await releases.insert_release(conn, RECORD, {"a" * 64: 10, "b" * 64: 20})
    async with db.begin() as conn:
        assert await releases.get(conn, RECORD.id) == RECORD
        assert await releases.get(conn, "gateway/9") is None
        await releases.set_state(conn, RECORD.id, PUBLISHED)
        assert await releases.get(conn, RECORD.id) == replace(RECORD, state=PUBLISHED)
        rows = (await conn.execute(select(release_chunks).order_by(release_chunks.c.cid))).all()
    assert [tuple(row) for row in rows] == [(RECORD.id, "a" * 64, 10), (RECORD.id, "b" * 64, 20)]


async def test_a_version_is_there_once(db: Database) -> None:
    """The second one is refused, and its chunks with it."""
    async with db.begin() as conn:
        await releases.insert_release(conn, RECORD, {})
    with pytest.raises(ConflictError):
        async with db.begin() as conn:
            await releases.insert_release(conn, RECORD, {"a" * 64: 10})
    async with db.read() as conn:
        assert (await conn.execute(select(release_chunks))).all() == []


async def test_pages(db: Database) -> None:
    """In order of their ids, each once."""
    async with db.begin() as conn:
        for version in ("3", "1", "2"):
            record = replace(RECORD, id=f"gateway/{version}", version=version, path=f"gateway/{version}/manifest")
            await releases.insert_release(conn, record, {})
        first = await releases.page(conn, limit=2)
        rest = await releases.page(conn, after=first[-1].id, limit=2)
    assert [[r.version for r in page] for page in (first, rest)] == [["1", "2"], ["3"]]
