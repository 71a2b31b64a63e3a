"""The audit log in a real database."""

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import insert, text
from sqlalchemy.ext.asyncio import AsyncConnection

from orchestrator.errors import ConflictError, LostLeadError, OperationError
from orchestrator.model.audit import AuditKind, SignedHead, check_chain
from orchestrator.storage import audit
from orchestrator.storage.audit_tables import audit as table
from orchestrator.storage.database import Database

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)


async def add(conn: AsyncConnection, cause: str = "because", rollout: str = "") -> None:
    """One order."""
    await audit.append(conn, AuditKind.ORDER, at=NOW, actor="operator", cause=cause, rollout=rollout)


async def test_a_log_begins_with_the_database(db: Database) -> None:
    """The first entry names the database and its counters; what is added follows from it."""
    async with db.begin() as conn:
        await add(conn, rollout="r-1")
    async with db.read() as conn:
        first, second = await audit.page(conn)
        assert (first.kind, first.figures()) == ("begin", {"database": db.id, "counts": []})
        assert (second.id, second.kind, second.rollout, second.cause) == (2, "order", "r-1", "because")
        assert list(check_chain([first, second])) == []
        assert await audit.head(conn) == second.head


async def test_a_database_of_before_the_log_begins_one(db: Database) -> None:
    """With its counters as they stand: from there they follow from the log. Opened again, nothing is added."""
    async with db.begin() as conn:
        await conn.execute(text("INSERT INTO counts VALUES ('r-1', 0, 'ready', 2), ('r-1', 0, 'bytes:delta', 9)"))
        await conn.execute(text("DROP TABLE audit"))
    for _ in range(2):
        again = await Database.open(db.path)
        async with again.read() as conn:
            (first,) = await audit.page(conn)
        await again.close()
        assert first.figures() == {"database": db.id, "counts": [["r-1", 0, "ready", 2]]}


async def test_entries_of_one_transaction_follow_one_another(db: Database) -> None:
    """They share a correlation id; another transaction has another, in both ways in."""
    async with db.begin() as conn:
        await add(conn, "one")
        await add(conn, "two")

    async def work(conn: AsyncConnection) -> None:
        await add(conn, "three")
        await add(conn, "four")

    await db.write(work)
    async with db.read() as conn:
        entries = await audit.page(conn)
    assert [entry.cause for entry in entries[1:]] == ["one", "two", "three", "four"]
    one, two, three, four = (entry.correlation for entry in entries[1:])
    assert one == two != three == four and one
    assert list(check_chain(entries)) == []


async def test_what_is_taken_back_leaves_no_gap(db: Database) -> None:
    """A transaction that fails took its entries with it."""
    with pytest.raises(RuntimeError):
        async with db.begin() as conn:
            await add(conn, "never")
            raise RuntimeError
    async with db.begin() as conn:
        await add(conn)
    async with db.read() as conn:
        entries = await audit.page(conn)
    assert [entry.cause for entry in entries[1:]] == ["because"] and list(check_chain(entries)) == []


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit SET cause = 'other' WHERE id = 1",
        "DELETE FROM audit",
        "INSERT OR REPLACE INTO audit SELECT * FROM audit WHERE id = 1",
        "INSERT INTO audit (id, at, kind, actor, body, hash) SELECT id + 7, at, kind, actor, body, hash FROM audit",
        "UPDATE audit_heads SET entry = 2",
        "DELETE FROM audit_heads",
    ],
)
async def test_the_database_refuses_changes(db: Database, statement: str) -> None:
    """Also such as nobody meant."""
    async with db.begin() as conn:
        await audit.add_head(conn, SignedHead(fleet="f", id=1, hash="0" * 64, at=NOW), b"signed")
    with pytest.raises(ConflictError, match=r"audit entr|signed head"):
        async with db.begin() as conn:
            await conn.execute(text(statement))


async def test_pages_go_both_ways(db: Database) -> None:
    """By id, of one rollout where one is named."""
    async with db.begin() as conn:
        for number in range(4):
            await add(conn, f"{number}", rollout=f"r-{number % 2}")
    async with db.read() as conn:
        assert [e.id for e in await audit.page(conn, after=2, limit=2)] == [3, 4]
        assert [e.id for e in await audit.page(conn, limit=2, newest_first=True)] == [5, 4]
        assert [e.id for e in await audit.page(conn, after=4, newest_first=True)] == [3, 2, 1]
        assert [e.cause for e in await audit.page(conn, rollout="r-1")] == ["1", "3"]
        found = await audit.get(conn, 3)
        assert found is not None and found.cause == "1"
        assert await audit.get(conn, 99) is None


async def test_an_entry_that_was_damaged_is_named(db: Database) -> None:
    """Instead of being shown."""
    async with db.begin() as conn:
        await conn.execute(
            insert(table).values(id=2, at=NOW, kind="order", actor="", correlation="", body=b"junk", hash="0" * 64)
        )
    async with db.read() as conn:
        with pytest.raises(OperationError, match=r"audit entry 2: .*flagship audit verify"):
            await audit.page(conn)


async def test_who_lost_the_lead_writes_no_entry(db: Database) -> None:
    """The one that started last does; the epoch stands in its entries and survives a restart."""
    other = await Database.open(db.path)
    try:
        assert await db.take_lead(NOW) == 1
        assert await other.take_lead(NOW) == 2
        with pytest.raises(LostLeadError, match="epoch 2, this one has 1"):
            async with db.begin() as conn:
                await add(conn)
        async with other.begin() as conn:
            await add(conn)
    finally:
        await other.close()
    again = await Database.open(db.path)
    try:
        async with again.begin() as conn:
            await add(conn)
        async with again.read() as conn:
            entries = await audit.page(conn)
    finally:
        await again.close()
    assert [(e.kind, e.epoch) for e in entries] == [
        ("begin", 0), ("lead", 1), ("lead", 2), ("order", 2), ("order", 2),
    ]  # fmt: skip
    assert list(check_chain(entries)) == []


async def test_counters_are_written_down_again_on_demand(db: Database) -> None:
    """After an upgrade that counts anew."""
    async with db.begin() as conn:
        await conn.execute(text("INSERT INTO counts VALUES ('r-1', 0, 'ready', 2), ('r-1', 0, 'bytes:delta', 9)"))
        assert conn.sync_connection is not None
        await conn.run_sync(lambda plain: audit.note_counts(plain, NOW, "counted anew", "db"))
    async with db.read() as conn:
        last = (await audit.page(conn, newest_first=True, limit=1))[0]
    assert (last.kind, last.figures()["counts"]) == ("recount", [["r-1", 0, "ready", 2]])


async def test_signed_heads_are_kept(db: Database) -> None:
    """The newest says how far the log is anchored."""
    async with db.read() as conn:
        assert await audit.last_signed(conn) == 0
    async with db.begin() as conn:
        for number in (3, 8):
            signed = SignedHead(fleet="f", id=number, hash="0" * 64, at=NOW + timedelta(hours=number))
            await audit.add_head(conn, signed, b"envelope")
    async with db.read() as conn:
        assert await audit.last_signed(conn) == 8
