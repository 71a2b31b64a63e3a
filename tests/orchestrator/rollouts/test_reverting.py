"""Back to what each device ran before: by a person, or by the engine when a rule halts."""

from typing import Any

import pytest

from orchestrator.errors import ConflictError
from orchestrator.model.audit import AuditKind
from orchestrator.model.plan import OnHalt, RolloutSpec, StageSpec
from orchestrator.model.rollout import RolloutState
from orchestrator.rollouts import creating, reverting
from orchestrator.storage import audit
from orchestrator.storage.releases import WITHDRAWN
from protocol.states import State
from tests.orchestrator.rollouts.yard import Yard, plan

OLD, OLDER = "gateway/1.0.0", "gateway/0.9.0"


async def updated(yard: Yard, came_from: dict[str, str | None], **rules: Any) -> str:
    """A rollout that has updated these devices, each from a version."""
    await yard.add_devices(came_from)
    rollout = await yard.run(plan(**rules))
    await yard.look()
    for device in came_from:
        await yard.ready(rollout, device)
    await yard.look()
    for device, version in came_from.items():
        await yard.report(rollout, device, State.SUCCEEDED, from_version=version, running_version="1.1.0")
        await yard.runs(device, "1.1.0")
    await yard.look()
    return rollout


async def test_one_rollout_back_for_each_version(yard: Yard) -> None:
    """With the members that came from it; drafts until a person starts them."""
    for name in (OLD, OLDER):
        await yard.add_release(name=name)
    rollout = await updated(yard, {"d1": "1.0.0", "d2": "0.9.0", "d3": "1.0.0"})
    made = await reverting.revert(yard.db, yard.clock, rollout)
    assert made.stay == {}
    assert sorted(made.rollouts) == [OLDER, OLD]
    for release, members in ((OLD, {"d1", "d3"}), (OLDER, {"d2"})):
        back = made.rollouts[release]
        assert (await yard.rollout(back)).state is RolloutState.DRAFT
        await creating.start(yard.db, yard.clock, back)
        assert {row.device for row in await yard.rows(back)} == members
    assert "rollout_reverted" in await yard.happenings(rollout)


async def test_who_cannot_go_back_is_named_with_the_reason(yard: Yard) -> None:
    """A withdrawn release, an unknown one, a lower counter, and one that was never told."""
    await yard.add_release(name=OLD)
    await yard.add_release(name="gateway/0.8.0", state=WITHDRAWN)
    await yard.add_release(name="gateway/0.7.0", counter=0)
    rollout = await updated(yard, {"d1": "1.0.0", "d2": "0.8.0", "d3": "0.7.0", "d4": "0.1.0", "d5": None})
    made = await reverting.revert(yard.db, yard.clock, rollout, begin=True)
    assert made.stay == {
        "gateway/0.8.0 is withdrawn": ["d2"],
        "security counter 0 of gateway/0.7.0 is below 1": ["d3"],
        "gateway/0.1.0 is not known here": ["d4"],
        "never said what it ran before": ["d5"],
    }
    assert (await yard.rollout(made.rollouts[OLD])).state is RolloutState.RUNNING


async def test_only_the_unhealthy(yard: Yard) -> None:
    """Those that it left inconsistent; whoever is well stays."""
    await yard.add_release(name=OLD)
    rollout = await updated(yard, {"d1": "1.0.0"})
    with pytest.raises(ConflictError, match="no device can go back: none was updated by it"):
        await reverting.revert(yard.db, yard.clock, rollout, unhealthy=True)
    await yard.add_devices(["d2"])
    second = await yard.run(RolloutSpec(release="gateway/1.1.0", stages=[StageSpec(name="all", percent=100)]))
    await yard.look()
    await yard.ready(second, "d2")
    await yard.look()
    await yard.report(second, "d2", State.INCONSISTENT, from_version="1.0.0")
    await yard.runs("d2", "1.1.0")
    await yard.look()
    made = await reverting.revert(yard.db, yard.clock, second, unhealthy=True, begin=True)
    assert {row.device for row in await yard.rows(made.rollouts[OLD])} == {"d2"}


async def test_who_succeeded_after_a_revert_goes_back_with_another_one(yard: Yard) -> None:
    """It was installing when the rule halted; the others are back already and are left alone."""
    await yard.add_release(name=OLD)
    await yard.add_devices(["d1", "d2"])
    rollout = await yard.run(plan())
    await yard.look()
    for device in ("d1", "d2"):
        await yard.ready(rollout, device)
    await yard.look()
    await yard.report(rollout, "d2", State.INSTALLING)
    await yard.report(rollout, "d1", State.SUCCEEDED, from_version="1.0.0", running_version="1.1.0")
    await yard.runs("d1", "1.1.0")
    first = (await reverting.revert(yard.db, yard.clock, rollout, begin=True)).rollouts[OLD]
    await yard.look()
    await yard.ready(first, "d1")
    await yard.look()
    await yard.report(first, "d1", State.SUCCEEDED, from_version="1.1.0", running_version="1.0.0")
    await yard.runs("d1", "1.0.0")
    await yard.report(rollout, "d2", State.SUCCEEDED, from_version="1.0.0", running_version="1.1.0")
    await yard.runs("d2", "1.1.0")
    await yard.look()
    second = (await reverting.revert(yard.db, yard.clock, rollout, begin=True)).rollouts[OLD]
    assert {row.device for row in await yard.rows(second)} == {"d2"}


async def test_the_order_stands_in_the_audit_log_before_what_it_leads_to(yard: Yard) -> None:
    """With who gave it, and how many devices go back to what."""
    await yard.add_release(name=OLD)
    rollout = await updated(yard, {"d1": "1.0.0", "d2": None})
    await reverting.revert(yard.db, yard.clock, rollout, actor="ada")
    async with yard.db.read() as conn:
        entries = await audit.page(conn, limit=1000)
    orders = [entry for entry in entries if entry.kind == AuditKind.ORDER][-2:]
    assert [(entry.actor, entry.figures()["verb"]) for entry in orders] == [("ada", "revert"), ("ada", "create")]
    assert orders[0].rollout == rollout
    assert (orders[0].figures()["back"], orders[0].figures()["stay"]) == ({OLD: 1}, 1)


async def test_what_never_began_has_nothing_to_revert(yard: Yard) -> None:
    """A draft is aborted, not reverted."""
    await yard.add_devices(["d1"])
    rollout = await creating.create(yard.db, yard.clock, plan())
    with pytest.raises(ConflictError, match="is draft and never began"):
        await reverting.revert(yard.db, yard.clock, rollout.id)


@pytest.mark.parametrize("on_halt", OnHalt)
async def test_a_rule_that_halts_reverts_where_the_plan_wants_it(yard: Yard, on_halt: OnHalt) -> None:
    """Those that were updated go back at once; a halt by a person reverts nobody."""
    await yard.add_release(name=OLD)
    await yard.add_devices(["d1", "d2", "d3"])
    rollout = await yard.run(plan(on_halt=on_halt, halt_count=1))
    await yard.look()
    for device in ("d1", "d2", "d3"):
        await yard.ready(rollout, device)
    await yard.look()
    await yard.report(rollout, "d1", State.SUCCEEDED, from_version="1.0.0")
    await yard.runs("d1", "1.1.0")
    await yard.report(rollout, "d2", State.ROLLED_BACK, from_version="1.0.0")
    await yard.look()
    assert (await yard.rollout(rollout)).state is RolloutState.HALTED
    for _ in range(3):
        await yard.look()
    found = [name for name in await yard.all_rollouts() if name != rollout]
    if on_halt is OnHalt.KEEP:
        assert found == []
        return
    (back,) = found
    assert {row.device for row in await yard.rows(back)} == {"d1"}
    assert (await yard.rollout(back)).state is RolloutState.RUNNING
    assert not (await yard.rollout(rollout)).wants_revert


async def test_a_clone_has_the_plan_and_a_life_of_its_own(yard: Yard) -> None:
    """Of another release where one is named."""
    await yard.add_devices(["d1"])
    await yard.add_release(name="gateway/1.2.0")
    first = await creating.create(yard.db, yard.clock, plan(halt_count=7, weight=9))
    made = await creating.clone(yard.db, yard.clock, first.id, "again", release="gateway/1.2.0")
    assert (made.id, made.release, made.state) == ("again", "gateway/1.2.0", RolloutState.DRAFT)
    assert (made.spec.halt_count, made.spec.weight) == (7, 9)
