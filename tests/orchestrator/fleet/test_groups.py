"""Groups: each change holds for all named devices or for none."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from orchestrator.errors import ConflictError, NotFoundError
from orchestrator.fleet import groups
from orchestrator.model.device import Device
from orchestrator.storage import devices
from orchestrator.storage import groups as group_store
from orchestrator.storage.database import Database
from protocol.clock import ManualClock

NOW = datetime(2026, 11, 24, tzinfo=UTC)


@pytest.fixture
async def db(tmp_path: Path) -> AsyncIterator[Database]:
    """A database with d1, d2 and d3."""
    database = await Database.open(tmp_path / "db.sqlite")
    async with database.begin() as conn:
        for name in ("d1", "d2", "d3"):
            device = Device(id=name, product="gateway", hardware="rev-a", enrolled_at=NOW)
            await devices.insert(conn, device, report_key={}, content_key="")
    yield database
    await database.close()


async def members(db: Database, name: str) -> list[str]:
    """Members of a group."""
    async with db.read() as conn:
        return await group_store.members(conn, name)


async def test_a_group_is_made_filled_and_emptied(db: Database) -> None:
    """Every verb answers with the members, in order; putting in who is in is nothing."""
    assert await groups.create(db, ManualClock(NOW), "canary", ["d2"]) == ["d2"]
    assert await groups.add(db, ManualClock(NOW), "canary", ["d3", "d1", "d2"]) == ["d1", "d2", "d3"]
    assert await groups.remove(db, ManualClock(NOW), "canary", ["d1", "d3"]) == ["d2"]
    assert await members(db, "canary") == ["d2"]
    assert await groups.create(db, ManualClock(NOW), "empty", []) == []


async def test_one_unknown_device_spoils_the_whole_change(db: Database) -> None:
    """No group is made, nobody is put in or taken out; the sentence names some of the unknown."""
    unknown = "devices d7, d8, d9, ...: not enrolled"
    with pytest.raises(NotFoundError, match=unknown):
        await groups.create(db, ManualClock(NOW), "canary", ["d1", "d9", "d8", "d7", "d99"])
    assert await members(db, "canary") == []
    with pytest.raises(NotFoundError, match="group canary: there is none"):
        await groups.add(db, ManualClock(NOW), "canary", ["d1"])
    await groups.create(db, ManualClock(NOW), "canary", ["d1", "d2"])
    with pytest.raises(NotFoundError, match="devices d9: not enrolled"):
        await groups.add(db, ManualClock(NOW), "canary", ["d3", "d9"])
    with pytest.raises(NotFoundError, match="device d3 is not in it; nothing was changed"):
        await groups.remove(db, ManualClock(NOW), "canary", ["d1", "d3"])
    assert await members(db, "canary") == ["d1", "d2"]


async def test_a_name_is_taken_once(db: Database) -> None:
    """The second group is refused, and the first keeps its members."""
    await groups.create(db, ManualClock(NOW), "canary", ["d1"])
    with pytest.raises(ConflictError, match="group canary: exists already"):
        await groups.create(db, ManualClock(NOW), "canary", ["d2"])
    assert await members(db, "canary") == ["d1"]


async def test_a_group_that_is_not_there(db: Database) -> None:
    """The sentence says where to look."""
    for change in (
        groups.add(db, ManualClock(NOW), "night", ["d1"]),
        groups.remove(db, ManualClock(NOW), "night", ["d1"]),
    ):
        with pytest.raises(NotFoundError, match="group night: there is none; see 'flagship group list'"):
            await change
