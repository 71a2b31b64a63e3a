"""Assignments and their counts: any sequence of changes keeps counts equal to a recount."""

import asyncio
import tempfile
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy.ext.asyncio import AsyncConnection

from orchestrator.model.assignment import OFFERED, PENDING, Assignment
from orchestrator.model.device import Device, DeviceState
from orchestrator.storage import assignments, devices
from orchestrator.storage.database import Database
from orchestrator.storage.engine_rows import EngineRows
from protocol.states import State
from tests.orchestrator.databases import open_new

NOW = datetime(2026, 11, 24, tzinfo=UTC)


def row(device: str, stage: int = 0, **changes: Any) -> Assignment:
    """A place of a device in r-1, or in another rollout."""
    return Assignment(**{"rollout": "r-1", "device": device, "stage": stage, "place": 0.5, **changes})


_CHANGES = st.fixed_dictionaries(
    {},
    optional={
        "state": st.sampled_from([PENDING, OFFERED, *map(str, State)]),
        "ready": st.booleans(),
        "asking": st.booleans(),
        "offered_at": st.sampled_from([None, NOW]),
        "grant": st.sampled_from(["none", "download", "activate", "closed"]),
        "percent": st.floats(0, 100),
        **{f"bytes_{way}": st.integers(0, 2**42) for way in ("fetched", "copied", "delta", "present")},
    },
)
_BATCHES = st.lists(st.dictionaries(st.integers(0, 5), _CHANGES, min_size=1, max_size=4), max_size=12)


@asynccontextmanager
async def _writing() -> AsyncIterator[AsyncConnection]:
    with tempfile.TemporaryDirectory() as directory:
        db = await open_new(Path(directory) / "db.sqlite")
        try:
            async with db.begin() as conn:
                yield conn
        finally:
            await db.close()


@settings(max_examples=25, deadline=None)
@given(_BATCHES)
def test_counts_are_what_a_recount_finds(batches: list[dict[int, dict[str, Any]]]) -> None:
    """Whatever is written, in batches of any devices of any stages."""
    asyncio.run(_write(batches))


@pytest.mark.slow
@settings(max_examples=300, deadline=None, derandomize=False)
@given(_BATCHES)
def test_counts_are_it_after_many_more(batches: list[dict[int, dict[str, Any]]]) -> None:
    """Others every time."""
    asyncio.run(_write(batches))


async def _write(batches: list[dict[int, dict[str, Any]]]) -> None:
    async with _writing() as conn:
        rows = [row(f"d{number}", number % 2) for number in range(6)]
        await assignments.insert_all(conn, rows)
        for batch in batches:
            changed = {number: replace(rows[number], **changes) for number, changes in batch.items()}
            await assignments.save_all(conn, [(rows[number], after) for number, after in changed.items()])
            for number, after in changed.items():
                rows[number] = after
            counts = await assignments.load_counts(conn, "r-1")
            assert counts == {
                stage: {key: n for key, n in found.items() if n}
                for stage, found in (await assignments.recount(conn, "r-1")).items()
            }
            assert sum(n for stage in counts.values() for key, n in stage.items() if key.startswith("state:")) == 6
        assert await assignments.of_rollout(conn, "r-1") == rows


async def test_what_does_not_change_is_not_written(db: Database) -> None:
    """Neither the row nor a count."""
    async with db.begin() as conn:
        await assignments.insert_all(conn, [row("d1")])
        await conn.exec_driver_sql("UPDATE assignments SET detail = 'kept'")
        await assignments.save_all(conn, [(row("d1"), row("d1"))])
        found = await assignments.get(conn, "r-1", "d1")
    assert found is not None
    assert found.detail == "kept"


async def test_rollouts_are_counted_apart(db: Database) -> None:
    """One device may stand in two of them."""
    one, two = row("d1"), row("d1", rollout="r-2", updated_at=NOW)
    async with db.begin() as conn:
        await assignments.insert_all(conn, [one, two])
        await assignments.save_all(conn, [(one, replace(one, state=OFFERED, offered_at=NOW))])
        assert await assignments.load_counts(conn, "r-1") == {0: {"state:offered": 1, "offered": 1}}
        assert await assignments.load_counts(conn, "r-2") == {0: {"state:pending": 1}}
        assert [found.rollout for found in await assignments.of_device(conn, "d1")] == ["r-2", "r-1"]
        assert set(await assignments.get_many(conn, [("r-1", "d1"), ("r-2", "d1"), ("r-2", "d2")])) == {
            ("r-1", "d1"),
            ("r-2", "d1"),
        }


async def test_the_newest_is_the_one_that_moved_last(db: Database) -> None:
    """Of each device one; the later rollout where both moved at once; none where there is none."""
    moved = {"r-1": NOW + timedelta(hours=1), "r-2": NOW}
    rows = [row("d1", rollout=rollout, updated_at=at) for rollout, at in moved.items()]
    rows += [row("d2", rollout=rollout, updated_at=NOW) for rollout in moved]
    async with db.begin() as conn:
        await assignments.insert_all(conn, rows)
        found = await assignments.newest(conn, ["d1", "d2", "d3"])
    assert {device: (one.rollout, one) for device, one in found.items()} == {
        "d1": ("r-1", rows[0]),
        "d2": ("r-2", rows[3]),
    }


async def test_what_did_not_change_is_not_written(db: Database) -> None:
    """Two writers of different columns do not undo one another; every column can be written."""
    before = row("d1")
    after = replace(before, detail="full", reasons=[{"gate": "disk"}], offer_expires=NOW)
    async with db.begin() as conn:
        await assignments.insert_all(conn, [before])
        await conn.exec_driver_sql("UPDATE assignments SET log = 'boom'")
        await assignments.save_all(conn, [(before, after)])
        assert await assignments.get(conn, "r-1", "d1") == replace(after, log="boom")


async def test_a_stage_of_many(db: Database) -> None:
    """More rows than one statement takes."""
    rows = [row(f"d{number:04}") for number in range(1001)]
    async with db.begin() as conn:
        await assignments.insert_all(conn, rows)
        await assignments.save_all(conn, [(before, replace(before, ready=True)) for before in rows])
        assert await assignments.load_counts(conn, "r-1") == {0: Counter({"state:pending": 1001, "ready": 1001})}
        assert len(await assignments.get_many(conn, [("r-1", before.device) for before in rows])) == 1001


async def test_who_is_offered_next(db: Database) -> None:
    """Ready, pending, enrolled devices of that stage in their random order."""
    rows = [
        row("last", place=0.9, ready=True),
        row("first", place=0.1, ready=True),
        row("waits", place=0.2),
        row("revoked", place=0.3, ready=True),
        row("other", 1, place=0.4, ready=True),
        row("offered", place=0.5, ready=True, state=OFFERED),
    ]
    async with db.begin() as conn:
        for found in rows:
            state = DeviceState.REVOKED if found.device == "revoked" else DeviceState.ENROLLED
            device = Device(id=found.device, product="p", hardware="h", state=state, enrolled_at=NOW)
            await devices.insert(conn, device, report_key={}, content_key="")
        await assignments.insert_all(conn, rows)
        assert [f.device for f in await EngineRows(conn, "r-1").next(0, 10)] == ["first", "last"]
        assert [f.device for f in await EngineRows(conn, "r-1").next(0, 1)] == ["first"]


async def test_whose_offer_runs_out(db: Database) -> None:
    """Open offers only, the earliest first, the given instant included."""
    at = {name: NOW + timedelta(seconds=n) for n, name in enumerate(["soon", "later", "due", "after"])}
    rows = [row(name, grant="download" if name != "later" else "activate", offer_expires=at[name]) for name in at]
    rows.append(row("closed", grant="closed", offer_expires=NOW))
    async with db.begin() as conn:
        await assignments.insert_all(conn, rows)
        found = await assignments.open_offers_until(conn, "r-1", at["due"], 10)
    assert [f.device for f in found] == ["soon", "later", "due"]
