"""What a person orders while the engine is at something else, and what a device does before it hears of an order."""

import asyncio
from typing import Any

import pytest

from orchestrator.errors import ConflictError, UsageError
from orchestrator.fleet.closing import retire
from orchestrator.model.device import DeviceState
from orchestrator.model.plan import HaltRule, StageSpec
from orchestrator.rollouts import creating, placing
from orchestrator.storage.exclusions import exclude_device
from protocol.errors import ErrorCode
from protocol.states import Phase, State
from tests.orchestrator.rollouts.yard import ALL, NOW, Yard, plan

OTHER = "gateway/1.2.0"
GRANT_S = 961
"""An activate grant, the skew of clocks, and a second."""


@pytest.mark.parametrize(("verb", "state"), [("abort", "aborted"), ("start", "running")])
async def test_what_a_person_orders_while_the_engine_starts_it_stands(
    yard: Yard, monkeypatch: pytest.MonkeyPatch, verb: str, state: str
) -> None:
    """Not undone by the start that fails for it."""
    await yard.add_devices(["d1"])
    rollout = await creating.create(yard.db, yard.clock, plan(start_at=NOW))
    place = placing.place

    async def meanwhile(*words: object) -> list[int]:
        monkeypatch.setattr(placing, "place", place)
        found = await place(*words)  # type: ignore[arg-type]
        await yard.order(rollout.id, verb)
        return found

    monkeypatch.setattr(placing, "place", meanwhile)
    await yard.look_only()
    assert (await yard.rollout(rollout.id)).state.value == state


async def test_of_two_starts_at_once_one_is_refused(yard: Yard) -> None:
    """The other one places every member."""
    await yard.add_devices([f"d{number}" for number in range(40)])
    rollout = await creating.create(yard.db, yard.clock, plan())
    starts = [creating.start(yard.db, yard.clock, rollout.id) for _ in range(2)]
    found = await asyncio.gather(*starts, return_exceptions=True)
    (refused,) = [error for error in found if isinstance(error, BaseException)]
    assert isinstance(refused, ConflictError)
    assert "is being started already" in str(refused)
    assert len(await yard.rows(rollout.id)) == 40
    await yard.look()


async def test_rows_that_another_process_took_away_are_missed(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rollout does not begin with fewer rows than members."""
    await yard.add_devices(["d1", "d2"])
    rollout = await creating.create(yard.db, yard.clock, plan())

    async def nothing(*_words: object) -> list[int]:
        return []

    monkeypatch.setattr(placing, "place", nothing)
    with pytest.raises(ConflictError, match="0 of 2 members are placed"):
        await creating.start(yard.db, yard.clock, rollout.id)
    assert (await yard.rollout(rollout.id)).state.value == "draft"


async def test_who_is_retired_while_members_are_placed_is_no_member(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Chosen before, placed after: the rollout would wait for a device that is offered nothing."""
    await yard.add_devices(["d1", "d2"])
    rollout = await creating.create(yard.db, yard.clock, plan())
    place = placing.place

    async def meanwhile(*words: Any) -> list[int]:
        await retire(yard.db, yard.clock, "d1", "sold")
        return await place(*words)

    monkeypatch.setattr(placing, "place", meanwhile)
    await creating.start(yard.db, yard.clock, rollout.id)
    await yard.look()
    row = await yard.row(rollout.id, "d1")
    assert (row.state, row.detail) == ("excluded", "device retired: sold")


async def test_a_plan_too_large_for_the_log_is_refused(yard: Yard) -> None:
    """Every decision is logged with it."""
    await yard.add_devices(["d1"])
    rules = tuple(HaltRule(ratio=0.5) for _ in range(32))
    stages = [StageSpec(name=f"s{number}", percent=(number + 1) / 5, halt_rules=rules) for number in range(500)]
    with pytest.raises(UsageError, match="at most 1572864 B"):
        await creating.create(yard.db, yard.clock, plan(*stages))


async def test_a_failure_of_one_that_was_quicker_than_its_preemption_counts(yard: Yard) -> None:
    """It is not offered the same release again, and the rule halts."""
    await yard.add_devices(["d1"])
    await yard.add_release(name=OTHER, component="os")
    lighter = await yard.run(plan(weight=1, halt_count=1))
    await yard.look()
    await yard.ready(lighter, "d1")
    await yard.look()
    await yard.report(lighter, "d1", State.FETCHED)
    heavier = await yard.run(plan(release=OTHER))
    await yard.look()
    await yard.ready(heavier, "d1")
    await yard.look()
    assert (await yard.row(lighter, "d1")).grant == "closed"
    await yard.report(lighter, "d1", State.INSTALLING)
    await yard.report(lighter, "d1", State.ROLLED_BACK, code=ErrorCode.HEALTH)
    await yard.look()
    assert ((await yard.row(lighter, "d1")).state, (await yard.rollout(lighter)).state.value) == (
        "rolled_back", "halted",
    )  # fmt: skip


async def test_an_aborted_rollout_gives_way_to_its_equal(yard: Yard) -> None:
    """As a halted one does."""
    await yard.add_devices(["d1"])
    await yard.add_release(name=OTHER)
    first = await yard.run(plan())
    await yard.look()
    await yard.ready(first, "d1")
    await yard.look()
    await yard.deliver(first, "d1")
    await yard.order(first, "abort")
    second = await yard.run(plan(release=OTHER))
    await yard.look()
    await yard.ready(second, "d1")
    await yard.look()
    assert (await yard.row(second, "d1")).state == "offered"


async def test_a_device_that_failed_and_waited_for_another_try_has_failed_at_the_end(yard: Yard) -> None:
    """It stays kept from the release."""
    await yard.add_devices(["d1"])
    rules = {"retries": {"health": {"times": 1, "backoff_s": 600}}, "halt_ratio": 1.0, "halt_min_sample": 99}
    rollout = await yard.run(plan(*ALL, **rules))
    await yard.look()
    await yard.ready(rollout, "d1")
    await yard.look()
    await yard.report(rollout, "d1", State.ROLLED_BACK, code=ErrorCode.HEALTH)
    await yard.look()
    assert (await yard.row(rollout, "d1")).state == "pending"
    await yard.order(rollout, "abort")
    await yard.look()
    assert (await yard.row(rollout, "d1")).state == "rolled_back"


async def test_a_retired_device_frees_the_permit_of_what_it_left_inconsistent(yard: Yard) -> None:
    """Its neighbour goes on."""
    await yard.add_devices(["d1", "d2"], labels={"site": "a"})
    rules = {"max_unavailable": [{"label": "site", "count": 1}], "halt_ratio": 1.0, "halt_min_sample": 99}
    rollout = await yard.run(plan(**rules))
    await yard.look()
    for device in ("d1", "d2"):
        await yard.ready(rollout, device)
    await yard.look()
    await yard.report(rollout, "d1", State.INCONSISTENT, code=ErrorCode.HEALTH)
    await yard.report(rollout, "d2", State.FETCHED)
    await yard.look()
    assert (await yard.row(rollout, "d2")).grant == "download"
    async with yard.db.begin() as conn:
        await exclude_device(conn, "d1", "retired", yard.clock.now())
    await yard.set_device_state("d1", DeviceState.RETIRED)
    while await yard.look() == 0:
        pass
    assert (await yard.row(rollout, "d2")).grant == "activate"


async def test_a_revoked_device_is_not_tried_again(yard: Yard) -> None:
    """It would wait for ever, and the rollout with it."""
    await yard.add_devices(["d1"])
    rollout = await yard.run(plan(halt_ratio=1.0, halt_min_sample=99, halt_count=9))
    await yard.look()
    await yard.ready(rollout, "d1")
    await yard.look()
    await yard.report(rollout, "d1", State.FAILED, code=ErrorCode.SLOW)
    await yard.look()
    await yard.set_device_state("d1", DeviceState.REVOKED)
    with pytest.raises(ConflictError, match="no device failed that way"):
        await yard.order(rollout, "retry")


async def test_a_device_that_was_just_granted_is_not_late(yard: Yard) -> None:
    """Its permit is not free while it may begin at any moment."""
    await yard.add_devices(["d1", "d2"], labels={"site": "a"})
    rules = {"max_unavailable": [{"label": "site", "count": 1}], "timeouts": {"queued_s": 5}}
    rollout = await yard.run(plan(**rules))
    await yard.look()
    for device in ("d1", "d2"):
        await yard.ready(rollout, device)
    await yard.look()
    await yard.report(rollout, "d1", State.FETCHED)
    await yard.look()
    yard.clock.advance(4)
    await yard.report(rollout, "d2", State.FETCHED)
    await yard.look()
    yard.clock.advance(2)
    await yard.look()
    granted, other = [await yard.row(rollout, device) for device in ("d1", "d2")]
    assert (granted.grant, granted.state, other.grant) == ("activate", "fetched", "closed")


async def test_a_permit_stays_taken_while_a_closed_grant_may_still_be_used(yard: Yard) -> None:
    """A device may begin until the grant that it has ends, whether or not its offer was closed meanwhile."""
    await yard.add_devices(["d1", "d2"], labels={"site": "a"})
    await yard.add_release(name=OTHER, component="os")
    lighter = await yard.run(plan(weight=1, max_unavailable=[{"label": "site", "count": 1}]))
    await yard.look()
    for device in ("d1", "d2"):
        await yard.ready(lighter, device)
    await yard.look()
    await yard.report(lighter, "d1", State.FETCHED)
    await yard.look()
    await yard.run(plan(release=OTHER, members={"devices": ["d1"]}))
    await yard.look()
    await yard.ready("r-2", "d1")
    await yard.look()
    await yard.report(lighter, "d2", State.FETCHED)
    await yard.look()
    assert [(await yard.row(lighter, device)).grant for device in ("d1", "d2")] == ["closed", "download"]
    yard.clock.advance(GRANT_S)
    while await yard.look() == 0:
        pass
    assert [(await yard.row(lighter, device)).grant for device in ("d1", "d2")] == ["closed", "activate"]


async def test_a_rollout_does_not_end_while_a_grant_may_still_be_used(yard: Yard) -> None:
    """Its permit would stay taken for ever: nobody looks at a rollout that has ended."""
    await yard.add_devices(["d1"], labels={"site": "a"})
    rollout = await yard.run(plan(max_unavailable=[{"label": "site", "count": 1}]))
    await yard.look()
    await yard.ready(rollout, "d1")
    await yard.look()
    await yard.report(rollout, "d1", State.FETCHED)
    await yard.look()
    await yard.order(rollout, "abort")
    async with yard.db.begin() as conn:
        await exclude_device(conn, "d1", "retired", yard.clock.now())
    await yard.look()
    assert (await yard.rollout(rollout)).ended_at is None
    yard.clock.advance(GRANT_S)
    while await yard.look() == 0:
        pass
    assert (await yard.rollout(rollout)).ended_at is not None
    assert (await yard.row(rollout, "d1")).permits == ()


async def test_a_device_that_waited_too_long_to_activate_is_let_go(yard: Yard) -> None:
    """It holds nothing up afterwards: neither its rollout nor another one."""
    await yard.add_devices(["d1"])
    await yard.add_release(name=OTHER)
    rollout = await yard.run(plan(timeouts={"queued_s": 60}, halt_ratio=1.0, halt_min_sample=99, halt_count=9))
    await yard.look()
    await yard.ready(rollout, "d1")
    await yard.look()
    await yard.report(rollout, "d1", State.INSTALLED, phase=Phase.ACTIVATE)
    yard.clock.advance(61)
    while await yard.look() == 0:
        pass
    row = await yard.row(rollout, "d1")
    assert (row.state, row.grant) == ("timed_out", "closed")
    second = await yard.run(plan(release=OTHER))
    await yard.look()
    await yard.ready(second, "d1")
    await yard.look()
    assert (await yard.row(second, "d1")).state == "offered"
