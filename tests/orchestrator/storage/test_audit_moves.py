"""Moves of assignments in the audit log."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from orchestrator.model.assignment import OFFERED, Assignment
from orchestrator.model.audit import AuditEntry, AuditKind, check_chain
from orchestrator.model.audit_counts import MOVES_PER_ENTRY, Recount
from orchestrator.storage import assignments, audit
from orchestrator.storage.database import Database

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)


def rows(count: int) -> list[Assignment]:
    """Places in r-1."""
    return [Assignment(rollout="r-1", device=f"d{n}", stage=n % 2, place=n) for n in range(count)]


async def entries_of(db: Database) -> list[AuditEntry]:
    """All of the log behind its first entry."""
    async with db.read() as conn:
        found = await audit.page(conn, limit=1000)
    assert list(check_chain(found)) == []
    return found[1:]


async def test_every_way_to_write_is_logged(db: Database) -> None:
    """Who joins and who moves, so that the counters follow from the log."""
    places = rows(4)
    async with db.begin() as conn:
        await assignments.insert_all(conn, places)
    at = NOW + timedelta(seconds=1)
    changes = [(row, replace(row, state=OFFERED, offered_at=at, updated_at=at)) for row in places[:2]]
    async with db.begin() as conn:
        await assignments.save_all(conn, changes)
    joined, moved = await entries_of(db)
    assert (joined.rollout, len(joined.figures()["moves"])) == ("r-1", 4)
    assert (moved.at, moved.actor, moved.cause) == (at, "devices", "as devices reported")
    assert moved.figures()["moves"][0] == ["r-1", 0, "d0", ["state:pending"], ["offered", "state:offered"]]
    recount = Recount()
    for entry in (joined, moved):
        recount.follow(entry)
    async with db.read() as conn:
        assert recount.of("r-1") == await assignments.load_counts(conn, "r-1")


async def test_what_counts_as_before_is_not_logged(db: Database) -> None:
    """Progress of a million devices is no news for the log."""
    (place,) = rows(1)
    async with db.begin() as conn:
        await assignments.insert_all(conn, [place])
        await assignments.save_all(conn, [(place, replace(place, percent=3.0, bytes_fetched=3))])
    assert len(await entries_of(db)) == 1


async def test_moves_say_why_with_the_entry_that_they_follow(db: Database) -> None:
    """An order and what it moved have one actor, cause and correlation id; what is said goes before it."""
    (place,) = rows(1)
    async with db.begin() as conn:
        await audit.append(conn, AuditKind.ORDER, at=NOW, actor="ann", cause="created", rollout="r-1")
        await assignments.insert_all(conn, [place])
        change = (place, replace(place, ready=True))
        await assignments.save_all(conn, [change], now=NOW + timedelta(hours=1), actor="bob", cause="said so")
    order, joined, moved = await entries_of(db)
    assert (joined.actor, joined.cause, joined.at) == ("ann", "created", NOW)
    assert (moved.actor, moved.cause, moved.at, moved.device) == ("bob", "said so", NOW + timedelta(hours=1), "d0")
    assert order.correlation == joined.correlation == moved.correlation


async def test_many_moves_are_several_entries(db: Database) -> None:
    """So that reading them needs little memory, however large a fleet is."""
    async with db.begin() as conn:
        await assignments.insert_all(conn, rows(MOVES_PER_ENTRY + 1))
    assert [len(entry.figures()["moves"]) for entry in await entries_of(db)] == [MOVES_PER_ENTRY, 1]
