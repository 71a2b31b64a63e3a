"""One latch for the fleet: written first, checked everywhere, lifted by a person with a reason."""

import pytest

from orchestrator.errors import ConflictError, UsageError
from orchestrator.model.plan import StageSpec
from orchestrator.model.rollout import RolloutState
from orchestrator.rollouts import fleet_halt
from orchestrator.storage import fleet_latch
from protocol.states import State
from protocol.topics import Kind
from tests.orchestrator.rollouts.yard import Yard, plan

HALVES = (StageSpec(name="canary", percent=50), StageSpec(name="rest", percent=100))


async def halt(yard: Yard, reason: str = "smoke") -> tuple[str, ...]:
    """Halt the fleet; the rollouts that are held."""

    async def barrier() -> None:
        async with yard.db.read() as conn:
            assert await fleet_latch.get(conn) is not None  # the latch stands before anybody waits for anything

    held = await fleet_halt.halt_all(yard.db, yard.clock, reason, actor="ann", barrier=barrier)
    assert (held.latch.by, held.latch.reason) == ("ann", reason)
    return held.rollouts


async def test_nothing_is_offered_granted_opened_or_started(yard: Yard) -> None:
    """Whatever the state of each rollout is; devices that ask are heard, and ask again after it."""
    await yard.add_devices(["d1", "d2"])
    rollout = await yard.run(plan(*HALVES))
    await yard.look()
    (canary,) = [row.device for row in await yard.rows(rollout) if row.stage == 0]
    await yard.ready(rollout, canary)
    await yard.look()
    await yard.report(rollout, canary, State.FETCHED)
    assert await halt(yard) == (rollout,)
    await yard.look()
    row = await yard.row(rollout, canary)
    assert (row.grant, row.asking) == ("download", False)
    await yard.report(rollout, canary, State.SUCCEEDED)
    await yard.look()
    assert await yard.stages(rollout) == ["open", "pending"]
    assert (await yard.rollout(rollout)).state is RolloutState.RUNNING


async def test_every_announced_rollout_is_signed_anew_and_counts_the_halt(yard: Yard) -> None:
    """The signer is told by the number; drafts and halted ones are left alone."""
    await yard.add_devices(["d1"])
    await yard.add_release(name="gateway/1.2.0")
    await yard.add_release(name="gateway/1.3.0")
    running = await yard.run()
    halted = await yard.run(plan(release="gateway/1.2.0"))
    await yard.look()
    await yard.order(halted, "halt")
    await yard.marks(Kind.ANNOUNCE)
    assert await halt(yard) == (running,)
    assert (await yard.rollout(running)).halts == 1
    assert await yard.marks(Kind.ANNOUNCE) == {running}


async def test_it_goes_on_with_a_reason(yard: Yard) -> None:
    """What was running offers again; a rollout that was halted by itself stays halted."""
    await yard.add_devices(["d1"])
    rollout = await yard.run()
    await yard.look()
    await halt(yard)
    await yard.ready(rollout, "d1")
    await yard.look()
    assert await yard.offered(rollout) == set()
    with pytest.raises(UsageError, match="say why it may go on"):
        await fleet_halt.lift_halt(yard.db, yard.clock, "")
    await fleet_halt.lift_halt(yard.db, yard.clock, "it was a kettle")
    await yard.look()
    assert await yard.offered(rollout) == {"d1"}
    assert (await yard.rollout(rollout)).reason == "it was a kettle"
    with pytest.raises(ConflictError, match="the fleet is not halted"):
        await fleet_halt.lift_halt(yard.db, yard.clock, "again")


async def test_what_is_over_is_held_for_readers_and_not_named(yard: Yard) -> None:
    """Its announcement may still be read; nobody waits for it, and the reason to go on is not its own."""
    await yard.add_devices(["d1"])
    rollout = await yard.run()
    await yard.look()
    await halt(yard)
    await fleet_halt.lift_halt(yard.db, yard.clock, "it was a kettle")
    await yard.ready(rollout, "d1")
    await yard.look()
    await yard.report(rollout, "d1", State.SUCCEEDED)
    await yard.look()
    over = await yard.rollout(rollout)
    assert (over.state, over.reason) == (RolloutState.COMPLETED, "")
    await yard.marks(Kind.ANNOUNCE)
    assert await halt(yard) == ()
    assert await yard.marks(Kind.ANNOUNCE) == {rollout}
    assert (await fleet_halt.lift_halt(yard.db, yard.clock, "another kettle")).rollouts == ()
    assert (await yard.rollout(rollout)).reason == ""


async def test_a_second_halt_replaces_the_first(yard: Yard) -> None:
    """The newest reason stands; nothing else happens."""
    await yard.add_devices(["d1"])
    await yard.run()
    await halt(yard)
    await halt(yard, "fire")
    async with yard.db.read() as conn:
        latch = await fleet_latch.get(conn)
    assert latch is not None and latch.reason == "fire"


async def test_a_rollout_that_is_started_meanwhile_is_held_too(yard: Yard) -> None:
    """Its stage does not open before the latch is lifted."""
    await yard.add_devices(["d1"])
    await halt(yard)
    rollout = await yard.run()
    await yard.look()
    assert await yard.stages(rollout) == ["pending"]
    await fleet_halt.lift_halt(yard.db, yard.clock, "over")
    await yard.look()
    assert await yard.stages(rollout) == ["open"]
