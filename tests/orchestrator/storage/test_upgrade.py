"""A database that an earlier version made is brought up to date with all that it holds."""

import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import select

from orchestrator.storage import brokers, devices, dirty, published, tokens
from orchestrator.storage.database import Database
from orchestrator.storage.tables import settings
from orchestrator.storage.upgrade import FIRST_BROKER, SCHEMA
from protocol.topics import Kind, Topics

NOW = datetime(2026, 11, 24, tzinfo=UTC)
SCHEMA_1 = Path(__file__).with_name("schema_1.sql")
"""Dumped from a database of schema 1: a device, two marks, and one topic on a broker named ``edge``."""


async def test_schema_1_keeps_its_marks_and_topics(tmp_path: Path) -> None:
    """The mark of all brokers becomes one of the broker that there was; opening it again changes nothing."""
    path = tmp_path / "old.sqlite"
    with closing(sqlite3.connect(path)) as old:
        old.executescript(SCHEMA_1.read_text())
        (before,) = old.execute("SELECT value FROM settings WHERE key = 'database'").fetchone()
    for _ in range(2):
        db = await Database.open(path)
        try:
            async with db.read() as conn:
                assert await brokers.names(conn) == ["edge"]
                assert await dirty.take(conn, "edge", [Kind.OFFER, Kind.STATUS_FLEET], 10) == [
                    (Kind.OFFER, "dev1/r-1", NOW),
                    (Kind.STATUS_FLEET, "", NOW),
                ]
                topic = Topics("fleet").build(Kind.ANNOUNCE, rollout="r-1")
                held = await published.get(conn, "edge", topic)
                assert held is not None and (held.epoch, held.seq, held.payload, held.since) == (1, 7, b"signed", None)
                assert await published.last_serial(conn, "edge") == 1
                assert await devices.get(conn, "dev1") is not None
                assert await tokens.page(conn) == []  # a table that it did not have
                assert await conn.scalar(select(settings.c.value).where(settings.c.key == "schema")) == str(SCHEMA)
        finally:
            await db.close()
        assert db.id == before


async def test_a_new_database_has_one_broker_until_serve_says_its_name(db: Database) -> None:
    """So a mark that is made before is not lost."""
    async with db.begin() as conn:
        await dirty.mark(conn, Kind.OFFER, ["dev1/r-1"], NOW)
    assert await brokers.use(db, ["edge"], Topics("fleet"), NOW) == (["edge"], [FIRST_BROKER])
    async with db.read() as conn:
        assert await dirty.take(conn, "edge", [Kind.OFFER], 10) == [(Kind.OFFER, "dev1/r-1", NOW)]
        assert await dirty.count(conn) == {"edge": 1}
