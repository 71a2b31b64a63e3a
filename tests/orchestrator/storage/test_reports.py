"""Reports into rows: in order, once, and the same whatever the batches are."""

import asyncio
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import insert, text, update

from orchestrator.model.assignment import Assignment
from orchestrator.model.device import Device, DeviceState
from orchestrator.model.rollout import RolloutState
from orchestrator.storage import assignments, devices, dirty, events, rollouts
from orchestrator.storage.database import Database
from orchestrator.storage.reports import Applied, Incoming, apply_batch
from orchestrator.storage.tables import assignments as assignments_table
from orchestrator.storage.tables import release_chunks
from protocol.reports import Inventory, Presence, Progress, Readiness, StateReport, Want
from protocol.states import Phase, State
from protocol.topics import Kind
from tests.orchestrator.databases import open_new
from tests.orchestrator.delivery.rows import SPEC

NOW = datetime(2026, 11, 24, tzinfo=UTC)
CID = "a" * 64


def report(model: Any, device: str, session: int, seq: int, **values: Any) -> Incoming:
    """One signed report."""
    head = {"fleet": "harbour", "issued": NOW, "device": device, "session": session, "seq": seq}
    return Incoming(device, model(**head, **values), "d" * 64)


def ready(device: str, session: int, seq: int, rollout: str = "r-1") -> Incoming:
    """All download gates are open."""
    return report(
        Readiness,
        device,
        session,
        seq,
        rollout=rollout,
        nonce=f"nonce-{session}-{seq}",
        phase=Phase.DOWNLOAD,
        ready=True,
    )


def state(device: str, session: int, seq: int, what: State, **more: Any) -> Incoming:
    """Where the update stands."""
    values = {"rollout": "r-1", "nonce": f"nonce-{session}-{seq}", "attempt": 1, "state": what, **more}
    return report(StateReport, device, session, seq, **values)


async def fill(db: Database) -> None:
    """Four devices in r-1, three of which were offered something; one was revoked."""
    async with db.begin() as conn:
        for name in ("d1", "d2", "d3", "revoked"):
            known = DeviceState.REVOKED if name == "revoked" else DeviceState.ENROLLED
            device = Device(id=name, product="gateway", hardware="rev-a", state=known, enrolled_at=NOW)
            await devices.insert(conn, device, report_key={}, content_key="")
        rows = [
            Assignment(rollout="r-1", device=name, stage=0, place=0, state="offered", grant="download", offered_at=NOW)
            for name in ("d1", "d2", "revoked")
        ]
        await assignments.insert_all(conn, [*rows, Assignment(rollout="r-1", device="d3", stage=0, place=0)])


async def take(db: Database, *batch: Incoming) -> Applied:
    """Apply one batch."""
    async with db.begin() as conn:
        return await apply_batch(conn, batch, NOW)


async def marks(db: Database) -> set[tuple[Kind, str]]:
    """What was marked; the marks are taken away."""
    async with db.begin() as conn:
        found = await dirty.take(conn, "main", list(Kind), 1000)
        await dirty.done(conn, "main", found)
    return {(kind, key) for kind, key, _ in found}


async def test_an_older_report_is_left_out(db: Database) -> None:
    """(session, seq) rises: the same again is a replay, in one batch or in two, of whatever kind."""
    await fill(db)
    first = await take(db, state("d1", 2, 5, State.FETCHED), state("d1", 2, 5, State.FAILED))
    assert first.rejected == [("E_REPLAY", "d1")]
    for stale in (state("d1", 2, 5, State.FAILED), state("d1", 2, 4, State.FAILED), state("d1", 1, 9, State.FAILED)):
        found = await take(db, stale)
        assert (found.rejected, found.for_engine, found.for_delivery) == ([("E_REPLAY", "d1")], False, False)
    fresh = await take(db, state("d1", 3, 1, State.INSTALLING))
    assert fresh.rejected == []
    async with db.read() as conn:
        row = await assignments.get(conn, "r-1", "d1")
    assert row is not None
    assert row.state == State.INSTALLING


async def test_the_engine_is_called_for_what_it_decides_on(db: Database) -> None:
    """Who asks and who is done; not for every step on the way."""
    await fill(db)
    steps = (State.DOWNLOADING, State.INSTALLING, State.VERIFYING, State.SUCCEEDED)
    found = [(await take(db, state("d1", 1, n, step))).for_engine for n, step in enumerate(steps, 1)]
    assert found == [False, False, False, True]


async def test_who_is_not_enrolled_is_not_heard(db: Database) -> None:
    """Neither a revoked device nor one that nobody knows; the others of the batch are."""
    await fill(db)
    found = await take(
        db, state("revoked", 1, 1, State.SUCCEEDED), ready("nobody", 1, 1), state("d1", 1, 1, State.DOWNLOADING)
    )
    assert found.rejected == [("not_enrolled", "revoked"), ("not_enrolled", "nobody")]
    assert found.for_delivery
    async with db.read() as conn:
        assert await assignments.load_counts(conn, "r-1") == await assignments.recount(conn, "r-1")
        row = await assignments.get(conn, "r-1", "revoked")
    assert row is not None
    assert row.state == "offered"


@pytest.mark.parametrize("then", [State.SUCCEEDED, State.FAILED])
async def test_an_outcome_is_heard_shown_and_told_once(db: Database, then: State) -> None:
    """The offer is signed again each time that it is repeated; the event stands once, also if it contradicts itself."""
    await fill(db)
    for seq, said in ((1, State.SUCCEEDED), (2, then), (3, State.SUCCEEDED)):
        applied = await take(db, state("d1", 1, seq, said))
        assert applied.for_delivery
        assert (Kind.OFFER, "d1/r-1") in await marks(db)
    async with db.read() as conn:
        assert [event["kind"] for event in await events.page(conn)] == ["device_succeeded"]
        assert (await assignments.load_counts(conn, "r-1"))[0]["state:succeeded"] == 1


async def test_a_device_that_asks_is_left_to_the_engine(db: Database) -> None:
    """Its offer is not signed anew before it is answered."""
    await fill(db)
    applied = await take(db, state("d1", 1, 1, State.FETCHED, phase=Phase.INSTALL))
    assert (applied.for_engine, applied.for_delivery) == (True, False)
    assert await marks(db) == {(Kind.STATUS_DEVICE, "d1"), (Kind.STATUS_ROLLOUT, "r-1")}


@pytest.mark.parametrize(
    ("item", "rejected"),
    [
        (ready("d1", 1, 1, rollout="r-9"), []),
        (state("d1", 1, 1, State.FAILED, rollout="r-9"), [("no_assignment", "d1")]),
        (Incoming("d1", Progress(rollout="r-9", state=State.DOWNLOADING, percent=1)), [("no_assignment", "d1")]),
        (Incoming("d1", Want(rollout="r-9", cids=[CID])), []),
    ],
)
async def test_a_rollout_that_the_device_is_not_in(db: Database, item: Incoming, rejected: list[Any]) -> None:
    """Announcements reach everybody, so readiness is no mistake; the rest counts as one. Nothing changes."""
    await fill(db)
    applied = await take(db, item)
    assert (applied.rejected, applied.for_engine, applied.for_delivery) == (rejected, False, False)
    assert await marks(db) == set()


async def test_a_will_ends_only_its_own_session(db: Database) -> None:
    """The broker speaks for the old connection when the new one is there already."""
    await fill(db)
    await take(db, Incoming("d1", Presence(session=2, online=True)))
    assert await marks(db) == {(Kind.STATUS_DEVICE, "d1"), (Kind.STATUS_FLEET, "")}
    for presence, online in ((Presence(session=1, online=False), True), (Presence(session=2, online=False), False)):
        await take(db, Incoming("d1", presence))
        async with db.read() as conn:
            device = await devices.get(conn, "d1")
        assert device is not None
        assert device.online is online


async def test_an_inventory_is_what_selectors_see(db: Database) -> None:
    """Components and labels are the device's word; one that says nothing new marks nothing."""
    await fill(db)
    values: dict[str, Any] = {
        "product": "gateway",
        "hardware": "rev-a",
        "components": {"app": "1.0.0"},
        "labels": {"site": "lab"},
        "agent": "1",
    }
    await take(db, report(Inventory, "d1", 1, 1, **values))
    assert await marks(db) == {(Kind.STATUS_DEVICE, "d1"), (Kind.STATUS_FLEET, "")}
    await take(db, report(Inventory, "d1", 1, 2, **values))
    assert await marks(db) == set()
    async with db.read() as conn:
        device = await devices.get(conn, "d1")
    assert device is not None
    assert (device.components, device.labels, device.last_seen) == ({"app": "1.0.0"}, {"site": "lab"}, NOW)


async def test_chunks_are_sent_again_to_who_may_have_them(db: Database) -> None:
    """A want of a device without an offer, or one that is done, costs nothing; nor does a chunk that nobody made."""
    await fill(db)
    want = Want(rollout="r-1", cids=[CID, "b" * 64])
    async with db.begin() as conn:
        await rollouts.insert(conn, "r-1", SPEC, RolloutState.RUNNING, NOW)
        await conn.execute(insert(release_chunks).values(release="gateway/1.1.0", cid=CID, length=9))
    applied = await take(db, Incoming("d3", want))
    assert (applied.wanted, applied.wants_refused) == (set(), {"no_open_offer": 2})
    applied = await take(db, Incoming("d1", want), Incoming("d2", want))
    assert (applied.wanted, applied.wants_refused) == ({CID}, {"not_of_release": 1})
    assert await marks(db) == set()
    later = NOW + timedelta(days=1)
    for values in ({"grant": "closed"}, {"grant": "download", "offer_expires": NOW}):
        async with db.begin() as conn:
            await conn.execute(update(assignments_table).values(**values))
        assert (await take(db, Incoming("d1", want))).wanted == set()
    async with db.begin() as conn:
        await conn.execute(update(assignments_table).values(offer_expires=later))
    assert (await take(db, Incoming("d1", want))).wanted == {CID}
    await take(db, state("d1", 1, 1, State.FAILED))
    assert (await take(db, Incoming("d1", want))).wanted == set()
    async with db.begin() as conn:
        await conn.execute(update(release_chunks).values(release="gateway/1.0.0"))
    assert (await take(db, Incoming("d2", want))).wants_refused == {"not_of_release": 2}


_NAMES = st.sampled_from(["d1", "d2", "d3", "revoked", "nobody"])
_ITEMS = st.one_of(
    st.builds(ready, _NAMES, st.integers(1, 2), st.integers(1, 6)),
    st.builds(state, _NAMES, st.integers(1, 2), st.integers(1, 6), st.sampled_from(list(State))),
    st.builds(
        lambda name, n, on: Incoming(name, Presence(session=n, online=on)), _NAMES, st.integers(1, 3), st.booleans()
    ),
    st.builds(
        lambda name, percent: Incoming(name, Progress(rollout="r-1", state=State.DOWNLOADING, percent=percent)),
        _NAMES,
        st.floats(0, 100),
    ),
)


@settings(max_examples=10, deadline=None)
@given(st.lists(_ITEMS, max_size=20), st.integers(1, 7))
def test_batches_make_no_difference(items: list[Incoming], size: int) -> None:
    """One report at a time or many: the same rows, counts, marks and rejects; and counts are right."""
    _compare(items, size)


@pytest.mark.slow
@settings(max_examples=150, deadline=None, derandomize=False)
@given(st.lists(_ITEMS, max_size=20), st.integers(1, 7))
def test_many_more_batches_make_no_difference(items: list[Incoming], size: int) -> None:
    """Others every time."""
    _compare(items, size)


def _compare(items: list[Incoming], size: int) -> None:
    batches = [items[start : start + size] for start in range(0, len(items), size)]
    assert asyncio.run(_outcome([[item] for item in items])) == asyncio.run(_outcome(batches))


async def _outcome(batches: Sequence[Sequence[Incoming]]) -> tuple[Any, ...]:
    with tempfile.TemporaryDirectory() as directory:
        db = await open_new(Path(directory) / "db.sqlite")
        try:
            await fill(db)
            rejected = [reject for batch in batches for reject in (await take(db, *batch)).rejected]
            async with db.read() as conn:
                counts = await assignments.load_counts(conn, "r-1")
                assert counts == await assignments.recount(conn, "r-1")
                rows = await assignments.of_rollout(conn, "r-1")
                known = [tuple(row) for row in await conn.execute(text("SELECT id, session, seq, online FROM devices"))]
                told = [event["text"] for event in await events.page(conn)]
            return rejected, counts, rows, known, told, await marks(db)
        finally:
            await db.close()


async def test_what_a_device_refuses_is_kept_and_told_once(db: Database) -> None:
    """Refusals and staleness stand with the device; each code that is new is an event, its repetition is none."""
    await fill(db)
    facts = {"product": "gateway", "hardware": "rev-a", "agent": "1.0.0"}
    refusal = {"code": "E_SIGNATURE", "detail": "not signed by a director", "count": 1, "last": NOW}
    await take(db, report(Inventory, "d1", 1, 1, **facts, stale_since=NOW, refusals=[refusal]))
    await take(db, report(Inventory, "d1", 1, 2, **facts, stale_since=NOW, refusals=[{**refusal, "count": 9}]))
    async with db.read() as conn:
        device = await devices.get(conn, "d1")
        happened = await events.page(conn)
    assert device is not None
    assert device.stale_since == NOW
    assert [(one["code"], one["count"]) for one in device.refusals] == [("E_SIGNATURE", 9)]
    assert [(one["kind"], one["device"]) for one in happened] == [("device_refused", "d1")]
    await take(db, report(Inventory, "d1", 1, 3, **facts))
    async with db.read() as conn:
        device = await devices.get(conn, "d1")
    assert device is not None
    assert (device.stale_since, device.refusals) == (None, [])
