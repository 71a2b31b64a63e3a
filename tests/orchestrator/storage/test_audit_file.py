"""The log of a file, read without serving it."""

import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import text

from orchestrator.errors import NotFoundError, OperationError
from orchestrator.model.audit import AuditKind, SignedHead
from orchestrator.storage import audit
from orchestrator.storage.audit_file import open_log
from orchestrator.storage.database import Database

NOW = datetime(2026, 11, 25, 12, 0, 0, 5, tzinfo=UTC)


async def fill(db: Database) -> None:
    """An entry, a head and a counter."""
    async with db.begin() as conn:
        await audit.append(conn, AuditKind.ORDER, at=NOW, actor="ann", cause="é", figures={"n": 1})
        await audit.add_head(conn, SignedHead(fleet="f", id=1, hash="0" * 64, at=NOW), b"signed")
        await conn.execute(text("INSERT INTO counts VALUES ('r-1', 2, 'ready', 3), ('r-1', 2, 'asking', 0)"))


async def test_it_reads_what_the_database_wrote(db: Database) -> None:
    """While it is open elsewhere; one snapshot, whatever is written meanwhile."""
    await fill(db)
    async with db.read() as conn:
        expected = await audit.page(conn)
    with open_log(db.path) as log:
        async with db.begin() as conn:
            await audit.append(conn, AuditKind.ORDER, at=NOW, actor="ann", cause="later")
        assert list(log.entries()) == [(entry, "") for entry in expected]
        assert list(log.heads()) == [b"signed"]
        assert log.counts() == {"r-1": {2: {"ready": 3}}}


async def test_it_reads_where_it_may_not_write(tmp_path: Path) -> None:
    """A copy in a folder that is read-only, and a path with signs that mean something in an address."""
    place = tmp_path / "a?b#c%20d"
    place.mkdir()
    db = await Database.open(tmp_path / "db.sqlite")
    await fill(db)
    await db.close()
    shutil.copy(tmp_path / "db.sqlite", place)
    place.chmod(0o500)
    try:
        with open_log(place / "db.sqlite") as log:
            assert len(list(log.entries())) == 2
    finally:
        place.chmod(0o700)


@pytest.mark.parametrize(
    "change",
    [
        "at = 'yesterday'", "at = '2026-11-25T12:00:00'", "at = 7", "body = x'00'", "body = 'text'", "body = 7",
        "actor = x'07'", "hash = x'07'", "epoch = 'one'",
    ],
)  # fmt: skip
async def test_a_row_of_another_form_is_handed_on_with_why(db: Database, change: str) -> None:
    """Instead of ending the reading; the others are as they were."""
    await fill(db)
    async with db.begin() as conn:
        await conn.execute(text("DROP TRIGGER audit_no_update"))
        await conn.execute(text(f"UPDATE audit SET {change} WHERE id = 1"))
    with open_log(db.path) as log:
        (first, why), (second, fine) = log.entries()
    assert first.id == 1 and why and second.id == 2 and fine == ""


async def test_what_is_no_log_is_a_sentence(db: Database, tmp_path: Path) -> None:
    """Missing, without the table, or no database."""
    with pytest.raises(NotFoundError, match="missing"), open_log(tmp_path / "nowhere"):
        pass
    async with db.begin() as conn:
        await conn.execute(text("DROP TABLE audit"))
    with open_log(db.path) as log, pytest.raises(NotFoundError, match="no audit log yet"):
        list(log.entries())
    (tmp_path / "junk").write_bytes(b"junk" * 999)
    with pytest.raises(OperationError, match="cannot be read"), open_log(tmp_path / "junk"):
        pass
