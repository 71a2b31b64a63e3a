"""What the reference says of the audit log holds for a real one."""

import re
import sqlite3
import textwrap
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from orchestrator.model.audit import AuditKind
from orchestrator.storage import audit
from orchestrator.storage.database import Database

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "audit.md"


def by_hand(database: Path) -> None:
    """The page's own lines of Python, without Flagship."""
    found = re.search(r"^    import hashlib.*?(?=^\S|\Z)", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert found
    code = textwrap.dedent(found[0]).replace('"flagship.sqlite"', repr(str(database)))
    exec(compile(code, str(PAGE), "exec"), {})


@pytest.mark.filterwarnings("ignore:unclosed database:ResourceWarning")
async def test_a_person_verifies_the_chain_by_hand(tmp_path: Path) -> None:
    """Whatever signs stand in it; a changed entry stops it at its number."""
    db = await Database.open(tmp_path / "db.sqlite")
    async with db.begin() as conn:
        for cause in ("plain", 'é "\u20ac" \\ \n'):
            at = datetime.now(UTC)
            await audit.append(conn, AuditKind.ORDER, at=at, actor="ann", cause=cause, figures={"ü": 1.5})
    await db.close()
    by_hand(db.path)
    with closing(sqlite3.connect(db.path)) as conn:
        conn.execute("DROP TRIGGER audit_no_update")
        conn.execute("UPDATE audit SET actor = 'eve' WHERE id = 2")
        conn.commit()
    with pytest.raises(AssertionError, match="2"):
        by_hand(db.path)


def test_every_kind_is_described() -> None:
    """In the page's table."""
    assert [kind for kind in AuditKind if f"| `{kind}` |" not in PAGE.read_text()] == []
