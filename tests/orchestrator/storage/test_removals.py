"""What was cleared on a broker stands under a serial of its own, as long as it matters."""

from datetime import UTC, datetime, timedelta

from orchestrator.storage import published, removals
from orchestrator.storage.database import Database
from orchestrator.storage.published import Publication
from protocol.topics import Kind

NOW = datetime(2026, 11, 24, tzinfo=UTC)


def _item(topic: str) -> Publication:
    return Publication(kind=Kind.OFFER, topic=topic, digest="0" * 64)


async def test_a_removal_has_a_later_serial_than_what_it_removed(db: Database) -> None:
    """So a marker from between the two says that the topic is still there."""
    async with db.begin() as conn:
        between = await published.record(conn, "main", [_item("a"), _item("b")])
        await removals.cleared(conn, "main", [_item("a")], NOW)
        assert await published.get(conn, "main", "a") is None
        assert await published.last_serial(conn, "main") == between + 1
        assert await removals.later(conn, "main", after=between, limit=9) == [(between + 1, Kind.OFFER, "a")]
        assert await removals.later(conn, "main", after=between + 1, limit=9) == []
        assert await removals.later(conn, "other", after=0, limit=9) == []
        assert await published.record(conn, "main", [_item("c")]) == between + 2


async def test_what_was_published_again_is_not_cleared(db: Database) -> None:
    """Its newest bytes would be gone."""
    async with db.begin() as conn:
        await published.record(conn, "main", [_item("a")])
        await removals.cleared(conn, "main", [_item("a")], NOW)
        await published.record(conn, "main", [_item("a")])
        assert await removals.later(conn, "main", after=0, limit=9) == []


async def test_they_are_kept_for_a_time_and_within_a_number(db: Database) -> None:
    """The newest ones stay."""
    async with db.begin() as conn:
        for number in range(6):
            await removals.cleared(conn, "main", [_item(f"t{number}")], NOW + timedelta(days=number))
        await removals.trim(conn, "main", NOW + timedelta(days=1))
        left = [topic for _, _, topic in await removals.later(conn, "main", after=0, limit=9)]
        assert left == ["t1", "t2", "t3", "t4", "t5"]
        await removals.trim(conn, "main", NOW, most=2)
        assert [topic for _, _, topic in await removals.later(conn, "main", after=0, limit=9)] == ["t4", "t5"]
        await removals.trim(conn, "main", NOW, most=2)
        assert len(await removals.later(conn, "main", after=0, limit=9)) == 2
