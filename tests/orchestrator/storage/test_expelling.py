"""Closed devices on their way out: each broker says so, the last one completes it."""

from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import Select, select

from orchestrator.model.device import Device, DeviceState
from orchestrator.storage import brokers, devices, expelling
from orchestrator.storage.database import Database
from orchestrator.storage.tables import devices as table
from protocol.topics import Topics

NOW = datetime(2026, 11, 24, tzinfo=UTC)
TOPICS = Topics("fleet")


async def _use(db: Database, *names: str) -> None:
    await brokers.use(db, names, TOPICS, NOW)


@pytest.fixture
async def closed(db: Database) -> Database:
    """Two brokers and a device that was revoked."""
    await _use(db, "main", "b")
    async with db.begin() as conn:
        device = Device(id="d1", product="g", hardware="h", enrolled_at=NOW)
        await devices.insert(conn, device, report_key={}, content_key="")
        await devices.close(conn, "d1", DeviceState.REVOKED, "stolen", NOW)
    return db


async def test_a_closed_device_is_out_when_every_broker_says_so(closed: Database) -> None:
    """Until then those that have not said it go on."""
    async with closed.begin() as conn:
        await expelling.expelled(conn, "main", ["d1"], NOW)
        assert await expelling.to_expel(conn, "main", 9) == {}
        assert await expelling.to_expel(conn, "b", 9) == {"d1": "revoked"}
        assert await expelling.is_out(conn, "main", "d1")
        assert not await expelling.is_out(conn, "b", "d1")
        await expelling.expelled(conn, "b", ["d1"], NOW)
        assert await expelling.is_out(conn, "b", "d1")
        assert await expelling.to_expel(conn, "b", 9) == {}
        assert await conn.scalar(_session_ended()) == NOW


async def test_a_broker_that_leaves_completes_it(closed: Database) -> None:
    """It will never say it."""
    async with closed.begin() as conn:
        await expelling.expelled(conn, "main", ["d1"], NOW)
        assert await conn.scalar(_session_ended()) is None
    await _use(closed, "main")
    async with closed.begin() as conn:
        assert await conn.scalar(_session_ended()) == NOW


def _session_ended() -> Select[Any]:
    return select(table.c.session_ended_at)
