"""The way out of the fleet: one transaction, once, and nothing of it is half done."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from orchestrator.errors import ConflictError, NotFoundError, UsageError
from orchestrator.fleet import closing
from orchestrator.fleet.closing import MAX_REASON_CHARS
from orchestrator.model.assignment import EXCLUDED, Assignment
from orchestrator.model.device import Device, DeviceState
from orchestrator.model.plan import RolloutSpec, StageSpec
from orchestrator.model.rollout import RolloutState
from orchestrator.storage import assignments, audit, certificates, devices, dirty, events, expelling, rollouts
from orchestrator.storage.database import Database
from orchestrator.storage.reports import Incoming, apply_batch
from protocol.clock import ManualClock
from protocol.reports import Inventory
from protocol.topics import Kind

NOW = datetime(2026, 11, 24, tzinfo=UTC)
CLOCK = ManualClock(NOW)
LONG_AGO = NOW - timedelta(days=365)
PLACES = {
    "r-open": {"state": "downloading", "grant": "download", "offered_at": NOW},
    "r-pending": {"ready": True, "reasons": [{"gate": "power", "code": "low"}]},
    "r-over": {"state": "succeeded", "grant": "closed", "offered_at": NOW},
}


@pytest.fixture
async def db(tmp_path: Path) -> AsyncIterator[Database]:
    """d1 with two certificates and a part in three rollouts, of which one is over for it; d2 beside it."""
    found = await Database.open(tmp_path / "flagship.sqlite")
    spec = RolloutSpec(release="gateway/1.1.0", stages=[StageSpec(name="all", percent=100)])
    async with found.begin() as conn:
        for name in ("d1", "d2"):
            device = Device(id=name, product="gateway", hardware="hw", enrolled_at=NOW, online=True)
            await devices.insert(conn, device, report_key={}, content_key=f"key of {name}")
            for serial in ("1f", "2e"):
                await certificates.add(conn, name, serial + ("0" if name == "d1" else "1"))
        for name, values in PLACES.items():
            await rollouts.insert(conn, name, spec, RolloutState.RUNNING, NOW)
            row = Assignment(rollout=name, device="d1", stage=0, place=0.5, **values)  # type: ignore[arg-type]
            await assignments.insert_all(conn, [row])
    try:
        yield found
    finally:
        await found.close()


async def marks(db: Database) -> set[tuple[Kind, str]]:
    """What is to be published again."""
    async with db.read() as conn:
        return {(kind, key) for kind, key, _ in await dirty.take(conn, "main", list(Kind), 100)}


@pytest.mark.parametrize("close", [closing.revoke, closing.retire])
async def test_closing_is_one_operation(db: Database, close: closing.Close) -> None:
    """State, every certificate, every open offer, counts, topics, event."""
    state = DeviceState.REVOKED if close is closing.revoke else DeviceState.RETIRED
    closed = await close(db, CLOCK, "d1", "stolen")
    assert closed.rollouts == ["r-open", "r-pending"]
    device = closed.device
    assert (device.state, device.closed_at, device.closed_reason) == (state, NOW, "stolen")
    assert (device.online, device.session_ended_at) == (False, None)
    async with db.read() as conn:
        order, moves = (await audit.page(conn, limit=1000))[-2:]
        assert (order.kind, order.actor, order.device, order.figures()["reason"]) == (
            "order",
            "operator",
            "d1",
            "stolen",
        )
        assert (moves.kind, moves.actor, moves.correlation) == ("moves", "operator", order.correlation)
        assert await certificates.revoked(conn, LONG_AGO) == {0x1F0: NOW, 0x2E0: NOW}
        assert await expelling.to_expel(conn, "main", 10) == {"d1": state}
        assert await devices.keys(conn, ["d1", "d2"]) == {"d2": ({}, "key of d2")}
        assert await devices.content_keys(conn, ["d1", "d2"]) == {"d2": "key of d2"}
        rows = {row.rollout: row for row in await assignments.of_device(conn, "d1")}
        for name in PLACES:
            assert await assignments.load_counts(conn, name) == await assignments.recount(conn, name)
        (event,) = await events.page(conn, device="d1")
    assert {name: row.state for name, row in rows.items()} == {
        "r-open": EXCLUDED,
        "r-pending": EXCLUDED,
        "r-over": "succeeded",
    }
    assert [rows[name].grant for name in PLACES] == ["closed", "none", "closed"]
    assert rows["r-pending"].reasons == []
    assert event["kind"] == f"device_{state}"
    assert "stolen" in event["text"] and "r-open, r-pending" in event["text"]
    assert await marks(db) == {
        (Kind.OFFER, "d1/r-open"),
        (Kind.STATUS_ROLLOUT, "r-open"),
        (Kind.STATUS_ROLLOUT, "r-pending"),
        (Kind.STATUS_DEVICE, "d1"),
        (Kind.CERT, "d1"),
        (Kind.STATUS_FLEET, ""),
    }


async def test_a_second_time_changes_nothing(db: Database) -> None:
    """The first reason and time stay; one event."""
    first = await closing.revoke(db, CLOCK, "d1", "stolen")
    again = await closing.revoke(db, ManualClock(NOW + timedelta(hours=1)), "d1", "stolen, I say")
    assert (again.device, again.rollouts) == (first.device, [])
    async with db.read() as conn:
        assert len(await events.page(conn)) == 1


async def test_a_revoked_device_is_not_retired_and_a_retired_one_may_be_revoked(db: Database) -> None:
    """Revoking is not taken back."""
    await closing.retire(db, CLOCK, "d1", "sold")
    assert (await closing.revoke(db, CLOCK, "d1", "it was stolen")).device.state == DeviceState.REVOKED
    with pytest.raises(ConflictError, match="not taken back"):
        await closing.retire(db, CLOCK, "d1", "sold")


@pytest.mark.parametrize("reason", ["", "  ", "x" * (MAX_REASON_CHARS + 1)])
async def test_a_reason_is_needed(db: Database, reason: str) -> None:
    """Nothing happens without one."""
    with pytest.raises(UsageError, match="--reason"):
        await closing.revoke(db, CLOCK, "d1", reason)
    async with db.read() as conn:
        assert await certificates.revoked(conn, LONG_AGO) == {}


async def test_an_unknown_device_is_not_found(db: Database) -> None:
    """Named."""
    with pytest.raises(NotFoundError, match="d9"):
        await closing.revoke(db, CLOCK, "d9", "stolen")


def inventory(session: int, instance: str, seq: int = 1) -> Incoming:
    """One of d1's."""
    return Incoming(
        "d1",
        Inventory(
            fleet="f", issued=NOW, device="d1", session=session, seq=seq, product="gateway", hardware="hw",
            agent="1", instance=instance, boot=instance,
        ),
    )  # fmt: skip


async def test_a_duplicate_is_taken_out_and_cleared_by_a_person(db: Database) -> None:
    """No offers, no keys; afterwards the one that spoke last is heard, though the other came further."""
    one, two = "a" * 16, "b" * 16
    turns = [inventory(9, two), inventory(2, one), inventory(10, two), inventory(3, one)]
    async with db.begin() as conn:
        applied = await apply_batch(conn, turns, NOW)
    assert applied.for_delivery and applied.for_engine
    async with db.read() as conn:
        found = await devices.get(conn, "d1")
        rows = {row.rollout: row.state for row in await assignments.of_device(conn, "d1")}
        assert await devices.content_keys(conn, ["d1"]) == {}
        assert set(await devices.keys(conn, ["d1"])) == {"d1"}  # both are still heard
        kinds = [event["kind"] for event in await events.page(conn, device="d1")]
        assert await assignments.load_counts(conn, "r-open") == await assignments.recount(conn, "r-open")
    assert found is not None and found.duplicate_since == NOW
    assert rows == {"r-open": EXCLUDED, "r-pending": EXCLUDED, "r-over": "succeeded"}
    assert kinds == ["device_duplicate"]
    assert (Kind.OFFER, "d1/r-open") in await marks(db)
    with pytest.raises(ConflictError, match="not flagged"):
        await closing.clear_duplicate(db, CLOCK, "d2", "nothing to do")
    cleared = await closing.clear_duplicate(db, CLOCK, "d1", "the copy was wiped")
    assert cleared.duplicate_since is None
    async with db.begin() as conn:
        assert (await apply_batch(conn, [inventory(3, one, seq=2)], NOW)).rejected == []
        assert await devices.content_keys(conn, ["d1"]) == {"d1": "key of d1"}


async def test_one_that_still_has_a_twin_is_flagged_again(db: Database) -> None:
    """Clearing is no excuse."""
    one, two = "a" * 16, "b" * 16
    for start in (1, 10):
        turns = [inventory(start + n // 2, (one, two)[n % 2]) for n in range(4)]
        async with db.begin() as conn:
            await apply_batch(conn, turns, NOW)
        async with db.read() as conn:
            found = await devices.get(conn, "d1")
        assert found is not None and found.duplicate_since == NOW
        await closing.clear_duplicate(db, CLOCK, "d1", "it is gone, surely")
