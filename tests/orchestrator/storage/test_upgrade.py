"""A database that an earlier version made is brought up to date with all that it holds."""

import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

from sqlalchemy import select

from orchestrator.rollouts.engine import reconcile
from orchestrator.rollouts.fact_loading import load_facts
from orchestrator.storage import assignments, audit, brokers, devices, dirty, published, rollouts, tokens
from orchestrator.storage.database import Database
from orchestrator.storage.tables import settings
from orchestrator.storage.upgrade import FIRST_BROKER, SCHEMA
from protocol.topics import Kind, Topics

NOW = datetime(2026, 11, 24, tzinfo=UTC)
SCHEMA_1 = Path(__file__).with_name("schema_1.sql")
"""Dumped from a database of schema 1: a device, two marks, and one topic on a broker named ``edge``."""

SCHEMA_2 = Path(__file__).with_name("schema_2.sql")
"""Dumped from a database of schema 2: a running rollout of five devices, each somewhere else."""


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


async def test_schema_2_counts_failures_by_class(tmp_path: Path) -> None:
    """A rollout that runs goes on: rows, counts, what they are at, what was acknowledged; and the audit log begins."""
    path = tmp_path / "old.sqlite"
    with closing(sqlite3.connect(path)) as old:
        old.executescript(SCHEMA_2.read_text())
    for _ in range(2):
        db = await Database.open(path)
        try:
            async with db.read() as conn:
                counts = await assignments.load_counts(conn, "r-1")
                assert counts == await assignments.recount(conn, "r-1")
                assert counts[0]["failed:rolled_back:health"] == 1
                rows = {row.device: row for row in await assignments.of_rollout(conn, "r-1")}
                assert {name: row.work for name, row in rows.items() if row.work} == {
                    "d1": "queued",
                    "d2": "verifying",
                }
                assert rows["d2"].work_since == NOW + timedelta(seconds=5)
                rollout = await rollouts.get(conn, "r-1")
                assert rollout is not None and (rollout.spec.soak_s, rollout.spec.weight) == (60, 500)
                assert rollout.acknowledged == {0: {"failed:failed:install": 1, "state:succeeded": 1}}
                facts = await load_facts(conn, "r-1")
                assert facts is not None
                assert not reconcile(facts, NOW, timedelta(days=1)).is_nothing
                (begin,) = await audit.page(conn)
                assert begin.kind == "begin"
                assert [row for row in begin.figures()["counts"] if row[2] == "failed:rolled_back:health"]
                assert await conn.scalar(select(settings.c.value).where(settings.c.key == "schema")) == str(SCHEMA)
        finally:
            await db.close()
