"""What happened, in order."""

from datetime import UTC, datetime

from orchestrator.storage import events
from orchestrator.storage.database import Database

NOW = datetime(2026, 11, 24, tzinfo=UTC)


async def test_events_are_read_in_order(db: Database) -> None:
    """Of all, of a rollout, of a device; from behind one that is known."""
    async with db.begin() as conn:
        await events.add(conn, "one", "first", NOW, rollout="r-1")
        await events.add(conn, "two", "second", NOW, rollout="r-1", device="d1", data={"n": 1})
        await events.add(conn, "three", "third", NOW, device="d1", actor="operator")
        found = await events.page(conn)
        assert [event["kind"] for event in found] == ["one", "two", "three"]
        assert found[1]["data"] == {"n": 1}
        assert [event["actor"] for event in found] == ["engine", "engine", "operator"]
        assert [e["kind"] for e in await events.page(conn, rollout="r-1", after=found[0]["id"])] == ["two"]
        assert [e["kind"] for e in await events.page(conn, device="d1", limit=1)] == ["two"]
