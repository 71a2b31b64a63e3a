"""Every knob of a plan does something: for each a test that fails when the knob is ignored."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from orchestrator.model.plan import (
    Growth,
    HaltRule,
    Members,
    Retry,
    RolloutSpec,
    StageSpec,
    Timeouts,
    UnavailableLimit,
)
from orchestrator.model.rollout import RolloutState
from orchestrator.rollouts import creating
from protocol.errors import ErrorCode
from protocol.states import State
from tests.orchestrator.rollouts.yard import NOW, RELEASE, Yard, plan

FOUR = ["d1", "d2", "d3", "d4"]
REST = StageSpec(name="rest", percent=100)
LENIENT: dict[str, Any] = {"halt_ratio": 1.0, "halt_min_sample": 4}
KNOBS = {
    "RolloutSpec.release": "test_release",
    "RolloutSpec.members": "test_members_devices",
    "RolloutSpec.stages": "test_stage_devices",
    "RolloutSpec.success_ratio": "test_success_ratio",
    "RolloutSpec.min_sample": "test_min_sample",
    "RolloutSpec.soak_s": "test_soak_s",
    "RolloutSpec.approval": "test_approval",
    "RolloutSpec.halt_ratio": "test_halt_ratio",
    "RolloutSpec.halt_min_sample": "test_halt_min_sample",
    "RolloutSpec.halt_count": "test_halt_count",
    "RolloutSpec.halt_rules": "test_halt_rules",
    "RolloutSpec.on_halt": "test_reverting.py::test_a_rule_that_halts_reverts_where_the_plan_wants_it",
    "RolloutSpec.pace_per_minute": "test_pace_per_minute",
    "RolloutSpec.pace_growth": "test_pace_growth",
    "RolloutSpec.site_bytes_per_hour": "test_site_bytes_per_hour",
    "RolloutSpec.max_unavailable": "test_max_unavailable",
    "RolloutSpec.start_at": "test_controller.py::test_a_scheduled_rollout_starts_by_the_clock",
    "RolloutSpec.end_at": "test_end",
    "RolloutSpec.at_end": "test_end",
    "RolloutSpec.timeouts": "test_timeouts",
    "RolloutSpec.retries": "test_retries",
    "RolloutSpec.weight": "test_priorities.py::test_a_lighter_one_gives_way_before_it_installs",
    "RolloutSpec.emergency": "test_emergency",
    "RolloutSpec.needs_approval": "test_verbs.py::test_a_plan_that_needs_approval_is_started_by_nobody_alone",
    "RolloutSpec.policy": "../delivery/test_renderers.py::test_an_emergency_sends_no_windows",
    "Members.group": "test_members_group_and_selector",
    "Members.selector": "test_members_group_and_selector",
    "Members.devices": "test_members_devices",
    "Members.dynamic": "test_taking_in.py::test_who_enrols_later_joins_the_last_open_stage",
    "Members.reverts": "test_reverting.py::test_one_rollout_back_for_each_version",
    "Members.unhealthy": "test_reverting.py::test_only_the_unhealthy",
    "StageSpec.name": "test_stage_name",
    "StageSpec.group": "test_stage_group_and_selector",
    "StageSpec.selector": "test_stage_group_and_selector",
    "StageSpec.percent": "test_stage_percent",
    "StageSpec.devices": "test_stage_devices",
    "StageSpec.success_ratio": "test_success_ratio",
    "StageSpec.min_sample": "test_min_sample",
    "StageSpec.soak_s": "test_soak_s",
    "StageSpec.approval": "test_approval",
    "StageSpec.halt_rules": "test_halt_rules_of_a_stage",
    "HaltRule.classes": "test_halt_rule_classes",
    "HaltRule.ratio": "test_halt_rule_ratio",
    "HaltRule.min_sample": "test_halt_rule_min_sample",
    "HaltRule.count": "test_halt_rules",
    "HaltRule.scope": "test_halt_rule_scope",
    "Growth.factor": "test_pace_growth",
    "Growth.every": "test_pace_growth",
    "Growth.of": "test_pace_growth",
    "Growth.max_per_minute": "test_pace_growth",
    "UnavailableLimit.label": "test_max_unavailable",
    "UnavailableLimit.group": "test_max_unavailable",
    "UnavailableLimit.count": "test_max_unavailable",
    "Timeouts.queued_s": "test_timeouts",
    "Timeouts.downloading_s": "test_timeouts",
    "Timeouts.installing_s": "test_timeouts",
    "Timeouts.verifying_s": "test_timeouts",
    "Retry.times": "test_retries",
    "Retry.backoff_s": "test_retries",
    "Retry.factor": "test_retries",
    "Retry.max_backoff_s": "test_retries",
}
"""Field -> the test that fails without it; of this file where no other is named."""
PLANS: tuple[type[BaseModel], ...] = (
    RolloutSpec, Members, StageSpec, HaltRule, Growth, UnavailableLimit, Timeouts, Retry,
)  # fmt: skip


def test_every_knob_has_its_test() -> None:
    """Who adds a field to the plan shows here that it has an effect."""
    fields = {f"{model.__name__}.{name}" for model in PLANS for name in model.model_fields}
    assert set(KNOBS) == fields
    here = Path(__file__)
    for knob, named in KNOBS.items():
        file, _, test = named.rpartition("::")
        text = (here.parent / file if file else here).read_text()
        assert f"def {test}(" in text, f"{knob}: there is no test {named}"


async def settle(yard: Yard) -> None:
    """Look until nothing more is to be done at once."""
    while await yard.look() <= 0:
        pass


async def begun(yard: Yard, ids: list[str], *stages: StageSpec, **rules: Any) -> str:
    """A rollout over these devices, all of them ready."""
    async with yard.db.read() as conn:
        known = {row[0] for row in await conn.exec_driver_sql("SELECT id FROM devices")}
    await yard.add_devices([name for name in ids if name not in known])
    rollout = await yard.run(plan(*stages, **rules))
    await settle(yard)
    for device in ids:
        await yard.ready(rollout, device)
    await settle(yard)
    return rollout


async def ends(yard: Yard, rollout: str, outcome: State, *ids: str, **more: Any) -> None:
    """These devices come to an outcome, and the controller looks."""
    for device in ids:
        await yard.report(rollout, device, outcome, attempt=(await yard.row(rollout, device)).attempt, **more)
    await settle(yard)


async def is_halted(yard: Yard, rollout: str) -> bool:
    """Whether it is."""
    return (await yard.rollout(rollout)).state is RolloutState.HALTED


async def passes(yard: Yard, seconds: float) -> None:
    """Time goes by, and the controller looks."""
    yard.clock.advance(seconds)
    await settle(yard)


def canary(*ids: str, **more: Any) -> StageSpec:
    """The first stage, of these devices."""
    return StageSpec(name="canary", devices=ids, **more)


# -- who, and in which stage ---------------------------------------------------------------------------------------


async def test_release(yard: Yard) -> None:
    """Who runs it already takes no part."""
    await yard.add_release(name="gateway/1.2.0")
    await yard.add_devices(["d1"], components={"app": "1.2.0"})
    await yard.add_devices(["d2"], components={"app": "1.1.0"})
    rollout = await yard.run(plan(release="gateway/1.2.0"))
    assert {row.device for row in await yard.rows(rollout)} == {"d2"}


async def test_members_group_and_selector(yard: Yard) -> None:
    """Both must hold."""
    await yard.add_devices(["d1"], group="line", labels={"floor": "1"})
    await yard.add_devices(["d2"], labels={"floor": "2"})
    for members, chosen in ((Members(group="line"), {"d1"}), (Members(selector="floor=2"), {"d2"})):
        rollout = await yard.run(plan(members=members))
        assert {row.device for row in await yard.rows(rollout)} == chosen


async def test_members_devices(yard: Yard) -> None:
    """Only those that are listed."""
    await yard.add_devices(FOUR)
    rollout = await yard.run(plan(members=Members(devices=("d2", "d4"))))
    assert {row.device for row in await yard.rows(rollout)} == {"d2", "d4"}


async def test_stage_name(yard: Yard) -> None:
    """It is what people read."""
    rollout = await begun(yard, ["d1"], StageSpec(name="berlin", percent=100))
    await ends(yard, rollout, State.FAILED, "d1")
    assert "stage berlin: 1 of 1" in (await yard.rollout(rollout)).reason


async def test_stage_group_and_selector(yard: Yard) -> None:
    """Each takes its devices first; the rest is for the last stage."""
    await yard.add_devices(["d1"], group="lab")
    await yard.add_devices(["d2"], labels={"floor": "2"})
    await yard.add_devices(["d3"])
    stages = (StageSpec(name="a", group="lab"), StageSpec(name="b", selector="floor=2"), REST)
    rollout = await yard.run(plan(*stages))
    assert {row.device: row.stage for row in await yard.rows(rollout)} == {"d1": 0, "d2": 1, "d3": 2}


async def test_stage_percent(yard: Yard) -> None:
    """A share of all members."""
    await yard.add_devices(FOUR)
    rollout = await yard.run(plan(StageSpec(name="a", percent=75), REST))
    assert await yard.sizes(rollout) == [3, 1]


async def test_stage_devices(yard: Yard) -> None:
    """The stage has those that are listed, and only they are offered while it is open."""
    rollout = await begun(yard, FOUR, canary("d2", "d3"), REST)
    assert await yard.offered(rollout) == {"d2", "d3"}


# -- when a stage passes -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["plan", "stage"])
async def test_success_ratio(yard: Yard, where: str) -> None:
    """Half of them succeeded, and half is enough."""
    at = {"success_ratio": 0.5}
    stage = canary("d1", "d2", **(at if where == "stage" else {}))
    rollout = await begun(yard, FOUR, stage, REST, **LENIENT, **(at if where == "plan" else {}))
    await ends(yard, rollout, State.FAILED, "d1")
    await ends(yard, rollout, State.SUCCEEDED, "d2")
    assert await yard.stages(rollout) == ["passed", "open"]


@pytest.mark.parametrize("where", ["plan", "stage"])
async def test_min_sample(yard: Yard, where: str) -> None:
    """One success is not enough where two are wanted."""
    at = {"min_sample": 2}
    stage = canary("d1", "d2", "d3", **(at if where == "stage" else {}))
    rollout = await begun(yard, FOUR, stage, REST, **(at if where == "plan" else {}))
    await ends(yard, rollout, State.SUCCEEDED, "d1")
    assert await yard.stages(rollout) == ["open", "pending"]
    await ends(yard, rollout, State.SUCCEEDED, "d2")
    assert await yard.stages(rollout) == ["passed", "open"]


@pytest.mark.parametrize("where", ["plan", "stage"])
async def test_soak_s(yard: Yard, where: str) -> None:
    """Its rule must hold that long."""
    at = {"soak_s": 60}
    stage = canary("d1", **(at if where == "stage" else {}))
    rollout = await begun(yard, ["d1", "d2"], stage, REST, **(at if where == "plan" else {}))
    await ends(yard, rollout, State.SUCCEEDED, "d1")
    await passes(yard, 59)
    assert await yard.stages(rollout) == ["soaking", "pending"]
    await passes(yard, 1)
    assert await yard.stages(rollout) == ["passed", "open"]


@pytest.mark.parametrize("where", ["plan", "stage"])
async def test_approval(yard: Yard, where: str) -> None:
    """A person opens the next stage."""
    at = {"approval": True}
    stage = canary("d1", **(at if where == "stage" else {}))
    rollout = await begun(yard, ["d1", "d2"], stage, REST, **(at if where == "plan" else {}))
    await ends(yard, rollout, State.SUCCEEDED, "d1")
    assert await yard.stages(rollout) == ["awaiting_approval", "pending"]
    await yard.order(rollout, "promote")
    await settle(yard)
    assert await yard.stages(rollout) == ["passed", "open"]


async def test_emergency(yard: Yard) -> None:
    """Neither a soak nor a person is waited for."""
    rollout = await begun(yard, ["d1", "d2"], canary("d1", approval=True), REST, soak_s=600, emergency=True)
    await ends(yard, rollout, State.SUCCEEDED, "d1")
    assert await yard.stages(rollout) == ["passed", "open"]


# -- when it halts -------------------------------------------------------------------------------------------------


async def test_halt_ratio(yard: Yard) -> None:
    """A quarter of failures is below a half; a half is not."""
    rollout = await begun(yard, FOUR, halt_ratio=0.5, halt_min_sample=4)
    await ends(yard, rollout, State.SUCCEEDED, "d1", "d2")
    await ends(yard, rollout, State.FAILED, "d3")
    assert not await is_halted(yard, rollout)
    await ends(yard, rollout, State.FAILED, "d4")
    assert await is_halted(yard, rollout)


@pytest.mark.parametrize("sample", [1, 2])
async def test_halt_min_sample(yard: Yard, sample: int) -> None:
    """The first failure is judged, or the second device."""
    rollout = await begun(yard, FOUR, halt_min_sample=sample)
    await ends(yard, rollout, State.FAILED, "d1")
    assert await is_halted(yard, rollout) is (sample == 1)


async def test_halt_count(yard: Yard) -> None:
    """So many failures, whatever the share."""
    rollout = await begun(yard, FOUR, **LENIENT, halt_count=2)
    await ends(yard, rollout, State.FAILED, "d1")
    assert not await is_halted(yard, rollout)
    await ends(yard, rollout, State.FAILED, "d2")
    assert await is_halted(yard, rollout)


async def test_halt_rules(yard: Yard) -> None:
    """In addition to the plan's own."""
    rollout = await begun(yard, FOUR, **LENIENT, halt_rules=(HaltRule(count=2),))
    await ends(yard, rollout, State.FAILED, "d1")
    assert not await is_halted(yard, rollout)
    await ends(yard, rollout, State.FAILED, "d2")
    assert await is_halted(yard, rollout)


async def test_halt_rules_of_a_stage(yard: Yard) -> None:
    """They hold for that stage and for no other."""
    stages = (canary("d1", halt_rules=()), StageSpec(name="rest", percent=100, halt_rules=(HaltRule(count=1),)))
    rollout = await begun(yard, FOUR, *stages, **LENIENT)
    await ends(yard, rollout, State.SUCCEEDED, "d1")
    await ends(yard, rollout, State.FAILED, "d2")
    assert await is_halted(yard, rollout)


async def test_halt_rule_classes(yard: Yard) -> None:
    """What is not named does not count; what is left out of all does when it is named."""
    rules = (HaltRule(classes=frozenset({"health", "declined"}), count=2),)
    rollout = await begun(yard, FOUR, **LENIENT, halt_rules=rules)
    await ends(yard, rollout, State.FAILED, "d1", "d2", code=ErrorCode.INSTALL)
    assert not await is_halted(yard, rollout)
    await ends(yard, rollout, State.FAILED, "d3", code=ErrorCode.HEALTH)
    assert not await is_halted(yard, rollout)
    await ends(yard, rollout, State.DECLINED, "d4")
    assert await is_halted(yard, rollout)


async def test_halt_rule_ratio(yard: Yard) -> None:
    """Its own share."""
    rollout = await begun(yard, [*FOUR, "d5"], **LENIENT, halt_rules=(HaltRule(ratio=0.5, min_sample=2),))
    await ends(yard, rollout, State.SUCCEEDED, "d1", "d2")
    await ends(yard, rollout, State.FAILED, "d3")
    assert not await is_halted(yard, rollout)
    await ends(yard, rollout, State.FAILED, "d4")
    assert await is_halted(yard, rollout)


@pytest.mark.parametrize("sample", [1, 2])
async def test_halt_rule_min_sample(yard: Yard, sample: int) -> None:
    """Its own sample."""
    rollout = await begun(yard, FOUR, **LENIENT, halt_rules=(HaltRule(ratio=0.5, min_sample=sample),))
    await ends(yard, rollout, State.FAILED, "d1")
    assert await is_halted(yard, rollout) is (sample == 1)


@pytest.mark.parametrize("scope", ["stage", "rollout"])
async def test_halt_rule_scope(yard: Yard, scope: Any) -> None:
    """One failure in each of two stages are two of the rollout."""
    rules = (HaltRule(count=2, scope=scope),)
    rollout = await begun(yard, FOUR, canary("d1", "d2"), REST, **LENIENT, success_ratio=0.5, halt_rules=rules)
    await ends(yard, rollout, State.SUCCEEDED, "d1")
    await ends(yard, rollout, State.FAILED, "d2", "d3")
    assert await is_halted(yard, rollout) is (scope == "rollout")


# -- how fast ------------------------------------------------------------------------------------------------------


async def test_pace_per_minute(yard: Yard) -> None:
    """One at once, and then one a minute."""
    rollout = await begun(yard, FOUR, pace_per_minute=1)
    assert len(await yard.offered(rollout)) == 1
    await passes(yard, 59)
    assert len(await yard.offered(rollout)) == 1
    await passes(yard, 1)
    assert len(await yard.offered(rollout)) == 2


async def test_the_pace_goes_on_when_the_clock_was_set_back(yard: Yard) -> None:
    """It is counted from the new time on, not from when the old one comes again."""
    rollout = await begun(yard, FOUR, pace_per_minute=1)
    yard.clock.set_wall(NOW - timedelta(days=1))
    await settle(yard)
    assert len(await yard.offered(rollout)) == 1
    await passes(yard, 61)
    assert len(await yard.offered(rollout)) == 2


@pytest.mark.parametrize(
    ("growth", "succeeds", "waits"),
    [
        pytest.param({"factor": 2, "every": 1, "of": "offered"}, False, [30, 15], id="factor 2"),
        pytest.param({"factor": 4, "every": 1, "of": "offered"}, False, [15, 3.75], id="factor 4"),
        pytest.param({"factor": 2, "every": 2, "of": "offered"}, False, [60, 30], id="every 2"),
        pytest.param({"factor": 2, "every": 1, "of": "succeeded"}, False, [60, 60], id="none succeeded"),
        pytest.param({"factor": 2, "every": 1, "of": "succeeded"}, True, [30, 30], id="one succeeded"),
        pytest.param({"factor": 4, "every": 1, "of": "offered", "max_per_minute": 2}, False, [30, 30], id="up to 2"),
    ],
)
async def test_pace_growth(yard: Yard, growth: dict[str, Any], succeeds: bool, waits: list[float]) -> None:
    """One offer a minute, and faster by what was offered or succeeded."""
    plan_of = Growth(**{"max_per_minute": 1000, **growth})
    rollout = await begun(yard, FOUR, pace_per_minute=1, pace_growth=plan_of)
    if succeeds:
        await ends(yard, rollout, State.SUCCEEDED, *await yard.offered(rollout))
    for number, wait in enumerate(waits, 1):
        await passes(yard, wait - 0.5)
        assert len(await yard.offered(rollout)) == number
        await passes(yard, 0.5)
        assert len(await yard.offered(rollout)) == number + 1


async def test_site_bytes_per_hour(yard: Yard) -> None:
    """One image an hour for each site."""
    for device, site in (("d1", "lab"), ("d2", "lab"), ("d3", "yard")):
        await yard.add_devices([device], labels={"site": site})
    rollout = await begun(yard, ["d1", "d2", "d3"], site_bytes_per_hour=1)
    assert len(await yard.offered(rollout)) == 2
    await passes(yard, 3599)
    assert len(await yard.offered(rollout)) == 2
    await passes(yard, 1)
    assert len(await yard.offered(rollout)) == 3


async def test_two_offers_of_one_instant_both_count_for_the_site(yard: Yard) -> None:
    """Two looks by a clock that stands still, or was set back."""
    await yard.add_devices(["d1", "d2", "d3"], labels={"site": "lab"})
    rollout = await yard.run(plan(site_bytes_per_hour=2))
    await settle(yard)
    for device in ("d1", "d2", "d3"):
        await yard.ready(rollout, device)
        await settle(yard)
    assert len(await yard.offered(rollout)) == 2


@pytest.mark.parametrize(
    ("limit", "granted"),
    [
        pytest.param({"label": "site", "count": 1}, 2, id="one of each site"),
        pytest.param({"label": "site", "count": 2}, 3, id="two of each site"),
        pytest.param({"label": "floor", "count": 1}, 1, id="one of those without the label"),
        pytest.param({"group": "line", "count": 1}, 3, id="one of the group, and who is not in it"),
    ],
)
async def test_max_unavailable(yard: Yard, limit: dict[str, Any], granted: int) -> None:
    """d1, d2 and d3 stand at one site, and so do d1 and d2 in a group; d4 stands alone."""
    await yard.add_devices(["d1", "d2"], group="line", labels={"site": "lab"})
    await yard.add_devices(["d3"], labels={"site": "lab"})
    await yard.add_devices(["d4"], labels={"site": "yard"})
    rollout = await begun(yard, FOUR, max_unavailable=(UnavailableLimit(**limit),))
    for device in FOUR:
        await yard.report(rollout, device, State.FETCHED)
    await settle(yard)
    assert [row.grant for row in await yard.rows(rollout)].count("activate") == granted


# -- time ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("at_end", "state", "row"),
    [
        ("stop", RolloutState.RUNNING, State.EXPIRED),
        ("halt", RolloutState.HALTED, "pending"),
        ("abort", RolloutState.ABORTED, State.CANCELLED),
    ],
)
async def test_end(yard: Yard, at_end: Any, state: RolloutState, row: str) -> None:
    """Not a second before; then nobody else is offered anything; a halt leaves them where they are."""
    await yard.add_devices(["d1", "d2"])
    rollout = await yard.run(plan(end_at=NOW + timedelta(seconds=60), at_end=at_end))
    await settle(yard)
    await yard.ready(rollout, "d1")
    await settle(yard)
    await passes(yard, 59)
    assert (await yard.rollout(rollout)).state is RolloutState.RUNNING
    assert (await yard.row(rollout, "d2")).state == "pending"
    await passes(yard, 1)
    await yard.ready(rollout, "d2")
    await settle(yard)
    assert (await yard.rollout(rollout)).state is state
    assert (await yard.row(rollout, "d2")).state == row
    assert (await yard.row(rollout, "d1")).state == "offered"


@pytest.mark.parametrize(
    ("limit", "state"),
    [
        ("queued_s", None),
        ("downloading_s", State.DOWNLOADING),
        ("installing_s", State.INSTALLING),
        ("verifying_s", State.VERIFYING),
    ],
)
async def test_timeouts(yard: Yard, limit: str, state: State | None) -> None:
    """Each for its own work; before installing the offer is closed, later it is a verdict."""
    rollout = await begun(yard, ["d1", "d2"], **LENIENT, timeouts=Timeouts(**{limit: 60}))
    if state is not None:
        await yard.report(rollout, "d1", state)
        await settle(yard)
    await passes(yard, 59)
    before = await yard.row(rollout, "d1")
    assert "timed_out" not in (before.state, before.verdict)
    await passes(yard, 1)
    row = await yard.row(rollout, "d1")
    assert "timed_out" in (row.state, row.verdict)
    assert (row.grant == "closed") is (limit in ("queued_s", "downloading_s"))
    assert ("timed_out" == (await yard.row(rollout, "d2")).state) is (limit == "queued_s")


@pytest.mark.parametrize(
    ("retry", "waits"),
    [
        pytest.param({"times": 1, "backoff_s": 50}, [50], id="once"),
        pytest.param({"times": 2, "backoff_s": 10, "factor": 3}, [10, 30], id="three times as long"),
        pytest.param({"times": 3, "backoff_s": 10, "factor": 1}, [10, 10, 10], id="as long each time"),
        pytest.param({"times": 2, "backoff_s": 10, "factor": 10, "max_backoff_s": 20}, [10, 20], id="at most 20 s"),
        pytest.param({"times": 1}, [600], id="ten minutes unless said"),
    ],
)
async def test_retries(yard: Yard, retry: dict[str, Any], waits: list[float]) -> None:
    """So often, after so long, and for that class only."""
    rollout = await begun(yard, ["d1", "d2"], halt_count=9, **LENIENT, retries={"download": Retry(**retry)})
    await ends(yard, rollout, State.FAILED, "d2", code=ErrorCode.HEALTH)
    assert (await yard.row(rollout, "d2")).state == State.FAILED
    for number, wait in enumerate(waits, 1):
        await ends(yard, rollout, State.FAILED, "d1", code=ErrorCode.CHUNK)
        row = await yard.row(rollout, "d1")
        assert (row.state, row.attempt, row.not_before) == (
            "pending", number, yard.clock.now() + timedelta(seconds=wait),
        )  # fmt: skip
        await passes(yard, wait)
        row = await yard.row(rollout, "d1")
        assert (row.state, row.attempt) == ("offered", number + 1)
    await ends(yard, rollout, State.FAILED, "d1", code=ErrorCode.CHUNK)
    assert (await yard.row(rollout, "d1")).state == State.FAILED


async def test_a_plan_of_nothing_but_what_must_be_said_works(yard: Yard) -> None:
    """What is left out keeps nobody from anything."""
    await yard.add_devices(["d1"])
    made = await creating.create(yard.db, yard.clock, RolloutSpec(release=RELEASE, stages=[REST]))
    await creating.start(yard.db, yard.clock, made.id)
    await settle(yard)
    await yard.ready(made.id, "d1")
    await settle(yard)
    await ends(yard, made.id, State.SUCCEEDED, "d1")
    assert (await yard.rollout(made.id)).state is RolloutState.COMPLETED
