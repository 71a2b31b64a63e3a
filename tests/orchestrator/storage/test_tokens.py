"""Named tokens in the database: found by digest while they are good, kept by name for ever."""

from datetime import UTC, datetime, timedelta

import pytest

from orchestrator.errors import ConflictError
from orchestrator.storage import tokens
from orchestrator.storage.database import Database
from orchestrator.storage.tokens import Token

NOW = datetime(2026, 11, 24, tzinfo=UTC)
LATER = NOW + timedelta(hours=1)


def token(name: str, digit: str = "a") -> Token:
    """A row."""
    return Token(name=name, sha256=digit * 64, created_at=NOW, created_by="admin")


async def test_a_token_is_found_by_its_digest_until_it_is_revoked(db: Database) -> None:
    """Revoking takes one token and leaves the others; the name stays."""
    anna, ben = token("anna"), token("ben", "b")
    async with db.begin() as conn:
        await tokens.put(conn, anna)
        await tokens.put(conn, ben)
        assert await tokens.live(conn, "a" * 64) == anna
        assert await tokens.live(conn, "c" * 64) is None
        await tokens.revoke(conn, "anna", LATER)
        assert await tokens.live(conn, "a" * 64) is None
        assert await tokens.live(conn, "b" * 64) == ben
        kept = await tokens.get(conn, "anna")
    assert kept is not None and kept.revoked_at == LATER


async def test_a_name_gets_a_new_token_in_place_of_its_former_one(db: Database) -> None:
    """The former digest opens nothing, and nothing of its life is left over."""
    async with db.begin() as conn:
        await tokens.put(conn, token("anna"))
        await tokens.note_use(conn, "a" * 64, LATER)
        await tokens.revoke(conn, "anna", LATER)
        await tokens.put(conn, token("anna", "b"))
        assert await tokens.live(conn, "a" * 64) is None
        assert await tokens.live(conn, "b" * 64) == token("anna", "b")
        assert len(await tokens.page(conn)) == 1


async def test_names_that_differ_in_capitals_are_alike(db: Database) -> None:
    """An exact look-up still tells them apart."""
    async with db.begin() as conn:
        await tokens.put(conn, token("Anna"))
        assert await tokens.alike(conn, "aNNa") == token("Anna")
        assert await tokens.alike(conn, "ann") is None
        assert await tokens.get(conn, "anna") is None


async def test_two_names_never_share_a_token(db: Database) -> None:
    """A digest names one actor."""
    with pytest.raises(ConflictError):
        async with db.begin() as conn:
            await tokens.put(conn, token("anna"))
            await tokens.put(conn, token("ben"))


async def test_pages_and_use(db: Database) -> None:
    """Pages begin behind the cursor, by name; use is written down."""
    async with db.begin() as conn:
        for name, digit in (("c", "c"), ("a", "a"), ("b", "b")):
            await tokens.put(conn, token(name, digit))
        await tokens.note_use(conn, "b" * 64, LATER)
        assert [one.name for one in await tokens.page(conn, limit=2)] == ["a", "b"]
        assert [one.last_used_at for one in await tokens.page(conn, after="a")] == [LATER, None]
