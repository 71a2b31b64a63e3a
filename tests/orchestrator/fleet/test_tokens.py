"""Named tokens: made and revoked by the admin alone, each change an event, the token itself kept nowhere."""

import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from orchestrator.errors import ConflictError, NotAllowedError, NotFoundError, UsageError
from orchestrator.fleet import tokens
from orchestrator.model.actor import ADMIN, RESERVED
from orchestrator.storage import events
from orchestrator.storage import tokens as rows
from orchestrator.storage.database import Database
from protocol.clock import ManualClock

NOW = datetime(2026, 11, 24, tzinfo=UTC)


@pytest.fixture
async def db(tmp_path: Path) -> AsyncIterator[Database]:
    """An empty database."""
    database = await Database.open(tmp_path / "db.sqlite")
    yield database
    await database.close()


async def happened(db: Database) -> list[tuple[str, str, str]]:
    """(kind, actor, text) of every event."""
    async with db.read() as conn:
        return [(event["kind"], event["actor"], event["text"]) for event in await events.page(conn)]


async def test_a_token_is_made_and_only_its_digest_is_kept(db: Database) -> None:
    """256 random bits behind the prefix; no file of the database holds them, nor does a printed result."""
    made = await tokens.create(db, ManualClock(NOW), "anna", actor=ADMIN)
    other = await tokens.create(db, ManualClock(NOW), "ben", actor=ADMIN)
    assert re.fullmatch(r"flt_[A-Za-z0-9_-]{43}", made.secret)
    assert made.secret != other.secret
    async with db.read() as conn:
        kept = await rows.live(conn, tokens.digest(made.secret.encode()))
    assert kept == made.token
    assert (made.token.created_by, made.token.created_at, made.token.revoked_at) == (ADMIN, NOW, None)
    files = list(db.path.parent.glob(f"{db.path.name}*"))
    assert len(files) > 1  # the write-ahead log too
    assert all(made.secret.encode() not in file.read_bytes() for file in files)
    assert made.secret not in f"{made} {made!r} {made.token}"


async def test_what_was_done_with_tokens_stands_in_the_events(db: Database) -> None:
    """A second revocation changes nothing and is no event; a revoked name gets a new token and stays one actor."""
    clock = ManualClock(NOW)
    first = await tokens.create(db, clock, "anna", actor=ADMIN)
    revoked = await tokens.revoke(db, clock, "anna", actor=ADMIN)
    clock.advance(60)
    assert await tokens.revoke(db, clock, "anna", actor=ADMIN) == revoked
    assert revoked.revoked_at == NOW
    second = await tokens.create(db, clock, "anna", actor=ADMIN)
    assert second.secret != first.secret
    assert await happened(db) == [
        ("token_created", ADMIN, "anna: token created"),
        ("token_revoked", ADMIN, "anna: token revoked"),
        ("token_created", ADMIN, "anna: token created in place of the revoked one"),
    ]


@pytest.mark.parametrize("name", [*sorted(RESERVED), "Admin", "ENGINE"])
async def test_nobody_poses_as_an_actor_of_the_system(db: Database, name: str) -> None:
    """In capitals neither."""
    with pytest.raises(UsageError, match="the name is reserved"):
        await tokens.create(db, ManualClock(NOW), name, actor=ADMIN)
    assert await happened(db) == []


async def test_a_token_in_place_of_a_name_is_not_said_back(db: Database) -> None:
    """Somebody pasted the wrong thing: it must not come into a log by our sentence."""
    with pytest.raises(UsageError) as caught:
        await tokens.create(db, ManualClock(NOW), "flt_abcdefgh", actor=ADMIN)
    assert "abcdefgh" not in str(caught.value)


@pytest.mark.parametrize(("name", "sentence"), [("anna", "revoke it with"), ("ANNA", "there is anna, which people")])
async def test_a_name_has_one_token(db: Database, name: str, sentence: str) -> None:
    """Two tokens under names that look alike would pass for four eyes."""
    made = await tokens.create(db, ManualClock(NOW), "anna", actor=ADMIN)
    with pytest.raises(ConflictError, match=sentence):
        await tokens.create(db, ManualClock(NOW), name, actor=ADMIN)
    async with db.read() as conn:
        assert await rows.page(conn) == [made.token]


async def test_a_revoked_name_blocks_one_that_looks_alike(db: Database) -> None:
    """Its events are still there to be mistaken."""
    await tokens.create(db, ManualClock(NOW), "anna", actor=ADMIN)
    await tokens.revoke(db, ManualClock(NOW), "anna", actor=ADMIN)
    with pytest.raises(ConflictError, match="there is anna"):
        await tokens.create(db, ManualClock(NOW), "Anna", actor=ADMIN)


async def test_only_the_admin_makes_and_revokes(db: Database) -> None:
    """Whoever has a name can neither make himself a second one nor lock out another; nothing is changed."""
    made = await tokens.create(db, ManualClock(NOW), "anna", actor=ADMIN)
    before = await happened(db)
    for change in (
        tokens.create(db, ManualClock(NOW), "anna2", actor="anna"),
        tokens.revoke(db, ManualClock(NOW), "anna", actor="anna"),
        tokens.revoke(db, ManualClock(NOW), "nobody", actor="operator"),
    ):
        with pytest.raises(NotAllowedError, match="only the home's admin token") as caught:
            await change
        assert caught.value.exit_code == 4
    async with db.read() as conn:
        assert await rows.page(conn) == [made.token]
    assert await happened(db) == before


async def test_a_token_that_is_not_there(db: Database) -> None:
    """The sentence says where to look."""
    with pytest.raises(NotFoundError, match="flagship token list"):
        await tokens.revoke(db, ManualClock(NOW), "anna", actor=ADMIN)
