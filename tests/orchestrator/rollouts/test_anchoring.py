"""The end of the log is signed and kept."""

import asyncio
from pathlib import Path

import pytest

from orchestrator.config import Home, Settings
from orchestrator.errors import ConflictError, LostLeadError, SignerAwayError
from orchestrator.model.audit import AuditKind
from orchestrator.rollouts import anchoring
from orchestrator.rollouts.anchoring import Anchor, read_head
from orchestrator.rollouts.head_claims import claims_of
from orchestrator.signer.signer import Signer
from orchestrator.storage import audit, events
from orchestrator.storage.audit_file import open_log
from orchestrator.storage.database import Database
from tests.orchestrator.delivery.lab import make_keys
from tests.orchestrator.rollouts.yard import NOW, Yard

DEADLINE_S = 10.0


@pytest.fixture
def signer(tmp_path: Path, yard: Yard) -> Signer:
    """A real one."""
    home = Home(tmp_path)
    make_keys(home)
    return Signer.open(home, Settings(fleet="north"), yard.clock)


async def add(db: Database) -> int:
    """One more entry; its number."""
    async with db.begin() as conn:
        return (await audit.append(conn, AuditKind.ORDER, at=NOW, actor="ann", cause="because")).id


def kept(db: Database) -> list[bytes]:
    """Every signed head."""
    with open_log(db.path) as log:
        return list(log.heads())


async def until_kept(db: Database, entry: int) -> None:
    """Wait until a head over this entry is there."""
    async with asyncio.timeout(DEADLINE_S):
        while entry not in {read_head(envelope).id for envelope in kept(db)}:
            await asyncio.sleep(0.01)


async def test_the_end_is_signed_once(yard: Yard, signer: Signer) -> None:
    """Again when something was added; each head names the one before it."""
    anchor = Anchor(yard.db, signer, yard.clock, 3600)
    first = await anchor.sign()
    assert first is not None and await anchor.sign() is None
    number = await add(yard.db)
    second = await anchor.sign()
    assert second is not None and (second.id, second.former_id, second.former_hash) == (number, first.id, first.hash)
    assert [read_head(envelope) for envelope in kept(yard.db)] == [first, second]


async def test_it_is_signed_at_once_when_it_is_woken(yard: Yard, signer: Signer) -> None:
    """Without waiting for the hour."""
    anchor = Anchor(yard.db, signer, yard.clock, 3600)
    running = asyncio.create_task(anchor.run())
    try:
        await until_kept(yard.db, 1)
        number = await add(yard.db)
        anchor.wake()
        await until_kept(yard.db, number)
    finally:
        running.cancel()
        await asyncio.wait({running})


async def test_a_signer_that_is_away_is_asked_again(
    yard: Yard, signer: Signer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Soon, however long the interval is."""
    monkeypatch.setattr(anchoring, "RETRY_S", 0.01)
    calls = []

    class Away:
        """Answers the second time."""

        def sign_head(self, entry: int, digest: str) -> bytes:
            """Fail, then sign."""
            calls.append(entry)
            if len(calls) == 1:
                raise SignerAwayError("signer: nobody listens there")
            return signer.sign_head(entry, digest)

    running = asyncio.create_task(Anchor(yard.db, Away(), yard.clock, 3600).run())
    try:
        await until_kept(yard.db, 1)
    finally:
        running.cancel()
        await asyncio.wait({running})
    assert calls == [1, 1]


async def test_who_lost_the_lead_keeps_no_head(yard: Yard, signer: Signer) -> None:
    """It ends instead of trying on."""
    other = await Database.open(yard.db.path)
    try:
        await other.take_lead(NOW)
    finally:
        await other.close()
    with pytest.raises(LostLeadError):
        async with asyncio.timeout(DEADLINE_S):
            await Anchor(yard.db, signer, yard.clock, 3600).run()
    assert kept(yard.db) == []


async def test_a_log_that_was_written_anew_is_not_signed(yard: Yard, signer: Signer) -> None:
    """The signer remembers the hash that it signed."""
    signer.sign_head(1, "f" * 64)
    with pytest.raises(ConflictError, match="written anew"):
        await Anchor(yard.db, signer, yard.clock, 3600).sign()


async def test_a_refusal_is_an_event(yard: Yard, signer: Signer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once, however often it is tried."""
    monkeypatch.setattr(anchoring, "RETRY_S", 0.01)
    signer.sign_head(1, "f" * 64)
    tries = []

    class Counted:
        """Counts what the signer is asked."""

        def sign_head(self, entry: int, digest: str) -> bytes:
            """Ask it."""
            tries.append(entry)
            return signer.sign_head(entry, digest)

    running = asyncio.create_task(Anchor(yard.db, Counted(), yard.clock, 3600).run())
    try:
        async with asyncio.timeout(DEADLINE_S):
            while len(tries) < 4:
                await asyncio.sleep(0.01)
    finally:
        running.cancel()
        await asyncio.wait({running})
    async with yard.db.read() as conn:
        told = [event for event in await events.page(conn) if event["kind"] == "audit_head_refused"]
    assert len(told) == 1 and "written anew" in told[0]["text"]


async def test_heads_hold_by_a_listed_director_alone(yard: Yard, signer: Signer) -> None:
    """What another key signed, what was changed and what is another fleet's is a problem, and claims nothing."""
    await Anchor(yard.db, signer, yard.clock, 3600).sign()
    (envelope,) = kept(yard.db)
    key = signer._keys.director.public_key
    heads, claims, problems = claims_of([envelope], {key.keyid: key}, "north")
    assert ([head.id for head in heads], [claim.entry for claim in claims], problems) == ([1], [1, 0], [])
    for wrong, keys, fleet in (
        (envelope, {}, "north"),
        (envelope, {key.keyid: key}, "south"),
        (envelope.replace(b'"payload":"ey', b'"payload":"eY'), {key.keyid: key}, "north"),
        (b"junk", {key.keyid: key}, "north"),
    ):
        heads, claims, problems = claims_of([wrong], keys, fleet)
        assert (heads, claims, len(problems)) == ([], [], 1)
