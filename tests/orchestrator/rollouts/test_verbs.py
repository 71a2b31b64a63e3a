"""Verbs beside start, pause, resume, halt and abort: four eyes, promote, retry; and two people at once."""

from datetime import timedelta

import pytest

from orchestrator.errors import ConflictError, NotAllowedError, UsageError
from orchestrator.model.failure import FailureClass
from orchestrator.model.plan import StageSpec
from orchestrator.model.rollout import RolloutState as S
from orchestrator.rollouts import creating, operations
from orchestrator.rollouts.operations import Order
from protocol.errors import ErrorCode
from protocol.states import State
from tests.orchestrator.rollouts.yard import NOW, Yard, plan

CANARY = (StageSpec(name="canary", percent=50), StageSpec(name="rest", percent=100))


async def order(yard: Yard, verb: str, rollout: str = "r-1", **more: object) -> S:
    """One verb; the state after it."""
    given = Order(verb=verb, **more)  # type: ignore[arg-type]
    return (await operations.order(yard.db, yard.clock, rollout, given)).state


async def fail(yard: Yard, rollout: str, device: str, code: ErrorCode = ErrorCode.HEALTH, attempt: int = 1) -> None:
    """A device that was offered rolls back."""
    await yard.report(rollout, device, State.ROLLED_BACK, code=code, attempt=attempt)


async def test_a_plan_that_needs_approval_is_started_by_nobody_alone(yard: Yard) -> None:
    """Who submitted it may not approve it; once somebody else has, it may be started."""
    await yard.add_devices(["d1"])
    await creating.create(yard.db, yard.clock, plan(needs_approval=True))
    with pytest.raises(ConflictError, match="its plan needs approval; 'flagship rollout submit r-1'"):
        await order(yard, "start", actor="ann")
    assert await order(yard, "submit", actor="ann") is S.AWAITING_APPROVAL
    with pytest.raises(NotAllowedError, match="was submitted by ann; another person approves it"):
        await order(yard, "approve", actor="ann")
    with pytest.raises(ConflictError, match="allowed now: approve, reject, abort"):
        await order(yard, "start", actor="ann")
    assert await order(yard, "approve", actor="bob") is S.SCHEDULED
    await yard.look()
    assert (await yard.rollout("r-1")).state is S.SCHEDULED  # it has no time of its own
    assert await order(yard, "start", actor="ann") is S.RUNNING
    assert (await yard.rollout("r-1")).approved_by == "bob"


async def test_an_approved_plan_starts_at_its_time_and_a_rejected_one_never(yard: Yard) -> None:
    """A time in a plan that nobody approved does not start it."""
    await yard.add_devices(["d1"])
    await creating.create(yard.db, yard.clock, plan(needs_approval=True, start_at=NOW + timedelta(seconds=10)))
    await order(yard, "submit", actor="ann")
    with pytest.raises(UsageError, match="say why with --reason"):
        await order(yard, "reject", actor="bob")
    assert await order(yard, "reject", actor="bob", reason="not on Friday") is S.DRAFT
    yard.clock.advance(20)
    await yard.look()
    assert (await yard.rollout("r-1")).state is S.DRAFT
    await order(yard, "submit", actor="ann")
    await order(yard, "approve", actor="bob")
    await yard.look()
    assert (await yard.rollout("r-1")).state is S.RUNNING


async def test_of_two_people_the_second_looks_again(yard: Yard) -> None:
    """The version that an order names is the one that its giver saw; leases and pace do not change it."""
    await yard.add_devices(["d1"])
    rollout = await yard.run()
    seen = (await yard.rollout(rollout)).version
    await yard.look()
    opened = (await yard.rollout(rollout)).version
    assert opened > seen  # a stage opened
    yard.clock.advance(90)
    await yard.look()
    assert (await yard.rollout(rollout)).version == opened
    assert await order(yard, "pause", version=opened) is S.PAUSED
    with pytest.raises(ConflictError, match=rf"version {opened + 1}, you looked at version {opened}"):
        await order(yard, "resume", version=opened)


async def test_promote_opens_the_next_stage_whatever_the_rule_says(yard: Yard) -> None:
    """Once; behind the last stage there is nothing to open, and a rollout that does not run opens none."""
    await yard.add_devices(["d1", "d2"])
    rollout = await yard.run(plan(*CANARY, soak_s=3600))
    await yard.look()
    assert await yard.stages(rollout) == ["open", "pending"]
    await order(yard, "promote")
    await yard.look()
    assert await yard.stages(rollout) == ["passed", "open"]
    with pytest.raises(ConflictError, match="no stage comes after rest"):
        await order(yard, "promote")
    await order(yard, "pause")
    with pytest.raises(ConflictError, match="is paused; promote needs one that is running"):
        await order(yard, "promote")


async def test_a_stage_that_wants_a_person_waits_for_promote(yard: Yard) -> None:
    """Its rule is met, and the next one stays shut until somebody opens it."""
    await yard.add_devices(["d1", "d2"])
    rollout = await yard.run(plan(*CANARY, approval=True))
    await yard.look()
    (canary,) = [row.device for row in await yard.rows(rollout) if row.stage == 0]
    await yard.ready(rollout, canary)
    await yard.look()
    await yard.report(rollout, canary, State.SUCCEEDED)
    await yard.look()
    yard.clock.advance(86_400)
    await yard.look()
    assert await yard.stages(rollout) == ["awaiting_approval", "pending"]
    await order(yard, "promote")
    await yard.look()
    assert await yard.stages(rollout) == ["passed", "open"]


async def offered(yard: Yard, ids: list[str], **rules: object) -> str:
    """A rollout in which these devices were offered the release."""
    await yard.add_devices(ids)
    rollout = await yard.run(plan(**{"halt_ratio": 1.0, "halt_min_sample": 99, **rules}))
    await yard.look()
    for device in ids:
        await yard.ready(rollout, device)
    await yard.look()
    return rollout


async def test_retry_takes_failed_devices_up_again_under_the_next_attempt(yard: Yard) -> None:
    """Not those that succeeded; what was said of the attempt before is heard and changes nothing any more."""
    rollout = await offered(yard, ["d1", "d2", "d3"])
    await fail(yard, rollout, "d1")
    await yard.report(rollout, "d2", State.SUCCEEDED)
    await yard.look()
    await order(yard, "retry", reason="new battery")
    await yard.look()
    again = await yard.row(rollout, "d1")
    assert (again.state, again.attempt, again.grant) == ("offered", 2, "download")
    assert (await yard.row(rollout, "d2")).state == "succeeded"
    await fail(yard, rollout, "d1", attempt=1)
    assert (await yard.row(rollout, "d1")).state == "offered"
    await yard.report(rollout, "d1", State.SUCCEEDED, attempt=2)
    assert (await yard.row(rollout, "d1")).state == "succeeded"
    await yard.check_counts()


async def test_retry_of_some(yard: Yard) -> None:
    """By device or by class; whoever did not fail that way is named."""
    rollout = await offered(yard, ["d1", "d2", "d3"])
    await fail(yard, rollout, "d1", ErrorCode.HEALTH)
    await fail(yard, rollout, "d2", ErrorCode.INSTALL)
    await yard.look()
    with pytest.raises(ConflictError, match="d3 did not fail, or are gone"):
        await order(yard, "retry", devices=frozenset({"d1", "d3"}))
    assert (await yard.row(rollout, "d1")).state == "rolled_back"  # all or nothing
    with pytest.raises(ConflictError, match="no device failed that way"):
        await order(yard, "retry", classes=frozenset({FailureClass.DOWNLOAD}))
    await order(yard, "retry", classes=frozenset({FailureClass.INSTALL}))
    assert [(await yard.row(rollout, d)).state for d in ("d1", "d2")] == ["rolled_back", "pending"]


async def test_a_completed_rollout_goes_on_for_a_retry(yard: Yard) -> None:
    """And completes again; the failure that was acknowledged on the way counts anew when it comes again."""
    rollout = await offered(yard, ["d1", "d2"], halt_count=1, success_ratio=0.1)
    await fail(yard, rollout, "d1")
    await yard.look()
    assert (await yard.rollout(rollout)).state is S.HALTED
    await order(yard, "resume", reason="one bad board")
    await yard.report(rollout, "d2", State.SUCCEEDED)
    await yard.look()
    assert (await yard.rollout(rollout)).state is S.COMPLETED
    await order(yard, "retry")
    assert (await yard.rollout(rollout)).state is S.RUNNING
    await yard.look()
    await fail(yard, rollout, "d1", attempt=2)
    await yard.look()
    assert (await yard.rollout(rollout)).state is S.HALTED


@pytest.mark.parametrize("verb", ["approve", "reject", "start", "resume", "promote", "retry", "submit"])
async def test_a_verb_in_the_wrong_state_says_what_is_allowed(yard: Yard, verb: str) -> None:
    """And changes nothing."""
    await yard.add_devices(["d1"])
    await creating.create(yard.db, yard.clock, plan())
    await order(yard, "abort")
    with pytest.raises(ConflictError, match=rf"is aborted; {verb} needs one that is .*; allowed now: nothing"):
        await order(yard, verb, reason="because")
    assert (await yard.rollout("r-1")).state is S.ABORTED
