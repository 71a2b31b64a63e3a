"""What parts in rollouts say about a release: set aside, under way, and how it went before."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from orchestrator.model.assignment import EXCLUDED, OFFERED, PENDING, Assignment
from orchestrator.model.failure import TIMED_OUT
from orchestrator.model.plan import RolloutSpec, StageSpec
from orchestrator.model.rollout import RolloutState
from orchestrator.storage import assignments, parts, rollouts
from orchestrator.storage.database import Database
from orchestrator.storage.releases import PUBLISHED, ReleaseRecord, insert_release
from protocol.states import State

NOW = datetime(2026, 11, 24, tzinfo=UTC)
HOUR = timedelta(hours=1)
RELEASE = "gateway/1.1.0"


async def rollout(db: Database, name: str, release: str = RELEASE, **changes: Any) -> None:
    """A running rollout, or what the changes say."""
    spec = RolloutSpec(release=release, stages=[StageSpec(name="all", percent=100)])
    async with db.begin() as conn:
        await rollouts.insert(conn, name, spec, RolloutState.RUNNING, NOW)
        if changes:
            await rollouts.save(conn, name, **changes)


async def part(db: Database, name: str, device: str, state: str, hours: int = 0, **changes: Any) -> None:
    """A device's part, last moved so many hours from now."""
    values = {"stage": 0, "place": 0.0, "updated_at": NOW + hours * HOUR, **changes}
    async with db.begin() as conn:
        await assignments.insert_all(conn, [Assignment(rollout=name, device=device, state=state, **values)])


async def test_what_rolled_back_is_set_aside_until_it_was_taken(db: Database) -> None:
    """Of this release alone, since the newest time."""
    for name in ("r-1", "r-2"):
        await rollout(db, name)
    await rollout(db, "r-3", release="gateway/1.0.0")
    await part(db, "r-1", "back", State.ROLLED_BACK)
    await part(db, "r-2", "back", State.ROLLED_BACK, 2)
    await part(db, "r-1", "broken", State.INCONSISTENT)
    await part(db, "r-3", "other-release", State.ROLLED_BACK)
    await part(db, "r-1", "failed", State.FAILED)
    await part(db, "r-1", "mended", State.ROLLED_BACK)
    await part(db, "r-2", "mended", State.SUCCEEDED, 1)
    await part(db, "r-1", "back-again", State.SUCCEEDED)
    await part(db, "r-2", "back-again", State.ROLLED_BACK, 1)
    async with db.read() as conn:
        assert await parts.quarantined(conn, RELEASE) == {
            "back": NOW + 2 * HOUR, "broken": NOW, "back-again": NOW + HOUR,
        }  # fmt: skip
        assert await parts.quarantined(conn, RELEASE, ["broken", "failed"]) == {"broken": NOW}


@pytest.mark.parametrize(
    ("state", "changes", "is_open"),
    [
        (PENDING, {}, True),
        (OFFERED, {"state": RolloutState.HALTED}, True),
        (State.ROLLING_BACK, {"state": RolloutState.ABORTED}, True),
        (PENDING, {"state": RolloutState.DRAFT}, False),
        (PENDING, {"state": RolloutState.COMPLETED, "ended_at": NOW}, False),
        (State.SUCCEEDED, {}, False),
        (EXCLUDED, {}, False),
        (TIMED_OUT, {}, False),
    ],
)
async def test_an_open_part_holds_a_device(db: Database, state: str, changes: dict[str, Any], is_open: bool) -> None:
    """While its rollout has not ended; parts of other releases and of the rollout itself do not count."""
    await rollout(db, "r-1", **changes)
    await rollout(db, "r-2", release="gateway/1.0.0")
    await part(db, "r-1", "d1", state)
    await part(db, "r-2", "d2", PENDING)
    expected = {"d1": "r-1"} if is_open else {}
    async with db.read() as conn:
        assert await parts.open_elsewhere(conn, RELEASE) == expected
        assert await parts.open_elsewhere(conn, RELEASE, ids=["d1", "d2"]) == expected
        assert await parts.open_elsewhere(conn, RELEASE, ids=["d2"]) == {}
        assert await parts.open_elsewhere(conn, RELEASE, but="r-1") == {}
        assert await parts.placed(conn, "r-1", ["d1", "d2"]) == {"d1"}


async def test_the_newest_report_says_what_keeps_a_device_waiting(db: Database) -> None:
    """One that was ready since is not waiting."""
    low, busy = [{"gate": "power", "code": "low"}], [{"gate": "in_use", "code": "busy"}]
    for name in ("r-1", "r-2"):
        await rollout(db, name)
    await part(db, "r-1", "d1", PENDING, reasons=low)
    await part(db, "r-2", "d1", PENDING, 1, reasons=busy)
    await part(db, "r-1", "d2", PENDING, reasons=low)
    await part(db, "r-2", "d2", PENDING, 1)
    await part(db, "r-1", "never-heard", PENDING, updated_at=None)
    async with db.read() as conn:
        found = list(await parts.newest_reasons(conn))
    assert found == [("d1", '[{"gate": "in_use", "code": "busy"}]')]


async def test_ended_rollouts_of_a_product_are_remembered(db: Database) -> None:
    """With their final counts and how long devices took; those that offered nothing teach nothing."""
    record = ReleaseRecord(
        id=RELEASE, product="gateway", version="1.1.0", component="app", path="p", length=1, sha256="1" * 64,
        counter=1, info={}, wrapped_key=b"", image_bytes=1, chunk_bytes=1, state=PUBLISHED, imported_at=NOW,
    )  # fmt: skip
    async with db.begin() as conn:
        await insert_release(conn, record, {})
    await rollout(db, "done", offers_made=2, ended_at=NOW)
    await rollout(db, "running", offers_made=2)
    await rollout(db, "empty", ended_at=NOW)
    await part(db, "done", "d1", State.SUCCEEDED, 3, offered_at=NOW)
    await part(db, "done", "d2", State.FAILED, 9, offered_at=NOW)
    async with db.read() as conn:
        (past,) = await parts.past_rollouts(conn, "gateway")
        assert (past.id, past.release, past.stages) == ("done", RELEASE, (("all", 0),))
        assert past.counts[0]["state:succeeded"] == past.counts[0]["state:failed"] == 1
        assert await parts.update_times_s(conn, ["done"]) == [3 * 3600.0]
        assert await parts.past_rollouts(conn, "camera") == []
