"""What a broker holds, as the database knows it."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from orchestrator.storage import published
from orchestrator.storage.database import Database
from orchestrator.storage.published import Publication
from protocol.topics import Kind

NOW = datetime(2026, 11, 24, tzinfo=UTC)
PREFIX = "ota/v1/fleet/chunk/"


@pytest.fixture
async def db(tmp_path: Path) -> AsyncIterator[Database]:
    """An empty database."""
    database = await Database.open(tmp_path / "db.sqlite")
    yield database
    await database.close()


def _item(topic: str, digest: str = "d", expires: datetime | None = None) -> Publication:
    return Publication(kind=Kind.ANNOUNCE, topic=topic, digest=digest, epoch=1, seq=1, expires=expires)


async def test_serials_rise_and_never_come_back(db: Database) -> None:
    """Also when the newest row is forgotten: a marker must not mean two things."""
    async with db.begin() as conn:
        assert await published.record(conn, "main", [_item("a"), _item("b")]) == 2
        await published.forget(conn, "main", ["b"])
        assert await published.record(conn, "main", [_item("c")]) == 3
        items, last = await published.page(conn, "main", after=1)
    assert [item.topic for item in items] == ["c"] and last == 3


async def test_how_far_a_broker_is(db: Database) -> None:
    """Its serial and the generation of ingest; nothing of another broker."""
    async with db.begin() as conn:
        assert await published.progress(conn, "main") == (0, "")
        await published.record(conn, "main", [_item("a"), _item("b")])
        await published.set_ingest_generation(conn, "main", "g")
        assert await published.progress(conn, "main") == (2, "g")
        assert await published.progress(conn, "other") == (0, "")
        assert await published.held(conn, "main", ["a", "c"]) == {"a"}
        assert await published.held(conn, "other", ["a"]) == set()


async def test_a_topic_published_again_moves_to_the_end(db: Database) -> None:
    """A broker that knows up to serial 2 is told the newer content."""
    async with db.begin() as conn:
        await published.record(conn, "main", [_item("a"), _item("b")])
        await published.record(conn, "main", [_item("a", "new")])
        items, _ = await published.page(conn, "main", after=2)
    assert [(item.topic, item.digest) for item in items] == [("a", "new")]


async def test_expiry_is_that_of_all_that_was_signed(db: Database) -> None:
    """A later message with an earlier expiry does not let the topic be cleared early."""
    late, soon = NOW + timedelta(hours=2), NOW + timedelta(hours=1)
    async with db.begin() as conn:
        await published.record(conn, "main", [_item("a", expires=late), _item("b")])
        await published.record(conn, "main", [_item("a", expires=soon), _item("b", expires=soon)])
        found = await published.get_many(conn, "main", ["a", "b", "c"])
        run_out = await published.run_out(conn, "main", NOW + timedelta(minutes=90), 10)
    assert {topic: item.expires for topic, item in found.items()} == {"a": late, "b": soon}
    assert [item.topic for item in run_out] == ["b"]


async def test_brokers_are_apart(db: Database) -> None:
    """What one broker holds says nothing of another."""
    async with db.begin() as conn:
        await published.record(conn, "main", [_item("a")])
        assert await published.get(conn, "other", "a") is None
        assert await published.last_serial(conn, "other") == 0


async def test_the_ingest_generation_is_kept(db: Database) -> None:
    """Empty before the first, then what was set last."""
    async with db.begin() as conn:
        assert await published.ingest_generation(conn, "main") == ""
        await published.set_ingest_generation(conn, "main", "one")
        await published.set_ingest_generation(conn, "main", "two")
        assert await published.ingest_generation(conn, "main") == "two"
