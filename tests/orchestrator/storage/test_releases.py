"""Rows of releases and their chunks."""

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from orchestrator.errors import ConflictError
from orchestrator.storage import releases
from orchestrator.storage.database import Database
from orchestrator.storage.releases import IMPORTING, PUBLISHED, ReleaseRecord

RECORD = ReleaseRecord(
    id="gateway/1.0.0",
    product="gateway",
    version="1.0.0",
    component="app",
    path="gateway/1.0.0/manifest",
    length=900,
    sha256="a" * 64,
    counter=3,
    info={"hardware": ["rev-a"], "nested": {"deep": [1, 2]}},
    wrapped_key=b"\x00\xffsealed",
    image_bytes=2**40,
    chunk_bytes=2**33,
    state=IMPORTING,
    imported_at=datetime(2026, 11, 24, 1, 2, 3, 456789, tzinfo=UTC),
)


@pytest.fixture
async def db(tmp_path: Path) -> AsyncIterator[Database]:
    """An empty database."""
    database = await Database.open(tmp_path / "db.sqlite")
    yield database
    await database.close()


def _version(version: str) -> ReleaseRecord:
    return replace(RECORD, id=f"gateway/{version}", version=version, path=f"gateway/{version}/manifest")


async def test_a_release_comes_back_as_it_was(db: Database) -> None:
    """Bytes, large numbers, nested values and microseconds included."""
    chunks = {"c" * 64: 70_000, "d" * 64: 16}
    async with db.begin() as conn:
        await releases.insert_release(conn, RECORD, chunks)
    async with db.read() as conn:
        assert await releases.get(conn, RECORD.id) == RECORD
        assert await releases.chunks(conn, RECORD.id) == chunks
        assert await releases.get(conn, "gateway/9") is None
        assert await releases.chunks(conn, "gateway/9") == {}


async def test_a_release_of_many_chunks(db: Database) -> None:
    """More rows than one statement takes."""
    chunks = {f"{number:064x}": 100 + number % 7 for number in range(25_001)}
    async with db.begin() as conn:
        await releases.insert_release(conn, RECORD, chunks)
        assert await releases.chunks(conn, RECORD.id) == chunks


async def test_a_name_is_taken_once(db: Database) -> None:
    """The second insert is a conflict, and none of its chunks stays."""
    async with db.begin() as conn:
        await releases.insert_release(conn, RECORD, {"c" * 64: 1})
    with pytest.raises(ConflictError):
        async with db.begin() as conn:
            await releases.insert_release(conn, replace(RECORD, sha256="b" * 64), {"e" * 64: 1})
    async with db.read() as conn:
        assert await releases.get(conn, RECORD.id) == RECORD
        assert await releases.chunks(conn, RECORD.id) == {"c" * 64: 1}


async def test_two_releases_share_a_chunk(db: Database) -> None:
    """Each lists it."""
    async with db.begin() as conn:
        for version in ("1.0.0", "1.1.0"):
            await releases.insert_release(conn, _version(version), {"c" * 64: 5})
        assert await releases.chunks(conn, "gateway/1.1.0") == {"c" * 64: 5}


async def test_pages(db: Database) -> None:
    """In the order of ids; the last id of a page is where the next goes on."""
    async with db.begin() as conn:
        for number in (3, 1, 5, 2, 4):
            await releases.insert_release(conn, _version(f"1.{number}"), {})
        first = await releases.page(conn, limit=2)
        rest = await releases.page(conn, after=first[-1].id)
    assert [record.version for record in first] == ["1.1", "1.2"]
    assert [record.version for record in rest] == ["1.3", "1.4", "1.5"]


async def test_a_release_moves_on_alone(db: Database) -> None:
    """Its state changes, its neighbour's does not."""
    async with db.begin() as conn:
        for version in ("1.0.0", "1.1.0"):
            await releases.insert_release(conn, _version(version), {})
        await releases.set_state(conn, "gateway/1.0.0", PUBLISHED)
        assert await releases.get(conn, "gateway/1.0.0") == replace(RECORD, state=PUBLISHED)
        assert await releases.get(conn, "gateway/1.1.0") == _version("1.1.0")
