"""Two clocks: a leap of one of them, and what was not heard, restart what is measured by time."""

from datetime import UTC, datetime, timedelta

from orchestrator.model.plan import StageSpec, Timeouts
from orchestrator.rollouts.steadiness import LEAP, Steadiness
from protocol.states import State
from tests.orchestrator.rollouts.yard import Yard, plan

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


def test_a_clock_that_goes_evenly_leaps_never() -> None:
    """However long nobody looked; a little drift is no leap."""
    found = Steadiness(NOW, 0.0)
    assert not found.see(NOW + 5 * HOUR, 5 * 3600.0)
    assert not found.see(NOW + 6 * HOUR + LEAP, 6 * 3600.0)
    assert (found.since, found.leapt_at) == (NOW, None)


def test_a_leap_either_way_begins_anew() -> None:
    """Forward and back."""
    found = Steadiness(NOW, 0.0)
    later = NOW + HOUR
    assert found.see(later, 1.0)
    assert (found.since, found.leapt_at) == (later, later)
    assert found.see(NOW, 2.0)
    assert found.since == NOW


async def test_a_leap_times_out_nobody_and_ends_no_soak(yard: Yard) -> None:
    """A day that did not pass is no day that anybody was late."""
    await yard.add_devices(["d1", "d2"])
    stages = (StageSpec(name="canary", percent=50), StageSpec(name="rest", percent=100))
    rollout = await yard.run(plan(*stages, soak_s=3600, timeouts=Timeouts(queued_s=600)))
    await yard.look()
    (canary,) = [row.device for row in await yard.rows(rollout) if row.stage == 0]
    await yard.ready(rollout, canary)
    await yard.look()
    yard.clock.set_wall(yard.clock.now() + timedelta(days=1))
    await yard.look()
    assert (await yard.row(rollout, canary)).state == "offered"
    await yard.report(rollout, canary, State.SUCCEEDED)
    await yard.look()
    yard.clock.set_wall(yard.clock.now() + timedelta(days=1))
    await yard.look()
    assert await yard.stages(rollout) == ["soaking", "pending"]
    yard.clock.advance(3600)
    await yard.look()
    assert await yard.stages(rollout) == ["passed", "open"]


async def test_a_restart_does_not_begin_a_soak_anew_but_time_limits(yard: Yard) -> None:
    """Success held while nobody looked; whether devices were slow then, nobody knows."""
    await yard.add_devices(["d1", "d2", "d3"])
    stages = (StageSpec(name="canary", percent=50), StageSpec(name="rest", percent=100))
    rollout = await yard.run(plan(*stages, soak_s=3600, timeouts=Timeouts(queued_s=600)))
    await yard.look()
    first, second = [row.device for row in await yard.rows(rollout) if row.stage == 0]
    for device in (first, second):
        await yard.ready(rollout, device)
    await yard.look()
    await yard.report(rollout, first, State.SUCCEEDED)
    await yard.look()
    yard.clock.advance(3600)
    yard.restart()
    await yard.look()
    assert await yard.stages(rollout) == ["passed", "open"]
    assert (await yard.row(rollout, second)).state == "offered"
    yard.clock.advance(600)
    while await yard.look() == 0:
        pass
    assert (await yard.row(rollout, second)).state == "timed_out"


async def test_what_was_not_heard_is_not_held_against_devices(yard: Yard) -> None:
    """Ingest was away: limits count from when it listens again."""
    await yard.add_devices(["d1"])
    rollout = await yard.run(plan(timeouts=Timeouts(queued_s=600)))
    await yard.look()
    await yard.ready(rollout, "d1")
    await yard.look()
    yard.clock.advance(599)
    yard.controller.hears_again()
    yard.clock.advance(599)
    await yard.look()
    assert (await yard.row(rollout, "d1")).state == "offered"
    yard.clock.advance(1)
    await yard.look()
    assert (await yard.row(rollout, "d1")).state == "timed_out"
