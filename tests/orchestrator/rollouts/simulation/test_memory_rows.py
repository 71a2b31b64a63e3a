"""Memory answers as the database does: the same changes, every question, on a real SQLite file."""

import asyncio
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy.ext.asyncio import AsyncConnection

from orchestrator.model.assignment import OFFERED, PENDING, Assignment, Work
from orchestrator.model.device import Device, DeviceState
from orchestrator.model.plan import RolloutSpec, StageSpec, Timeouts, UnavailableLimit
from orchestrator.model.rollout import RolloutState
from orchestrator.rollouts.carrying_out import Change
from orchestrator.rollouts.fact_loading import load_facts
from orchestrator.rollouts.simulation.memory_rows import MemoryFleet, MemoryRows, finish
from orchestrator.rollouts.steadiness import Steadiness
from orchestrator.storage import assignments, devices, releases, rollouts
from orchestrator.storage.engine_rows import EngineRows
from orchestrator.storage.letting_go import let_go_of
from orchestrator.storage.releases import PUBLISHED, ReleaseRecord
from protocol.manifest import ReleaseInfo
from protocol.states import State
from tests.orchestrator.databases import open_new

NOW = datetime(2026, 11, 24, tzinfo=UTC)
ROLLOUTS = ("r-1", "r-2")
DEVICES = [f"d{number}" for number in range(6)]
RETIRED = "d5"
SCOPES: tuple[list[str], ...] = (["site=a"], ["site=b", "group:g"], [])
SPEC = RolloutSpec(
    release="gateway/1.1.0",
    stages=[StageSpec(name="canary", percent=50), StageSpec(name="all", percent=100)],
    timeouts=Timeouts(queued_s=60, downloading_s=60, installing_s=60, verifying_s=60),
    max_unavailable=(UnavailableLimit(label="site", count=1), UnavailableLimit(group="g", count=2)),
)
_AT = st.one_of(st.none(), st.integers(0, 9).map(lambda minutes: NOW + timedelta(minutes=minutes)))
_HELD = st.sampled_from(["", "", "site", "retry", "scope:site=a", "scope:group:g", "rollout:r-1", "rollout:r-2"])
_CHANGES = st.fixed_dictionaries(
    {},
    optional={
        "state": st.sampled_from([PENDING, OFFERED, "timed_out", "excluded", *map(str, State)]),
        "ready": st.booleans(),
        "asking": st.booleans(),
        "offered_at": _AT,
        "offer_expires": _AT,
        "grant": st.sampled_from(["none", "download", "activate", "closed"]),
        "phase": st.sampled_from([None, "download", "install", "activate"]),
        "settled": st.booleans(),
        "verdict": st.sampled_from(["", "timed_out"]),
        "held": st.tuples(_HELD, _AT.map(lambda at: at or NOW)),
        "work": st.tuples(st.sampled_from([work.value for work in Work]), _AT.map(lambda at: at or NOW)),
        "grant_until": _AT,
        "bytes_fetched": st.integers(0, 1000),
    },
)
_PART = st.tuples(st.sampled_from(ROLLOUTS), st.sampled_from(DEVICES))
_BATCHES = st.lists(st.dictionaries(_PART, _CHANGES, min_size=1, max_size=6), min_size=1, max_size=12)


def _rows(rollout: str) -> list[Assignment]:
    return [
        Assignment(rollout=rollout, device=name, stage=number % 2, place=number * 0.7 % 1, scopes=SCOPES[number % 3])
        for number, name in enumerate(DEVICES)
    ]


def _changed(row: Assignment, drawn: dict[str, Any]) -> Assignment:
    """The row with what was drawn; what belongs together is together, as the steps keep it."""
    changes = dict(drawn)
    if "held" in changes:
        held_by, not_before = changes.pop("held")
        changes |= {"held_by": held_by, "not_before": not_before if held_by else None}
    if "work" in changes:
        work, since = changes.pop("work")
        changes |= {"work": work, "work_since": since if work else None}
    return replace(row, **changes)


async def _prepare(conn: AsyncConnection) -> MemoryFleet:
    info = ReleaseInfo(
        product="gateway", version="1.1.0", component="app", hardware=["rev-a"], counter=1, space_bytes=1,
        pieces=["0" * 64], chunk_count=1,
    )  # fmt: skip
    record = ReleaseRecord(
        id="gateway/1.1.0", product="gateway", version="1.1.0", component="app", path="x", length=1, sha256="1" * 64,
        counter=1, info=info.model_dump(mode="json"), wrapped_key=b"", image_bytes=1, chunk_bytes=1, state=PUBLISHED,
        imported_at=NOW,
    )  # fmt: skip
    await releases.insert_release(conn, record, {})
    for name in DEVICES:
        device = Device(id=name, enrolled_at=NOW, product="gateway", hardware="rev-a")
        await devices.insert(conn, device, report_key={"keyid": name}, content_key="x")
    retired = DeviceState.RETIRED.value
    await conn.exec_driver_sql("UPDATE devices SET state = ? WHERE id = ?", (retired, RETIRED))
    fleet = MemoryFleet()
    fleet.barred.add(RETIRED)
    for name in ROLLOUTS:
        await rollouts.insert(conn, name, SPEC, RolloutState.RUNNING, NOW)
        await assignments.insert_all(conn, _rows(name))
        stored = await rollouts.get(conn, name)
        assert stored is not None
        part = fleet.add(stored, await rollouts.load_stages(conn, name), component="app", version="1.1.0")
        part.insert(_rows(name))
    return fleet


@settings(max_examples=6, deadline=None)
@given(_BATCHES)
def test_every_question_has_the_database_s_answer(batches: list[dict[tuple[str, str], dict[str, Any]]]) -> None:
    """After any batches of changes over two rollouts, what waited for another rollout included."""
    asyncio.run(_compare(batches))


@pytest.mark.slow
@settings(max_examples=60, deadline=None, derandomize=False)
@given(_BATCHES)
def test_every_question_has_it_after_many_changes(batches: list[dict[tuple[str, str], dict[str, Any]]]) -> None:
    """Others every time."""
    asyncio.run(_compare(batches))


async def _compare(batches: list[dict[tuple[str, str], dict[str, Any]]]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        db = await open_new(Path(directory) / "db.sqlite")
        try:
            async with db.begin() as conn:
                fleet = await _prepare(conn)
                for batch in batches:
                    changes: list[Change] = []
                    for (rollout, name), drawn in batch.items():
                        row = fleet.parts[rollout].rows[name]
                        changes.append((row, _changed(row, drawn)))
                    await assignments.save_all(conn, changes)
                    freed = await let_go_of(conn, changes)
                    finish(fleet.parts["r-1"].save(changes))
                    assert _names(after for _, after in fleet.let_go_of(changes)) == _names(a for _, a in freed)
                    for rollout in ROLLOUTS:
                        await _ask_everything(EngineRows(conn, rollout), fleet.parts[rollout])
        finally:
            await db.close()


async def _ask_everything(stored: EngineRows, memory: MemoryRows) -> None:
    at, every = NOW + timedelta(minutes=4), [name for scopes in SCOPES for name in scopes]
    for limit in (2, 100):
        for name, arguments, key in (
            ("unsettled", (), "device"),
            ("next", (0,), "place"),
            ("next", (1,), "place"),
            ("asks", (), "device"),
            ("expiring", (at,), "offer_expires"),
            ("due", (at,), "not_before"),
            ("blocked", ("site=a",), "not_before"),
            ("blocked", ("group:g",), "not_before"),
            ("grants_ended", (at,), "grant_until"),
            ("untouched", (), "stage"),
            ("failed", ("d1",), "device"),
            ("queued", ("d1",), "device"),
            *(("at_work", (work.value, at), "work_since") for work in Work if work),
        ):
            theirs = await getattr(stored, name)(*arguments, limit)
            ours = finish(getattr(memory, name)(*arguments, limit))
            # Among equals the database has no order of its own.
            assert [getattr(row, key) for row in ours] == [getattr(row, key) for row in theirs], name
            if len(theirs) < limit or key in ("device", "place"):
                assert sorted(ours, key=_device) == sorted(theirs, key=_device), name
    assert finish(memory.permits(every)) == await stored.permits(every)
    assert finish(memory.waiting_scopes()) == await stored.waiting_scopes()
    theirs, ours = await stored.elsewhere(DEVICES), finish(memory.elsewhere(DEVICES))
    assert {name: [other.row for other in found] for name, found in ours.items()} == {
        name: [other.row for other in found] for name, found in theirs.items()
    }
    assert memory.facts(steady_from=NOW) == await load_facts(stored.conn, stored.rollout, Steadiness(NOW, 0.0))
    assert memory.counts == memory.recount()


def _device(row: Assignment) -> str:
    return row.device


def _names(rows: Any) -> list[tuple[str, str]]:
    return sorted((row.rollout, row.device) for row in rows)


async def test_offers_of_sites_are_counted_within_the_time() -> None:
    """As many as the database finds, whatever was noted and forgotten."""
    with tempfile.TemporaryDirectory() as directory:
        db = await open_new(Path(directory) / "db.sqlite")
        try:
            async with db.begin() as conn:
                memory, stored = (await _prepare(conn)).parts["r-1"], EngineRows(conn, "r-1")
                keep = timedelta(minutes=60)
                for minute, noted in ((0, {"a": 2}), (10, {"a": 1, "b": 4}), (65, {"a": 3}), (66, {"b": 1})):
                    at = NOW + timedelta(minutes=minute)
                    await stored.note_offers(noted, at, keep)
                    finish(memory.note_offers(noted, at, keep))
                    for since in (at - keep, at - timedelta(minutes=56), at):
                        theirs = await stored.site_offers(["a", "b", "c"], since)
                        assert finish(memory.site_offers(["a", "b", "c"], since)) == theirs
        finally:
            await db.close()


def test_what_waits_is_no_work_of_memory() -> None:
    """A coroutine that waits is a mistake, and said to be one."""

    async def waits() -> Sequence[int]:
        await asyncio.sleep(0)
        return []

    with pytest.raises(RuntimeError, match="not waited for"):
        finish(waits())
