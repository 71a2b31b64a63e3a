"""Every knob of a plan has an effect: for each there is a test that fails when the knob is ignored."""

import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel

from orchestrator.model.plan import RolloutSpec, StageSpec
from orchestrator.model.rollout import RolloutState
from orchestrator.storage import assignments
from protocol.errors import ErrorCode
from protocol.manifest import Policy
from protocol.states import State
from tests.orchestrator.rollouts.yard import NOW, Yard, plan

S = RolloutState
LENIENT: dict[str, Any] = {"halt_ratio": 1.0, "halt_min_sample": 99}
HERE = Path(__file__).parent
_HALT = "test_halt_rules_by_class_share_count_and_scope"
KNOBS = {
    "release": "test_reverting.py::test_a_clone_has_the_plan_and_a_life_of_its_own",
    "members.group": "test_taking_in.py::test_who_comes_to_fit_joins_too",
    "members.selector": "test_taking_in.py::test_who_comes_to_fit_joins_too",
    "members.devices": "test_knobs.py::test_lists_of_devices",
    "members.dynamic": "test_taking_in.py::test_who_enrols_later_joins_the_last_open_stage",
    "members.reverts": "test_reverting.py::test_one_rollout_back_for_each_version",
    "members.unhealthy": "test_reverting.py::test_only_the_unhealthy",
    "stages.name": "test_knobs.py::test_lists_of_devices",
    "stages.group": "test_plans.py::*",
    "stages.selector": "test_plans.py::*",
    "stages.percent": "test_plans.py::*",
    "stages.devices": "test_knobs.py::test_lists_of_devices",
    "stages.success_ratio": "test_knobs.py::test_a_stage_has_rules_of_its_own",
    "stages.min_sample": "test_knobs.py::test_a_stage_has_rules_of_its_own",
    "stages.soak_s": "test_knobs.py::test_a_stage_has_rules_of_its_own",
    "stages.approval": "test_knobs.py::test_a_stage_has_rules_of_its_own",
    "stages.halt_rules": f"test_knobs.py::{_HALT}",
    "success_ratio": "test_rules.py::test_success",
    "min_sample": "test_rules.py::test_success",
    "soak_s": "test_engine.py::test_a_soak_is_waited_out",
    "approval": "test_verbs.py::test_a_stage_that_wants_a_person_waits_for_promote",
    "halt_ratio": "test_rules.py::test_failures",
    "halt_min_sample": "test_rules.py::test_failures",
    "halt_count": "test_rules.py::test_the_count_is_over_all_stages",
    "halt_rules.classes": f"test_knobs.py::{_HALT}",
    "halt_rules.ratio": f"test_knobs.py::{_HALT}",
    "halt_rules.min_sample": f"test_knobs.py::{_HALT}",
    "halt_rules.count": f"test_knobs.py::{_HALT}",
    "halt_rules.scope": f"test_knobs.py::{_HALT}",
    "on_halt": "test_reverting.py::test_a_rule_that_halts_reverts_where_the_plan_wants_it",
    "pace_per_minute": "test_taking_in.py::test_the_pace_holds_for_late_joiners",
    "pace_growth.factor": "test_knobs.py::test_the_pace_grows",
    "pace_growth.every": "test_knobs.py::test_the_pace_grows",
    "pace_growth.of": "test_knobs.py::test_the_pace_grows",
    "pace_growth.max_per_minute": "test_knobs.py::test_the_pace_grows",
    "site_bytes_per_hour": "test_knobs.py::test_bytes_by_site_and_hour",
    "max_unavailable.label": "test_permits.py::test_one_at_a_time",
    "max_unavailable.group": "test_knobs.py::test_permits_by_group",
    "max_unavailable.count": "test_permits.py::test_one_at_a_time",
    "start_at": "test_controller.py::test_a_scheduled_rollout_starts_by_the_clock",
    "end_at": "test_knobs.py::test_the_end_of_a_rollout",
    "at_end": "test_knobs.py::test_the_end_of_a_rollout",
    "timeouts.queued_s": "test_knobs.py::test_what_takes_too_long",
    "timeouts.downloading_s": "test_knobs.py::test_what_takes_too_long",
    "timeouts.installing_s": "test_knobs.py::test_what_takes_too_long",
    "timeouts.verifying_s": "test_knobs.py::test_what_takes_too_long",
    "retries.times": "test_knobs.py::test_retries_by_class_with_back_off",
    "retries.backoff_s": "test_knobs.py::test_retries_by_class_with_back_off",
    "retries.factor": "test_knobs.py::test_retries_by_class_with_back_off",
    "retries.max_backoff_s": "test_knobs.py::test_retries_by_class_with_back_off",
    "weight": "test_priorities.py::test_a_lighter_one_gives_way_before_it_installs",
    "emergency": "test_knobs.py::test_an_emergency_skips_soaks_and_persons",
    "needs_approval": "test_verbs.py::test_a_plan_that_needs_approval_is_started_by_nobody_alone",
    "policy": "test_knobs.py::test_the_policy_is_announced",
}
"""Knob -> the test that fails when it is ignored."""


def _knobs(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        inner = next((part for part in _parts(field.annotation) if _is_ours(part)), None)
        if inner is None:
            yield prefix + name
        elif f"{prefix}{name}" == "stages.halt_rules":  # as those of the plan
            yield "stages.halt_rules"
        else:
            yield from _knobs(inner, f"{prefix}{name}.")


def _parts(annotation: Any) -> Iterator[Any]:
    yield annotation
    for part in get_args(annotation):
        yield from _parts(part)


def _is_ours(part: Any) -> bool:
    return isinstance(part, type) and issubclass(part, BaseModel) and part is not Policy


def test_every_knob_has_its_test() -> None:
    """A knob that no test shows to have an effect does not exist."""
    assert set(KNOBS) == set(_knobs(RolloutSpec))
    for name in KNOBS.values():
        file, _, test = name.partition("::")
        text = (HERE / file).read_text()
        assert test == "*" or re.search(rf"def {test}\(", text), name


async def offered(yard: Yard, ids: list[str], **rules: Any) -> str:
    """A rollout in which these devices were offered the release."""
    await yard.add_devices(ids)
    rollout = await yard.run(plan(**{**LENIENT, **rules}))
    await ask(yard, rollout, ids)
    return rollout


async def ask(yard: Yard, rollout: str, ids: list[str]) -> None:
    """They say that they are ready, and the engine looks."""
    await yard.look()
    for device in ids:
        await yard.ready(rollout, device)
    await all_looks(yard)


async def all_looks(yard: Yard) -> None:
    """Until there is nothing more to do at once."""
    while await yard.look() == 0:
        pass


async def test_lists_of_devices(yard: Yard) -> None:
    """Members by name, stages by name."""
    await yard.add_devices(["d1", "d2", "d3"])
    stages = [StageSpec(name="first", devices=("d2",)), StageSpec(name="rest", percent=100)]
    rollout = await yard.run(plan(*stages, members={"devices": ["d1", "d2"]}))
    assert {row.device: row.stage for row in await yard.rows(rollout)} == {"d1": 1, "d2": 0}


@pytest.mark.parametrize(
    ("own", "finished", "passes"),
    [
        ({"success_ratio": 0.5}, ["succeeded", "failed"], True),
        ({}, ["succeeded", "failed"], False),
        ({"min_sample": 2}, ["succeeded"], False),
        ({"min_sample": 1}, ["succeeded"], True),
        ({"soak_s": 60}, ["succeeded"], False),
        ({"approval": True}, ["succeeded"], False),
        ({"approval": False}, ["succeeded"], True),
    ],
)
async def test_a_stage_has_rules_of_its_own(yard: Yard, own: dict[str, Any], finished: list[str], passes: bool) -> None:
    """They count instead of the plan's."""
    await yard.add_devices(["d1", "d2", "d3"])
    stages = [StageSpec(name="a", devices=("d1", "d2"), **own), StageSpec(name="b", percent=100)]
    rollout = await yard.run(plan(*stages, success_ratio=0.9, approval=own.get("approval") is False, **LENIENT))
    await ask(yard, rollout, ["d1", "d2"])
    for device, outcome in zip(["d1", "d2"], finished, strict=False):
        await yard.report(rollout, device, State(outcome))
    await all_looks(yard)
    assert ((await yard.stages(rollout))[0] == "passed") is passes


@pytest.mark.parametrize(
    ("rule", "outcomes", "halts"),
    [
        ({"classes": ["health"], "count": 1}, [("rolled_back", "E_HEALTH")], True),
        ({"classes": ["health"], "count": 1}, [("rolled_back", "E_INSTALL")], False),
        ({"classes": ["rolled_back"], "count": 1}, [("rolled_back", "E_INSTALL")], True),
        ({"classes": ["download"], "count": 1}, [("failed", "E_SLOW")], True),
        ({"classes": ["verify"], "count": 1}, [("rejected", "E_SIGNATURE")], True),
        ({"classes": ["install"], "count": 1}, [("rolled_back", "E_INSTALL")], True),
        ({"classes": ["timed_out"], "count": 1}, [("rolled_back", "E_TIMEOUT")], True),
        ({"classes": ["declined"], "count": 1}, [("declined", None)], True),
        ({"count": 1}, [("declined", None)], False),
        ({"count": 2}, [("failed", "E_SLOW")], False),
        ({"count": 2}, [("failed", "E_SLOW"), ("rejected", "E_KEY")], True),
        ({"ratio": 0.5, "min_sample": 2}, [("failed", "E_SLOW")], False),
        ({"ratio": 0.5, "min_sample": 2}, [("failed", "E_SLOW"), ("succeeded", None)], True),
        ({"ratio": 0.6, "min_sample": 2}, [("failed", "E_SLOW"), ("succeeded", None)], False),
        ({"ratio": 0.3, "classes": ["declined"], "min_sample": 2}, [("declined", None), ("succeeded", None)], True),
        ({"classes": ["health", "rolled_back"], "count": 2}, [("rolled_back", "E_HEALTH")], False),
    ],
)
@pytest.mark.parametrize("where", ["plan", "stage", "rollout"])
async def test_halt_rules_by_class_share_count_and_scope(
    yard: Yard, where: str, rule: dict[str, Any], outcomes: list[tuple[str, str | None]], halts: bool
) -> None:
    """Each device once, whatever classes it belongs to; of a stage, of each stage, or over all of them."""
    ids = ["d1", "d2", "d3"]
    own = {"halt_rules": [rule]} if where == "stage" else {}
    rules = {"halt_rules": [{**rule, "scope": where}]} if where == "rollout" else {"halt_rules": [rule]}
    stage = StageSpec.model_validate({"name": "all", "percent": 100, **own})
    await yard.add_devices(ids)
    rollout = await yard.run(plan(stage, **LENIENT, **({} if where == "stage" else rules)))
    await ask(yard, rollout, ids)
    for device, (state, code) in zip(ids, outcomes, strict=False):
        await yard.report(rollout, device, State(state), code=ErrorCode(code) if code else None)
    await all_looks(yard)
    assert ((await yard.rollout(rollout)).state is S.HALTED) is halts


@pytest.mark.parametrize(
    ("growth", "expected"),
    [
        (None, 1),
        ({"factor": 4, "every": 1, "of": "offered", "max_per_minute": 100}, 4),
        ({"factor": 2, "every": 1, "of": "offered", "max_per_minute": 100}, 2),
        ({"factor": 4, "every": 1, "of": "offered", "max_per_minute": 3}, 3),
        ({"factor": 4, "every": 2, "of": "offered", "max_per_minute": 100}, 1),
        ({"factor": 4, "every": 1, "of": "succeeded", "max_per_minute": 100}, 1),
    ],
)
async def test_the_pace_grows(yard: Yard, growth: dict[str, Any] | None, expected: int) -> None:
    """After the first offer: by the factor, for so many devices, of those that were offered, up to a most."""
    ids = [f"d{n}" for n in range(20)]
    rollout = await offered(yard, ids, pace_per_minute=1, pace_growth=growth)
    assert len(await yard.offered(rollout)) == 1
    yard.clock.advance(60 / (1 if expected == 1 else expected))
    await yard.look()
    first = len(await yard.offered(rollout))
    assert first == 2
    if expected > 1:
        yard.clock.advance(0.5)
        await yard.look()
        assert len(await yard.offered(rollout)) >= 2


async def test_bytes_by_site_and_hour(yard: Yard) -> None:
    """One image an hour for each site; the next comes when the first is an hour old, and other sites do not mind."""
    await yard.add_devices(["l1", "l2", "l3"], labels={"site": "lab"})
    await yard.add_devices(["y1"], labels={"site": "yard"})
    rollout = await yard.run(plan(site_bytes_per_hour=2, **LENIENT))
    await ask(yard, rollout, ["l1", "l2", "l3", "y1"])
    assert len(await yard.offered(rollout)) == 3
    (held,) = [row for row in await yard.rows(rollout) if row.state == "pending"]
    assert (held.held_by, held.not_before) == ("site", NOW + timedelta(hours=1))
    yard.clock.advance(3599)
    await all_looks(yard)
    assert len(await yard.offered(rollout)) == 3
    yard.clock.advance(1)
    await all_looks(yard)
    assert len(await yard.offered(rollout)) == 4


async def test_permits_by_group(yard: Yard) -> None:
    """Only devices of the group are counted."""
    await yard.add_devices(["g1", "g2"], group="ward")
    await yard.add_devices(["d1"])
    rollout = await yard.run(plan(max_unavailable=[{"group": "ward", "count": 1}], **LENIENT))
    await ask(yard, rollout, ["g1", "g2", "d1"])
    for device in ("g1", "g2", "d1"):
        await yard.report(rollout, device, State.FETCHED)
    await all_looks(yard)
    granted = {row.device for row in await yard.rows(rollout) if row.grant == "activate"}
    assert "d1" in granted and len(granted) == 2


@pytest.mark.parametrize(
    ("at_end", "state", "pending"),
    [("stop", S.RUNNING, "expired"), ("halt", S.HALTED, "pending"), ("abort", S.ABORTED, "cancelled")],
)
async def test_the_end_of_a_rollout(yard: Yard, at_end: str, state: S, pending: str) -> None:
    """Nobody is offered anything after it; who has an offer goes on, waits or is told to leave off."""
    await yard.add_devices(["d1", "d2"])
    rollout = await yard.run(plan(end_at=NOW + timedelta(seconds=60), at_end=at_end, **LENIENT))
    await ask(yard, rollout, ["d1"])
    yard.clock.advance(59)
    await yard.look()
    assert (await yard.rollout(rollout)).state is S.RUNNING
    yard.clock.advance(1)
    await all_looks(yard)
    assert (await yard.rollout(rollout)).state is state
    assert (await yard.row(rollout, "d2")).state == pending
    await yard.ready(rollout, "d2")
    await all_looks(yard)
    assert await yard.offered(rollout) == {"d1"}
    if at_end == "stop":
        await yard.report(rollout, "d1", State.SUCCEEDED)
        await all_looks(yard)
        assert (await yard.rollout(rollout)).state is S.COMPLETED


@pytest.mark.parametrize(
    ("work", "says", "is_verdict"),
    [
        ("queued_s", [], False),
        ("downloading_s", [State.DOWNLOADING], False),
        ("installing_s", [State.INSTALLING], True),
        ("verifying_s", [State.INSTALLING, State.VERIFYING], True),
    ],
)
async def test_what_takes_too_long(yard: Yard, work: str, says: list[State], is_verdict: bool) -> None:
    """It counts as timed out after the limit and not before; a late word of the device replaces a verdict."""
    rollout = await offered(
        yard, ["d1", "d2"], timeouts={work: 600}, halt_rules=[{"classes": ["timed_out"], "count": 1}]
    )
    for state in says:
        await yard.report(rollout, "d1", state)
    yard.clock.advance(599)
    await all_looks(yard)
    assert (await yard.rollout(rollout)).state is S.RUNNING
    yard.clock.advance(1)
    await all_looks(yard)
    row = await yard.row(rollout, "d1")
    assert (row.verdict, row.state) == (("timed_out", says[-1]) if is_verdict else ("", "timed_out"))
    assert (await yard.rollout(rollout)).state is S.HALTED
    await yard.report(rollout, "d1", State.SUCCEEDED)
    assert (await yard.row(rollout, "d1")).state == "succeeded"
    assert (await yard.rollout(rollout)).state is S.HALTED  # latched
    await yard.check_counts()


async def test_retries_by_class_with_back_off(yard: Yard) -> None:
    """Each longer than the one before, up to the most; then it has failed; other classes are not tried again."""
    retry = {"times": 3, "backoff_s": 60, "factor": 2, "max_backoff_s": 100}
    rollout = await offered(yard, ["d1", "d2"], retries={"download": retry}, halt_count=1, success_ratio=0.1)
    for attempt, wait_s in enumerate((60, 100, 100), start=1):
        await yard.report(rollout, "d1", State.FAILED, code=ErrorCode.SLOW, attempt=attempt)
        await all_looks(yard)
        row = await yard.row(rollout, "d1")
        assert (row.state, row.held_by, row.retried) == ("pending", "retry", {"download": attempt})
        yard.clock.advance(wait_s - 1)
        await all_looks(yard)
        assert (await yard.row(rollout, "d1")).state == "pending"
        yard.clock.advance(1)
        await all_looks(yard)
        assert (await yard.row(rollout, "d1")).attempt == attempt + 1
    assert (await yard.rollout(rollout)).state is S.RUNNING  # a failure that is tried again is none yet
    await yard.report(rollout, "d1", State.FAILED, code=ErrorCode.SLOW, attempt=4)
    await all_looks(yard)
    assert (await yard.row(rollout, "d1")).state == "failed"
    assert (await yard.rollout(rollout)).state is S.HALTED


async def test_an_emergency_skips_soaks_and_persons(yard: Yard) -> None:
    """Rules are judged all the same."""
    await yard.add_devices(["d1", "d2"])
    stages = (StageSpec(name="a", percent=50), StageSpec(name="b", percent=100))
    rollout = await yard.run(plan(*stages, emergency=True, soak_s=86_400, approval=True, **LENIENT))
    await yard.look()
    (first,) = [row.device for row in await yard.rows(rollout) if row.stage == 0]
    await ask(yard, rollout, [first])
    assert await yard.stages(rollout) == ["open", "pending"]
    await yard.report(rollout, first, State.SUCCEEDED)
    await all_looks(yard)
    assert await yard.stages(rollout) == ["passed", "open"]


async def test_the_policy_is_announced(yard: Yard) -> None:
    """As it was given; see ``tests/orchestrator/delivery/test_renderers.py`` for what devices get."""
    await yard.add_devices(["d1"])
    rollout = await yard.run(plan(policy={"min_battery_percent": 55}))
    assert (await yard.rollout(rollout)).spec.policy == Policy(min_battery_percent=55)


async def test_silence_while_being_changed_is_a_failure_for_the_time_being(yard: Yard) -> None:
    """It is counted, halts where a rule says so, and is taken back when the device speaks."""
    rollout = await offered(yard, ["d1", "d2"])
    await yard.report(rollout, "d1", State.INSTALLING)
    async with yard.db.begin() as conn:
        row = await assignments.get(conn, rollout, "d1")
        assert row is not None
        await assignments.save_all(conn, [(row, replace(row, verdict="silent_after_activation"))])
        counts = await assignments.load_counts(conn, rollout)
    assert counts[0]["failed:verdict:silent_after_activation"] == 1
    await yard.report(rollout, "d1", State.VERIFYING)
    assert (await yard.row(rollout, "d1")).verdict == ""
    await yard.check_counts()
