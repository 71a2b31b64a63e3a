"""What a person has seen who resumes after a halt: rules are judged on what comes after it."""

from orchestrator.model.rollout import RolloutState as S
from orchestrator.rollouts import steps
from orchestrator.storage import assignments
from protocol.states import State
from tests.orchestrator.rollouts import ordering
from tests.orchestrator.rollouts.yard import Yard, plan


async def _fail(yard: Yard, rollout: str, *ids: str, state: State = State.ROLLED_BACK) -> None:
    for device in ids:
        await yard.ready(rollout, device)
    await yard.look()
    for device in ids:
        await yard.report(rollout, device, state)
    await yard.look()


async def test_what_was_acknowledged_does_not_halt_again(yard: Yard) -> None:
    """After a resume the rules look at what came since: two old failures are forgiven, two new ones are not."""
    ids = await yard.add_devices([f"d{number}" for number in range(8)])
    rollout = await yard.run(plan(halt_ratio=0.5, halt_min_sample=2, halt_count=2))
    await _fail(yard, rollout, *ids[:2])
    assert (await yard.rollout(rollout)).state is S.HALTED
    await ordering.resume(yard.db, yard.clock, rollout, "seen")
    assert (await yard.rollout(rollout)).acknowledged == {0: {"failed:rolled_back:rolled_back": 2}}
    await yard.look()
    assert (await yard.rollout(rollout)).state is S.RUNNING
    await _fail(yard, rollout, ids[2])
    assert (await yard.rollout(rollout)).state is S.RUNNING
    await _fail(yard, rollout, ids[3])
    assert (await yard.rollout(rollout)).state is S.HALTED
    await ordering.resume(yard.db, yard.clock, rollout, "seen")
    assert (await yard.rollout(rollout)).acknowledged == {0: {"failed:rolled_back:rolled_back": 4}}
    await _fail(yard, rollout, ids[4])
    await ordering.pause(yard.db, yard.clock, rollout)
    await ordering.resume(yard.db, yard.clock, rollout, "seen")
    assert (await yard.rollout(rollout)).acknowledged == {
        0: {"failed:rolled_back:rolled_back": 4}
    }  # a pause acknowledges nothing


async def _fall_silent(yard: Yard, rollout: str, device: str) -> None:
    await yard.ready(rollout, device)
    await yard.look()
    await yard.report(rollout, device, State.INSTALLING)
    row = await yard.row(rollout, device)
    async with yard.db.begin() as conn:
        await assignments.save_all(conn, [(row, steps.fall_silent(row))])
    await yard.look()


async def test_an_acknowledged_silence_that_ended_forgives_nobody_else(yard: Yard) -> None:
    """The device spoke: it had succeeded. The next one that falls silent is judged, and not taken for the first."""
    await yard.add_devices(["d1", "d2", "d3"])
    rollout = await yard.run(plan(halt_ratio=1.0, halt_min_sample=9, halt_count=1))
    await _fall_silent(yard, rollout, "d1")
    assert (await yard.rollout(rollout)).state is S.HALTED
    await ordering.resume(yard.db, yard.clock, rollout, "seen")
    await yard.look()
    await yard.report(rollout, "d1", State.SUCCEEDED)
    await yard.look()
    assert (await yard.rollout(rollout)).state is S.RUNNING
    await _fall_silent(yard, rollout, "d2")
    assert (await yard.rollout(rollout)).state is S.HALTED


async def test_an_acknowledged_silence_that_was_a_failure_counts(yard: Yard) -> None:
    """What the person saw was that nothing is heard of it; that its health check failed, nobody has seen."""
    await yard.add_devices(["d1", "d2"])
    rollout = await yard.run(plan(halt_ratio=1.0, halt_min_sample=9, halt_count=1))
    await _fall_silent(yard, rollout, "d1")
    await ordering.resume(yard.db, yard.clock, rollout, "seen")
    await yard.look()
    await yard.report(rollout, "d1", State.ROLLED_BACK)
    await yard.look()
    assert (await yard.rollout(rollout)).state is S.HALTED


async def test_a_rollout_whose_last_devices_failed_can_be_ended_by_resuming(yard: Yard) -> None:
    """All are done and the rule halted it: the person who resumes has it completed."""
    ids = await yard.add_devices(["d1", "d2"])
    rollout = await yard.run()
    await _fail(yard, rollout, *ids)
    assert (await yard.rollout(rollout)).state is S.HALTED
    await ordering.resume(yard.db, yard.clock, rollout, "seen")
    await yard.look()
    assert (await yard.rollout(rollout)).state is S.COMPLETED
