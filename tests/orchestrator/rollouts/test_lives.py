"""Whole lives of rollouts, as operators of other update servers know them: docs/reference/hawkbit-rollout-cases.md."""

import pytest

from orchestrator.errors import ConflictError
from orchestrator.model.device import DeviceState
from orchestrator.model.plan import StageSpec
from orchestrator.model.rollout import RolloutState
from orchestrator.rollouts import creating
from orchestrator.storage import assignments
from orchestrator.storage.exclusions import exclude_device
from protocol.states import State
from tests.orchestrator.rollouts.test_knobs import LENIENT, begun, ends, settle
from tests.orchestrator.rollouts.yard import Yard, plan

EIGHT = [f"d{number}" for number in range(1, 9)]
QUARTERS = [StageSpec(name=f"s{number}", devices=tuple(EIGHT[2 * number - 2 : 2 * number])) for number in (1, 2, 3, 4)]


async def figures(yard: Yard, rollout: str) -> list[dict[str, int]]:
    """Devices by state, stage after stage."""
    async with yard.db.read() as conn:
        counts = await assignments.load_counts(conn, rollout)
    return [
        {key.removeprefix("state:"): n for key, n in sorted(counts[stage].items()) if key.startswith("state:")}
        for stage in sorted(counts)
    ]


async def ready_all(yard: Yard, rollout: str) -> None:
    """Who has not been offered anything says that it is ready."""
    for row in await yard.rows(rollout):
        if row.state == "pending":
            await yard.ready(rollout, row.device)
    await settle(yard)


async def test_stage_after_stage_until_all_are_done(yard: Yard) -> None:
    """One stage is under way, those before it are done, those behind it wait; what is counted follows."""
    rollout = await begun(yard, EIGHT, *QUARTERS)
    for under_way in range(4):
        done, left = [{"succeeded": 2}] * under_way, [{"pending": 2}] * (3 - under_way)
        assert await figures(yard, rollout) == [*done, {"offered": 2}, *left]
        assert await yard.stages(rollout) == ["passed"] * under_way + ["open"] + ["pending"] * (3 - under_way)
        assert (await yard.rollout(rollout)).state is RolloutState.RUNNING
        await ends(yard, rollout, State.SUCCEEDED, *EIGHT[2 * under_way : 2 * under_way + 2])
    assert await figures(yard, rollout) == [{"succeeded": 2}] * 4
    assert await yard.stages(rollout) == ["passed"] * 4
    assert (await yard.rollout(rollout)).state is RolloutState.COMPLETED


async def test_failures_halt_the_first_stage_and_nothing_else_has_begun(yard: Yard) -> None:
    """The counts say who failed and who was never asked."""
    rollout = await begun(yard, EIGHT, *QUARTERS, success_ratio=0.5, halt_ratio=0.8)
    await ends(yard, rollout, State.FAILED, "d1", "d2")
    assert (await yard.rollout(rollout)).state is RolloutState.HALTED
    assert await figures(yard, rollout) == [{"failed": 2}, *[{"pending": 2}] * 3]
    assert await yard.stages(rollout) == ["open", "pending", "pending", "pending"]


async def test_resumed_after_a_halt_by_rule_it_goes_on_with_the_next_stage(yard: Yard) -> None:
    """Whoever resumes has seen that the stage failed as a whole; that is not held against the next one."""
    rollout = await begun(yard, EIGHT, *QUARTERS, success_ratio=0.5, halt_ratio=0.8)
    await ends(yard, rollout, State.FAILED, "d1", "d2")
    await yard.order(rollout, "resume", "a cable was loose")
    await settle(yard)
    assert (await yard.rollout(rollout)).state is RolloutState.RUNNING
    assert await yard.stages(rollout) == ["passed", "open", "pending", "pending"]
    assert await yard.offered(rollout) == {"d1", "d2", "d3", "d4"}


async def test_enough_success_passes_in_spite_of_some_failures(yard: Yard) -> None:
    """Three of five succeeded: above a half, and the failures are below what halts."""
    five = StageSpec(name="first", devices=("d1", "d2", "d3", "d4", "d5"))
    rest = StageSpec(name="rest", percent=100)
    rollout = await begun(yard, EIGHT, five, rest, success_ratio=0.5, min_sample=5, halt_ratio=0.8)
    await ends(yard, rollout, State.FAILED, "d1", "d2")
    await ends(yard, rollout, State.SUCCEEDED, "d3", "d4", "d5")
    assert await yard.stages(rollout) == ["passed", "open"]


async def test_too_little_success_does_not_pass(yard: Yard) -> None:
    """Three of five are below what is wanted, and the failures below what halts: it waits for a person."""
    five = StageSpec(name="first", devices=("d1", "d2", "d3", "d4", "d5"))
    rest = StageSpec(name="rest", percent=100)
    rollout = await begun(yard, EIGHT, five, rest, success_ratio=0.8, halt_ratio=0.9, min_sample=5)
    await ends(yard, rollout, State.FAILED, "d1", "d2")
    await ends(yard, rollout, State.SUCCEEDED, "d3", "d4", "d5")
    assert await yard.stages(rollout) == ["open", "pending"]
    assert (await yard.rollout(rollout)).state is RolloutState.RUNNING


async def test_devices_that_are_taken_out_are_not_waited_for(yard: Yard) -> None:
    """Those of a stage that is under way, and all of the last one: the others complete the rollout."""
    rollout = await begun(yard, EIGHT[:6], *QUARTERS[:3], success_ratio=1.0, min_sample=2)
    await ends(yard, rollout, State.SUCCEEDED, "d1")
    for device in ("d2", "d5", "d6"):
        await yard.set_device_state(device, DeviceState.REVOKED)
        async with yard.db.begin() as conn:
            await exclude_device(conn, device, "revoked", yard.clock.now())
    await settle(yard)
    assert await yard.stages(rollout) == ["passed", "open", "pending"]
    await ends(yard, rollout, State.SUCCEEDED, "d3", "d4")
    assert (await yard.rollout(rollout)).state is RolloutState.COMPLETED
    assert await figures(yard, rollout) == [
        {"excluded": 1, "succeeded": 1}, {"succeeded": 2}, {"excluded": 2},
    ]  # fmt: skip


async def test_a_second_rollout_takes_those_that_the_first_one_lost(yard: Yard) -> None:
    """Who runs the release by now takes no part; who failed to install it tries again."""
    rollout = await begun(yard, EIGHT, **{**LENIENT, "halt_min_sample": 8})
    await ends(yard, rollout, State.FAILED, *EIGHT[:3])
    for device in EIGHT[3:]:
        await yard.runs(device, "1.1.0")
    await ends(yard, rollout, State.SUCCEEDED, *EIGHT[3:])
    assert (await yard.rollout(rollout)).state is RolloutState.COMPLETED
    second = await yard.run(plan())
    assert {row.device for row in await yard.rows(second)} == set(EIGHT[:3])
    await ready_all(yard, second)
    await ends(yard, second, State.SUCCEEDED, *EIGHT[:3])
    assert (await yard.rollout(second)).state is RolloutState.COMPLETED


async def test_promoted_twice_all_stages_are_under_way(yard: Yard) -> None:
    """Nobody has finished anything; the last stage cannot be promoted."""
    rollout = await begun(yard, EIGHT[:6], *QUARTERS[:3])
    for passed in (1, 2):
        await yard.order(rollout, "promote")
        await settle(yard)
        assert await yard.stages(rollout) == ["passed"] * passed + ["open"] + ["pending"] * (2 - passed)
    with pytest.raises(ConflictError, match="no stage comes after s3"):
        await yard.order(rollout, "promote")
    await ready_all(yard, rollout)
    await ends(yard, rollout, State.SUCCEEDED, *EIGHT[:6])
    assert (await yard.rollout(rollout)).state is RolloutState.COMPLETED


async def test_who_comes_after_the_start_takes_no_part(yard: Yard) -> None:
    """Members are fixed when it starts, and nobody is added to a plan that is not dynamic."""
    await yard.add_devices(["d1"])
    made = await creating.create(yard.db, yard.clock, plan())
    await creating.start(yard.db, yard.clock, made.id)
    await yard.add_devices(["d2"])
    await settle(yard)
    assert {row.device for row in await yard.rows(made.id)} == {"d1"}


async def test_more_stages_than_devices_are_refused(yard: Yard) -> None:
    """An empty stage proves nothing, and so would open the next one."""
    await yard.add_devices(["d1", "d2"])
    stages = [StageSpec(name=f"s{share}", percent=share) for share in (20, 40, 60, 80, 100)]
    with pytest.raises(ConflictError, match="is empty"):
        await creating.create(yard.db, yard.clock, plan(*stages))
