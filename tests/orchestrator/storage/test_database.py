"""The database: all or nothing, one writer, readers that do not wait, and a sentence for what cannot be used."""

import asyncio
import sqlite3
import threading
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection

from orchestrator.errors import ConflictError, OperationError
from orchestrator.storage import assignments, groups
from orchestrator.storage.database import Database
from orchestrator.storage.upgrade import SCHEMA

NOW = datetime(2026, 11, 24, tzinfo=UTC)


async def test_it_keeps_its_id(tmp_path: Path) -> None:
    """Made once; another database has another one."""
    ids = []
    for name in ("one", "one", "two"):
        db = await Database.open(tmp_path / name)
        ids.append(db.id)
        await db.close()
    assert ids[0] == ids[1] != ids[2]
    assert len(ids[0]) == 16


async def test_a_transaction_is_whole_or_nothing(db: Database) -> None:
    """An error inside undoes what was written before it, and comes out as it is."""
    with pytest.raises(KeyError):
        async with db.begin() as conn:
            await groups.insert_group(conn, "canary", NOW)
            raise KeyError
    async with db.begin() as conn:
        await groups.insert_group(conn, "night", NOW)
    async with db.read() as conn:
        assert await groups.sizes(conn) == {"night": 0}


async def test_a_cancelled_transaction_leaves_nothing(db: Database) -> None:
    """And the next writer is not locked out."""
    entered = asyncio.Event()

    async def write() -> None:
        async with db.begin() as conn:
            await groups.insert_group(conn, "canary", NOW)
            entered.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(write())
    await asyncio.wait_for(entered.wait(), 10)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with asyncio.timeout(10), db.begin() as conn:
        assert await groups.sizes(conn) == {}


async def test_a_transaction_in_a_thread_is_whole_or_nothing(db: Database) -> None:
    """It returns what the work returns; its error undoes it and comes out as it is, the driver's translated."""

    async def add(conn: AsyncConnection, *names: str) -> dict[str, int]:
        for name in names:
            if not name:
                raise KeyError
            await groups.insert_group(conn, name, NOW)
        return await groups.sizes(conn)

    assert await db.write(lambda conn: add(conn, "night")) == {"night": 0}
    with pytest.raises(KeyError):
        await db.write(lambda conn: add(conn, "canary", ""))
    with pytest.raises(ConflictError, match="UNIQUE"):
        await db.write(lambda conn: add(conn, "canary", "night"))
    assert await db.look(groups.sizes) == {"night": 0}


async def test_a_transaction_in_a_thread_waits_for_nothing_else(db: Database) -> None:
    """It would hold the writer's lock in a thread that nobody wakes; what it wrote is undone."""

    async def work(conn: AsyncConnection) -> None:
        await groups.insert_group(conn, "canary", NOW)
        await asyncio.sleep(0)

    with pytest.raises(RuntimeError, match="waits for nothing but its statements"):
        await db.write(work)
    assert await db.look(groups.sizes) == {}


async def test_who_is_cancelled_leaves_no_writer_behind(db: Database) -> None:
    """The thread is waited for: the next writer begins when it is done, and finds what it wrote."""
    inside, go_on = threading.Event(), threading.Event()

    async def slow(conn: AsyncConnection) -> None:
        inside.set()
        assert go_on.wait(10)
        await groups.insert_group(conn, "canary", NOW)

    task = asyncio.create_task(db.write(slow))
    assert await asyncio.to_thread(inside.wait, 10)
    task.cancel()
    next_one = asyncio.create_task(db.write(groups.sizes))
    done, _ = await asyncio.wait({task, next_one}, timeout=0.05)
    assert not done
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await next_one == {"canary": 0}


async def test_both_ways_in_share_one_writer(db: Database) -> None:
    """A block that writes keeps a thread's transaction waiting, and readers out of neither."""
    async with db.begin() as conn:
        await groups.insert_group(conn, "canary", NOW)
        waiting = asyncio.create_task(db.write(groups.sizes))
        assert await db.look(groups.sizes) == {}
        assert not waiting.done()
    assert await waiting == {"canary": 0}


async def test_readers_do_not_wait_and_see_no_half(db: Database) -> None:
    """What is not committed is not there."""
    async with db.begin() as writing:
        await groups.insert_group(writing, "canary", NOW)
        async with asyncio.timeout(5), db.read() as reading:
            assert await groups.sizes(reading) == {}
            await reading.rollback()


async def test_writers_queue(db: Database) -> None:
    """Many at once lose nothing, also when each reads before it writes."""
    async with db.begin() as conn:
        await conn.exec_driver_sql("INSERT INTO settings VALUES ('n', '0')")

    async def add() -> None:
        async with db.begin() as conn:
            n = (await conn.exec_driver_sql("SELECT value FROM settings WHERE key = 'n'")).scalar_one()
            await asyncio.sleep(0)
            await conn.exec_driver_sql("UPDATE settings SET value = ? WHERE key = 'n'", (str(int(n) + 1),))

    await asyncio.gather(*(add() for _ in range(20)))
    async with db.read() as conn:
        assert (await conn.exec_driver_sql("SELECT value FROM settings WHERE key = 'n'")).scalar() == "20"


async def test_writers_of_two_processes_queue(tmp_path: Path) -> None:
    """A transaction that has read may always write, whoever else holds the file open."""
    one, two = await Database.open(tmp_path / "db.sqlite"), await Database.open(tmp_path / "db.sqlite")

    async def add(db: Database, name: str) -> None:
        async with db.begin() as conn:
            await groups.sizes(conn)
            await asyncio.sleep(0.01)  # long enough for the other one to begin
            await groups.insert_group(conn, name, NOW)

    try:
        await asyncio.gather(*(add(db, f"{n}-{m}") for n, db in enumerate([one, two]) for m in range(5)))
        async with two.read() as conn:
            assert len(await groups.sizes(conn)) == 10
    finally:
        await one.close()
        await two.close()


async def test_what_the_driver_says_is_translated(db: Database) -> None:
    """A second row of one name is a conflict; nonsense is our error with the database's name."""
    with pytest.raises(ConflictError, match="UNIQUE"):
        async with db.begin() as conn:
            await groups.insert_group(conn, "canary", NOW)
            await groups.insert_group(conn, "canary", NOW)
    with pytest.raises(OperationError, match=r"db\.sqlite: no such table"):
        async with db.read() as conn:
            await conn.exec_driver_sql("SELECT * FROM absent")


async def test_a_newer_schema_is_left_alone(tmp_path: Path) -> None:
    """An older Flagship does not touch what it does not know."""
    path = tmp_path / "db.sqlite"
    await (await Database.open(path)).close()
    with closing(sqlite3.connect(path)) as raw:
        raw.execute("UPDATE settings SET value = ? WHERE key = 'schema'", (str(SCHEMA + 1),))
        raw.execute("DROP TABLE events")
        raw.commit()
    with pytest.raises(OperationError, match=f"schema {SCHEMA + 1}, this Flagship knows up to {SCHEMA}"):
        await Database.open(path)
    with closing(sqlite3.connect(path)) as raw:
        assert raw.execute("SELECT count(*) FROM sqlite_master WHERE name = 'events'").fetchone() == (0,)


async def test_a_database_of_an_earlier_version_gets_what_it_lacks(tmp_path: Path) -> None:
    """Columns that were not there are added with their defaults; rows stay."""
    path = tmp_path / "db.sqlite"
    await (await Database.open(path)).close()
    with closing(sqlite3.connect(path)) as raw:
        raw.execute(
            'INSERT INTO assignments (rollout, device, stage, attempt, place, state, ready, asking, reasons, "grant",'
            " close_reason, detail, log, resumed, percent, bytes_fetched)"
            " VALUES ('r-1', 'd1', 0, 1, 0.5, 'pending', 0, 0, '[]', 'none', '', '', '', 0, 0, 7)"
        )
        for name in ("bytes_copied", "rate_bytes_s"):
            raw.execute(f"ALTER TABLE assignments DROP COLUMN {name}")
        raw.commit()
    db = await Database.open(path)
    async with db.read() as conn:
        found = await assignments.get(conn, "r-1", "d1")
    await db.close()
    assert found is not None
    assert (found.bytes_fetched, found.bytes_copied, found.rate_bytes_s) == (7, 0, 0.0)


def _garbage(path: Path) -> None:
    path.write_bytes(b"this is no database" * 100)


def _folder(path: Path) -> None:
    path.mkdir()


def _nowhere(path: Path) -> None:
    path.parent.rmdir()


@pytest.mark.parametrize("spoil", [_garbage, _folder, _nowhere])
async def test_a_file_that_cannot_be_used(tmp_path: Path, spoil: object) -> None:
    """One sentence that names it."""
    path = tmp_path / "home" / "db.sqlite"
    path.parent.mkdir()
    assert callable(spoil)
    spoil(path)
    with pytest.raises(OperationError, match=r"db\.sqlite: "):
        await Database.open(path)


async def test_a_naive_time_is_refused(db: Database) -> None:
    """It would be read back as another instant."""
    with pytest.raises((ValueError, OperationError), match="needs a zone"):
        async with db.begin() as conn:
            await groups.insert_group(conn, "canary", datetime(2026, 1, 1))  # noqa: DTZ001
