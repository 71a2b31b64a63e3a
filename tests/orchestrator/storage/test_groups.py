"""Groups of devices in rows."""

from datetime import UTC, datetime

from orchestrator.storage import groups
from orchestrator.storage.database import Database

NOW = datetime(2026, 11, 24, tzinfo=UTC)


async def test_members_of_groups(db: Database) -> None:
    """Members in order; putting one in twice is nothing, taking out who is not in says so."""
    async with db.begin() as conn:
        await groups.insert_group(conn, "canary", NOW)
        await groups.insert_group(conn, "empty", NOW)
        await groups.add_members(conn, "canary", ["b", "a"])
        await groups.add_members(conn, "canary", ["a"])
        assert await groups.members(conn, "canary") == ["a", "b"]
        assert await groups.sizes(conn) == {"canary": 2, "empty": 0}
        assert await groups.of_device(conn, "a") == ["canary"]
        assert await groups.remove_member(conn, "canary", "a")
        assert not await groups.remove_member(conn, "canary", "a")
        assert (await groups.exists(conn, "canary"), await groups.exists(conn, "night")) == (True, False)


async def test_many_groups_at_once(db: Database) -> None:
    """Which there are, and who of some devices is in which."""
    async with db.begin() as conn:
        for name, ids in (("a", ["d1", "d2"]), ("b", ["d2"]), ("c", ["d1"])):
            await groups.insert_group(conn, name, NOW)
            await groups.add_members(conn, name, ids)
        assert await groups.existing(conn, ["a", "zz", "b"]) == {"a", "b"}
        found = await groups.members_among(conn, ["a", "b"], ["d2", "d3"])
        assert found == {"a": frozenset({"d2"}), "b": frozenset({"d2"})}
