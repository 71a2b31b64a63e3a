"""Devices in rows: their identity, their figures, and who is heard."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from orchestrator.errors import ConflictError
from orchestrator.model.device import Device, DeviceState
from orchestrator.storage import devices
from orchestrator.storage.database import Database

NOW = datetime(2026, 11, 24, tzinfo=UTC)
DEVICE = Device(id="d1", product="gateway", hardware="rev-a", labels={"site": "lab"}, enrolled_at=NOW)


async def test_a_device_is_read_as_it_was_written(db: Database) -> None:
    """With its keys; nobody else has them."""
    async with db.begin() as conn:
        await devices.insert(conn, DEVICE, report_key={"keyid": "k"}, content_key="c")
        assert await devices.get(conn, "d1") == replace(DEVICE, heard_at=DEVICE.enrolled_at)
        assert await devices.get(conn, "d2") is None
        assert await devices.keys(conn, ["d1", "d2"]) == {"d1": ({"keyid": "k"}, "c")}
        assert await devices.content_keys(conn, ["d1", "d2"]) == {"d1": "c"}
        assert await devices.get_many(conn, ["d1", "d2"]) == {"d1": replace(DEVICE, heard_at=DEVICE.enrolled_at)}
        assert await devices.missing(conn, ["d2", "d1", "d2"]) == ["d2"]
        await devices.set_certificate(conn, "d1", "abc")
        assert await devices.get(conn, "d1") == replace(DEVICE, certificate_serial="abc", heard_at=DEVICE.enrolled_at)


@pytest.mark.parametrize("state", [DeviceState.ENROLLED, DeviceState.REVOKED])
async def test_an_id_is_taken_once(db: Database, state: DeviceState) -> None:
    """Also by a device that was revoked."""
    with pytest.raises(ConflictError):
        async with db.begin() as conn:
            for found in (replace(DEVICE, state=state), DEVICE):
                await devices.insert(conn, found, report_key={}, content_key="")


async def test_a_retired_id_is_given_again(db: Database) -> None:
    """The new device begins its own order of reports."""
    async with db.begin() as conn:
        await devices.insert(
            conn, replace(DEVICE, state=DeviceState.RETIRED), report_key={"keyid": "old"}, content_key="o"
        )
        await conn.exec_driver_sql("UPDATE devices SET session = 7, seq = 7, presence_session = 7")
        assert await devices.keys(conn, ["d1"]) == {}
        assert await devices.content_keys(conn, ["d1"]) == {}
        await devices.insert(conn, DEVICE, report_key={"keyid": "new"}, content_key="n")
        assert await devices.keys(conn, ["d1"]) == {"d1": ({"keyid": "new"}, "n")}
        row = (await conn.exec_driver_sql("SELECT session, seq, presence_session FROM devices")).one()
    assert tuple(row) == (0, 0, 0)


@pytest.mark.parametrize("bad", ["a/b", "+", "#", "", "x" * 65])
async def test_the_table_itself_refuses_an_id_that_is_a_topic(db: Database, bad: str) -> None:
    """The last line of defence, whoever forgot to check."""
    with pytest.raises(ConflictError, match="device_id_charset"):
        async with db.begin() as conn:
            await devices.insert(conn, replace(DEVICE, id=bad), report_key={}, content_key="")


async def test_figures_are_of_enrolled_devices(db: Database) -> None:
    """A revoked device is neither online nor does its version count."""
    found = [
        replace(DEVICE, id="a", online=True, components={"app": "1"}),
        replace(DEVICE, id="b", components={"app": "1", "os": "7"}),
        replace(DEVICE, id="c", state=DeviceState.REVOKED, online=True, components={"app": "9"}),
    ]
    async with db.begin() as conn:
        for device in found:
            await devices.insert(conn, device, report_key={}, content_key="")
        assert await devices.figures(conn) == (2, 1, 1)
        assert await devices.versions(conn) == {"app 1": 2, "os 7": 1}
        assert [device.id for device in await devices.page(conn, after="a", limit=1)] == ["b"]
        assert await devices.keys(conn, ["a", "c"]) == {"a": ({}, "")}


async def test_planning_reads_the_fleet_by_id(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Page after page, with what decides; components and labels as texts that are read when they are asked for."""
    monkeypatch.setattr(devices, "_PLANNED_AT_ONCE", 2)
    async with db.begin() as conn:
        for name in ("d3", "d1", "d2"):
            await devices.insert(conn, replace(DEVICE, id=name, components={"os": "1"}), report_key={}, content_key="")
        pages = [page async for page in devices.for_planning(conn)]
        assert [[device.id for device in page] for page in pages] == [["d1", "d2"], ["d3"]]
        first = pages[0][0]
        assert (first.product, first.hardware, first.state) == ("gateway", "rev-a", "enrolled")
        assert (first.duplicate, first.online, first.silent) == (0, 0, 0)
        assert (first.components, first.labels, first.site) == ({"os": "1"}, {"site": "lab"}, "lab")
        assert await devices.candidates(conn, ["d2", "d1", "zz"]) == pages[0]
