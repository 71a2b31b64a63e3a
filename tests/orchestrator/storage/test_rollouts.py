"""Rollouts and stages in rows."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from orchestrator.model.assignment import Assignment
from orchestrator.model.plan import Members, RolloutSpec, StageSpec
from orchestrator.model.rollout import RolloutState, StageState
from orchestrator.storage import assignments, rollouts
from orchestrator.storage.database import Database
from protocol.manifest import Policy

NOW = datetime(2026, 11, 24, tzinfo=UTC)
SPEC = RolloutSpec(
    release="gateway/1.1.0",
    members=Members(selector="site in (lab,plant)"),
    stages=[StageSpec(name="canary", group="canary"), StageSpec(name="all", percent=100)],
    success_ratio=0.9,
    soak_s=1.5,
    halt_count=3,
    pace_per_minute=0.5,
    start_at=NOW + timedelta(hours=1),
    policy=Policy(min_battery_percent=30),
)


async def test_a_plan_is_checked_once_and_read_as_it_stands(db: Database) -> None:
    """Who reads it again gets the plan of before; under an id that is given again stands another one."""
    async with db.begin() as conn:
        await rollouts.insert(conn, "r-1", SPEC, RolloutState.DRAFT, NOW)
        first, second = await rollouts.get(conn, "r-1"), await rollouts.get(conn, "r-1")
        assert first is not None
        assert second is not None
        assert first.spec is second.spec
        other = SPEC.model_copy(update={"success_ratio": 0.5})
        await rollouts.save(conn, "r-1", spec=other.model_dump(mode="json"))
        changed = await rollouts.get(conn, "r-1")
        assert changed is not None
        assert changed.spec == other


async def test_a_rollout_is_read_as_it_was_written(db: Database) -> None:
    """Its plan, its stages, and what changes later; keys of JSON become numbers again."""
    async with db.begin() as conn:
        await rollouts.insert(conn, "r-1", SPEC, RolloutState.SCHEDULED, NOW)
        found = await rollouts.get(conn, "r-1")
        assert found is not None
        assert (found.spec, found.state, found.created_at) == (SPEC, RolloutState.SCHEDULED, NOW)
        await rollouts.save(
            conn, "r-1", acknowledged={"0": {"state:succeeded": 2}}, pace_at=NOW, state=RolloutState.RUNNING
        )
        changed = await rollouts.get(conn, "r-1")
        assert changed == replace(
            found, acknowledged={0: {"state:succeeded": 2}}, pace_at=NOW, state=RolloutState.RUNNING, version=2
        )
        stages = await rollouts.load_stages(conn, "r-1")
        assert [(s.name, s.state, s.members) for s in stages] == [
            ("canary", StageState.PENDING, 0),
            ("all", StageState.PENDING, 0),
        ]
        opened = replace(stages[1], state=StageState.SOAKING, members=7, opened_at=NOW, soaking_since=NOW)
        await rollouts.save_stages(conn, [opened])
        assert await rollouts.load_stages(conn, "r-1") == [stages[0], opened]


async def test_what_the_engine_looks_at(db: Database) -> None:
    """Neither drafts nor what has ended; an aborted rollout until its devices are done."""
    async with db.begin() as conn:
        for state in RolloutState:
            await rollouts.insert(conn, state.value, SPEC, state, NOW)
        await rollouts.save(conn, "completed", ended_at=NOW)
        active = {rollout.id for rollout in await rollouts.not_ended(conn)}
        assert active == {"scheduled", "running", "paused", "halted", "aborted"}
        assert await rollouts.states(conn) == {state.value: state.value for state in RolloutState}
        assert [r.id for r in await rollouts.page(conn, after="halted", limit=2)] == ["paused", "running"]


async def test_ids_are_not_given_twice(db: Database) -> None:
    """Also where a person took one that was next."""
    async with db.begin() as conn:
        assert await rollouts.next_id(conn) == "r-1"
        await rollouts.insert(conn, "r-2", SPEC, RolloutState.DRAFT, NOW)
        assert await rollouts.next_id(conn) == "r-3"


async def test_why_devices_wait(db: Database) -> None:
    """Counted by stage and gate, of devices that are not done."""
    reasons = [{"gate": "power", "code": "battery_low"}, {"gate": "in_use", "code": "held"}]
    places = [(0, "pending", reasons), (0, "fetched", reasons[:1]), (1, "pending", reasons[1:]), (1, "failed", reasons)]
    rows = [
        Assignment(rollout="r-1", device=f"d{n}", stage=stage, place=0, state=state, reasons=found)
        for n, (stage, state, found) in enumerate([*places, (1, "pending", [])])
    ]
    async with db.begin() as conn:
        await assignments.insert_all(conn, rows)
        assert await rollouts.waiting_reasons(conn, "r-1") == {
            0: {"power: battery_low": 2, "in_use: held": 1},
            1: {"in_use: held": 1},
        }


async def test_when_the_first_offer_runs_out(db: Database) -> None:
    """Of open ones; None where there is none."""
    rows = [
        Assignment(rollout="r-1", device=grant, stage=0, place=0, grant=grant, offer_expires=NOW + timedelta(hours=n))
        for n, grant in enumerate(["closed", "activate", "download"])
    ]
    async with db.begin() as conn:
        assert await rollouts.next_offer_expiry(conn, "r-1") is None
        await assignments.insert_all(conn, rows)
        assert await rollouts.next_offer_expiry(conn, "r-1") == NOW + timedelta(hours=1)
