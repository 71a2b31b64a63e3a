"""From a token to a name, over a real database: closed at once by a revocation, bounded for guesses, no secret told."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine
from structlog.testing import capture_logs

from orchestrator.errors import OperationError
from orchestrator.fleet import tokens
from orchestrator.model.actor import ADMIN
from orchestrator.storage import tokens as rows
from orchestrator.storage.database import Database, T, Work
from orchestrator.web.actors import KNOWN_FOR_S, Actors, Unknown
from orchestrator.web.failure_limit import MAX_FAILURES, WINDOW_S
from protocol.clock import ManualClock

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
HOME_TOKEN = "the-token-of-the-home"


class SlowDatabase(Database):
    """A real one whose answers can be held back."""

    def __init__(self, path: Path, engine: AsyncEngine) -> None:
        super().__init__(path, engine)
        self.looked, self.gate = asyncio.Event(), asyncio.Event()
        self.gate.set()

    async def look(self, work: Work[T]) -> T:
        """Read, then wait for the gate."""
        found = await super().look(work)
        self.looked.set()
        await asyncio.wait_for(self.gate.wait(), 10)
        return found


@dataclass
class Desk:
    """Actors and what they stand on."""

    db: SlowDatabase
    clock: ManualClock
    actors: Actors

    async def make(self, name: str) -> str:
        """A new token."""
        return (await tokens.create(self.db, self.clock, name, actor=ADMIN)).secret

    async def revoke(self, name: str) -> None:
        """As the route does."""
        self.actors.forget((await tokens.revoke(self.db, self.clock, name, actor=ADMIN)).sha256)

    async def who(self, secret: str, address: str = "127.0.0.1") -> str | int:
        """A name, or the status of the refusal."""
        found = await self.actors.recognise(f"Bearer {secret}", address)
        return found.status if isinstance(found, Unknown) else found


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    """Nobody has a token but the home."""
    db, clock = await SlowDatabase.open(tmp_path / "db.sqlite"), ManualClock(NOW)
    assert isinstance(db, SlowDatabase)
    yield Desk(db, clock, Actors(db, clock, HOME_TOKEN))
    await db.close()


async def test_every_token_has_its_name(desk: Desk) -> None:
    """The home's is the admin's; nobody's is nobody's."""
    anna, ben = await desk.make("anna"), await desk.make("ben")
    assert [await desk.who(secret) for secret in (HOME_TOKEN, anna, ben, anna)] == [ADMIN, "anna", "ben", "anna"]
    digest = tokens.digest(anna.encode())
    for wrong in ("", "x", anna[:-1], anna + "x", anna.upper(), digest, HOME_TOKEN + "x"):
        assert await desk.who(wrong) == 401


@pytest.mark.parametrize("words", ["", "Basic {}", "{}", "Bearer", "Bearer\t{}x"])
async def test_only_a_bearer_has_a_name(desk: Desk, words: str) -> None:
    """Without a token nothing is counted: it is no guess."""
    for _ in range(2 * MAX_FAILURES):
        found = await desk.actors.recognise(words.format(HOME_TOKEN), "127.0.0.1")
        assert isinstance(found, Unknown) and found.status == 401
    assert await desk.who(HOME_TOKEN) == ADMIN


async def test_a_revoked_token_is_refused_at_once(desk: Desk) -> None:
    """Though it was known a moment ago; its successor opens, and it stays closed."""
    anna, ben = await desk.make("anna"), await desk.make("ben")
    assert (await desk.who(anna), await desk.who(ben)) == ("anna", "ben")
    await desk.revoke("anna")
    assert (await desk.who(anna), await desk.who(ben)) == (401, "ben")
    again = await desk.make("anna")
    assert (await desk.who(again), await desk.who(anna)) == ("anna", 401)


async def test_a_look_up_that_is_overtaken_by_a_revocation_is_not_kept(desk: Desk) -> None:
    """Who was let in just before it is not let in after it."""
    anna = await desk.make("anna")
    desk.db.gate.clear()
    early = asyncio.create_task(desk.who(anna))
    await asyncio.wait_for(desk.db.looked.wait(), 10)
    await desk.revoke("anna")
    desk.db.gate.set()
    assert await early == "anna"
    assert await desk.who(anna) == 401


async def test_a_known_token_costs_no_query(desk: Desk) -> None:
    """For some seconds; a database that is gone is noticed then, and the home's token needs none."""
    anna = await desk.make("anna")
    assert await desk.who(anna) == "anna"
    desk.db.path.rename(desk.db.path.with_suffix(".away"))
    desk.db.path.mkdir()  # nothing can open it
    await desk.db.close()
    desk.clock.advance(KNOWN_FOR_S - 1)
    assert await desk.who(anna) == "anna"
    desk.clock.advance(1)
    with pytest.raises(OperationError):
        await desk.who(anna)
    assert await desk.who(HOME_TOKEN) == ADMIN


async def test_use_is_written_down_once_an_hour(desk: Desk) -> None:
    """So that an admin sees which tokens nobody needs."""
    anna = await desk.make("anna")
    seen = []
    for minutes in (0, 59, 1, 59):
        desk.clock.advance(60 * minutes)
        assert await desk.who(anna) == "anna"
        async with desk.db.read() as conn:
            token = await rows.get(conn, "anna")
        assert token is not None and token.last_used_at is not None
        seen.append((token.last_used_at - NOW).total_seconds() / 60)
    assert seen == [0, 0, 60, 60]


async def test_guessers_wait(desk: Desk) -> None:
    """All at once or one by one; other addresses and tokens that opened before do not wait with them."""
    anna, ben = await desk.make("anna"), await desk.make("ben")
    assert await desk.who(anna) == "anna"
    guesses = [desk.who(f"guess-{n}") for n in range(3 * MAX_FAILURES)]
    verdicts = await asyncio.gather(*guesses)
    assert (verdicts.count(401), verdicts.count(429)) == (MAX_FAILURES, 2 * MAX_FAILURES)
    desk.clock.advance(KNOWN_FOR_S)
    assert [await desk.who(secret) for secret in (anna, ben, HOME_TOKEN)] == ["anna", 429, 429]
    assert [await desk.who(secret, "::1") for secret in (ben, HOME_TOKEN)] == ["ben", ADMIN]
    waiting = await desk.actors.recognise("Bearer new", "127.0.0.1")
    assert isinstance(waiting, Unknown)
    assert waiting.headers == {"Retry-After": f"{WINDOW_S - KNOWN_FOR_S:.0f}"}
    assert "try again in 55 s" in waiting.detail
    await desk.revoke("anna")
    assert await desk.who(anna) == 429  # one like the others now
    desk.clock.advance(WINDOW_S - KNOWN_FOR_S)
    assert [await desk.who(secret) for secret in ("new", anna, ben)] == [401, 401, "ben"]


async def test_a_client_with_a_revoked_token_locks_nobody_out(desk: Desk) -> None:
    """It asks every second; a person at the same machine comes in for the first time."""
    stale, ben = await desk.make("stale"), await desk.make("ben")
    await desk.revoke("stale")
    assert {await desk.who(stale) for _ in range(5 * MAX_FAILURES)} == {401}
    assert await desk.who(ben) == "ben"


async def test_logs_and_refusals_hold_no_token(desk: Desk) -> None:
    """Right, wrong or revoked; a wrong one has one line with where it came from."""
    anna = await desk.make("anna")
    with capture_logs() as logs:
        said = [str(await desk.actors.recognise(f"Bearer {anna}", "127.0.0.1"))]
        await desk.revoke("anna")
        wrong = (anna, "flt_wrong", "flt_wrong", HOME_TOKEN)
        said += [str(await desk.actors.recognise(f"Bearer {secret}", "192.0.2.7")) for secret in wrong]
    assert [line["address"] for line in logs if line["event"] == "wrong token refused"] == ["192.0.2.7"] * 2
    for secret in (anna, "flt_wrong", HOME_TOKEN):
        assert secret not in f"{logs} {said}"
        assert tokens.digest(secret.encode()) not in f"{logs} {said}"
