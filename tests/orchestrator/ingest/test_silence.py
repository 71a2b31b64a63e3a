"""Silence: counted only while somebody listened, flagged once, ended by a signed report."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from orchestrator.ingest.silence import Listening, SilenceWatch
from orchestrator.model.device import Device, DeviceState
from orchestrator.storage import concerns, devices, dirty, events
from orchestrator.storage.concerns import Concern
from orchestrator.storage.database import Database
from orchestrator.storage.reports import Incoming, apply_batch
from protocol.clock import ManualClock
from protocol.reports import Inventory, Presence
from protocol.topics import Kind

NOW = datetime(2026, 11, 24, tzinfo=UTC)
AFTER_S = 100.0


@pytest.fixture
async def db(tmp_path: Path) -> AsyncIterator[Database]:
    """An empty database."""
    found = await Database.open(tmp_path / "flagship.sqlite")
    try:
        yield found
    finally:
        await found.close()


async def enrol(db: Database, *names: str, at: datetime = NOW, state: DeviceState = DeviceState.ENROLLED) -> None:
    """Devices that never spoke."""
    async with db.begin() as conn:
        for name in names:
            device = Device(id=name, product="gateway", hardware="hw", enrolled_at=at, state=state)
            await devices.insert(conn, device, report_key={}, content_key="")


async def speaks(db: Database, name: str, at: datetime, session: int = 1, **values: Any) -> None:
    """One signed inventory."""
    head = {"fleet": "f", "issued": at, "device": name, "session": session, "seq": 1}
    report = Inventory(**head, product="gateway", hardware="hw", agent="1", **values)
    async with db.begin() as conn:
        await apply_batch(conn, [Incoming(name, report)], at)


async def silent(db: Database) -> list[str]:
    """Who is listed."""
    async with db.read() as conn:
        found = await concerns.page(conn, Concern.SILENT)
        assert (await concerns.count(conn))[Concern.SILENT] == len(found)
    return [device.id for device in found]


@pytest.mark.parametrize(
    ("spans", "now", "ago"),
    [
        pytest.param([], 50, None, id="never"),
        pytest.param([(0, None)], 9, None, id="not long enough"),
        pytest.param([(0, None)], 10, 10, id="just long enough"),
        pytest.param([(0, None)], 100, 10, id="long"),
        pytest.param([(0, 8), (50, None)], 52, 10 + 42, id="an outage in between does not count"),
        pytest.param([(0, 8), (20, 24), (50, 60)], 70, 20, id="deaf now"),
        pytest.param([(0, 4), (20, 24), (50, 51)], 60, None, id="three short spans"),
    ],
)
def test_ten_seconds_of_listening(spans: list[tuple[float, float | None]], now: float, ago: float | None) -> None:
    """How far back ten seconds of it reach."""
    listening = Listening()
    for begin, end in spans:
        listening.begin(begin)
        if end is not None:
            listening.end(end)
    assert listening.ago(10, now) == ago


async def test_a_device_falls_silent_and_is_heard_again(db: Database) -> None:
    """F6: listed with since when, told once, shown again; and taken back by the first signed report."""
    clock, woken = ManualClock(NOW), list[bool]()
    watch = SilenceWatch(db, AFTER_S, clock, lambda: woken.append(True))
    watch.listens()
    await enrol(db, "gone", "talks")
    clock.advance(60)
    await speaks(db, "talks", clock.now())
    clock.advance(41)
    assert await watch.sweep() == ["gone"]
    assert await watch.sweep() == []
    assert (await silent(db), woken) == (["gone"], [True])
    async with db.read() as conn:
        device = await devices.get(conn, "gone")
        happened = await events.page(conn)
        marked = await dirty.take(conn, "main", (Kind.STATUS_FLEET, Kind.STATUS_DEVICE), 10)
    assert device is not None and device.silent_since == NOW
    assert [(event["kind"], event["device"]) for event in happened] == [("devices_silent", "gone")]
    assert {kind for kind, _, _ in marked} == {Kind.STATUS_FLEET, Kind.STATUS_DEVICE}
    await speaks(db, "gone", clock.now())
    assert await silent(db) == []


async def test_a_hint_does_not_end_silence(db: Database) -> None:
    """F6: presence is not signed: a broker that drops reports could forge it."""
    clock = ManualClock(NOW)
    watch = SilenceWatch(db, AFTER_S, clock, lambda: None)
    watch.listens()
    await enrol(db, "gone")
    clock.advance(AFTER_S + 1)
    await watch.sweep()
    async with db.begin() as conn:
        await apply_batch(conn, [Incoming("gone", Presence(session=1, online=True))], clock.now())
    assert await silent(db) == ["gone"]


async def test_time_in_which_nobody_listened_does_not_count(db: Database) -> None:
    """After an outage of ingest, of any length, devices have the rest of their time."""
    clock = ManualClock(NOW)
    watch = SilenceWatch(db, AFTER_S, clock, lambda: None)
    await enrol(db, "d1")
    clock.advance(10 * AFTER_S)
    assert await watch.sweep() == []  # the process has just started
    watch.listens()
    clock.advance(AFTER_S - 1)
    watch.is_deaf()
    clock.advance(10 * AFTER_S)
    watch.listens()
    assert await watch.sweep() == []
    clock.advance(2)
    assert await watch.sweep() == ["d1"]


async def test_who_is_out_of_the_fleet_is_not_silent(db: Database) -> None:
    """Revoked and retired devices have nothing to say."""
    clock = ManualClock(NOW)
    watch = SilenceWatch(db, AFTER_S, clock, lambda: None)
    watch.listens()
    await enrol(db, "r1", state=DeviceState.REVOKED)
    await enrol(db, "r2", state=DeviceState.RETIRED)
    clock.advance(AFTER_S + 1)
    assert await watch.sweep() == []


async def test_a_whole_fleet_that_falls_silent_is_one_event_per_batch(db: Database, monkeypatch: Any) -> None:
    """A broken uplink must not fill the events."""
    monkeypatch.setattr("orchestrator.ingest.silence.BATCH", 10)
    clock = ManualClock(NOW)
    watch = SilenceWatch(db, AFTER_S, clock, lambda: None)
    watch.listens()
    await enrol(db, *(f"d{n:02}" for n in range(25)))
    clock.advance(AFTER_S + 1)
    assert len(await watch.sweep()) == 25
    async with db.read() as conn:
        assert [event["data"]["devices"] for event in await events.page(conn)] == [10, 10, 5]


async def test_a_stale_device_is_counted_until_it_is_fresh(db: Database) -> None:
    """With since when, by its own inventory."""
    await enrol(db, "d1")
    await speaks(db, "d1", NOW, stale_since=NOW)
    async with db.read() as conn:
        assert (await concerns.count(conn))[Concern.STALE] == 1
        assert [device.stale_since for device in await concerns.page(conn, Concern.STALE)] == [NOW]
    await speaks(db, "d1", NOW, session=2)
    async with db.read() as conn:
        assert (await concerns.count(conn))[Concern.STALE] == 0


@pytest.mark.parametrize(
    ("statement", "index"),
    [
        (
            (
                "SELECT id FROM devices WHERE state = 'enrolled' AND silent = 0 AND heard_at < 'x' "
                "ORDER BY heard_at LIMIT 500"
            ),
            "devices_falling_silent",
        ),
        ("SELECT count(*) FROM devices WHERE state = 'enrolled' AND silent = 1", "devices_silent"),
        ("SELECT count(*) FROM devices WHERE state = 'enrolled' AND stale_since IS NOT NULL", "devices_stale"),
        ("SELECT count(*) FROM devices WHERE state = 'enrolled' AND duplicate_since IS NOT NULL", "devices_duplicate"),
        ("SELECT id FROM devices WHERE state <> 'enrolled' AND session_ended_at IS NULL", "devices_to_expel"),
    ],
)
async def test_nothing_looks_at_the_whole_fleet(db: Database, statement: str, index: str) -> None:
    """Each question has its own partial index."""
    async with db.read() as conn:
        plan = "; ".join(row.detail for row in await conn.execute(text(f"EXPLAIN QUERY PLAN {statement}")))
    assert f"INDEX {index}" in plan
