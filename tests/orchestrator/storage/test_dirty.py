"""Marks of topics: none is lost, also when a topic changes while it is being published."""

from datetime import UTC, datetime, timedelta

from orchestrator.storage import dirty
from orchestrator.storage.database import Database
from protocol.topics import Kind

NOW = datetime(2026, 11, 24, tzinfo=UTC)
SECOND = timedelta(seconds=1)


async def test_ten_changes_are_one_mark(db: Database) -> None:
    """Of one topic; kinds are apart."""
    async with db.begin() as conn:
        for _ in range(10):
            await dirty.mark(conn, Kind.OFFER, ["d1/r-1", "d1/r-1"], NOW)
        await dirty.mark(conn, Kind.ANNOUNCE, ["r-1"], NOW)
        assert [key for _, key, _ in await dirty.take(conn, "main", [Kind.OFFER], 10)] == [dirty.offer_key("d1", "r-1")]
        assert [(kind, key) for kind, key, _ in await dirty.take(conn, "main", [Kind.ANNOUNCE, Kind.OFFER], 10)] == [
            (Kind.ANNOUNCE, "r-1"),
            (Kind.OFFER, "d1/r-1"),
        ]


async def test_a_change_while_it_is_published_stays_marked(db: Database) -> None:
    """Also within one tick of the clock, and when the clock went back."""
    for now in (NOW, NOW + SECOND, NOW - SECOND):
        async with db.begin() as conn:
            await dirty.mark(conn, Kind.ANNOUNCE, ["r-1"], NOW)
            taken = await dirty.take(conn, "main", [Kind.ANNOUNCE], 10)
            await dirty.mark(conn, Kind.ANNOUNCE, ["r-1"], now)
            await dirty.done(conn, "main", taken)
            again = await dirty.take(conn, "main", [Kind.ANNOUNCE], 10)
            assert [key for _, key, _ in again] == ["r-1"]
            await dirty.done(conn, "main", again)
            assert await dirty.take(conn, "main", [Kind.ANNOUNCE], 10) == []


async def test_the_oldest_come_first_and_no_more_than_asked(db: Database) -> None:
    """In the order of kinds that is given."""
    async with db.begin() as conn:
        for number in range(5):
            await dirty.mark(conn, Kind.OFFER, [f"d{number}/r-1"], NOW - number * SECOND)
        await dirty.mark(conn, Kind.ANNOUNCE, ["r-1"], NOW + SECOND)
        taken = await dirty.take(conn, "main", [Kind.ANNOUNCE, Kind.OFFER], 3)
    assert [key for _, key, _ in taken] == ["r-1", "d4/r-1", "d3/r-1"]


async def test_many_at_once(db: Database) -> None:
    """More than one statement takes; nothing to mark and nothing done are fine."""
    keys = [f"d{number}/r-1" for number in range(1201)]
    async with db.begin() as conn:
        await dirty.mark(conn, Kind.OFFER, keys, NOW)
        await dirty.mark(conn, Kind.OFFER, keys, NOW)
        await dirty.mark(conn, Kind.OFFER, [], NOW)
        await dirty.done(conn, "main", [])
        taken = await dirty.take(conn, "main", [Kind.OFFER], 2000)
        assert len(taken) == len(keys)
        await dirty.done(conn, "main", taken)
        assert await dirty.take(conn, "main", [Kind.OFFER], 10) == []
