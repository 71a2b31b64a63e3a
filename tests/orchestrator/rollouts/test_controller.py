"""The controller over a real database: what devices say in, offers, grants and marks out."""

import asyncio
from datetime import timedelta
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator.model.device import DeviceState
from orchestrator.model.plan import StageSpec
from orchestrator.model.rollout import RolloutState
from orchestrator.rollouts import creating
from orchestrator.rollouts.controller import MAX_IDLE_S
from protocol.errors import FlagshipError
from protocol.states import State
from protocol.topics import Kind
from tests.orchestrator.rollouts import ordering
from tests.orchestrator.rollouts.yard import LEASE_S, LOW_BATTERY, NOW, Yard, open_yard, plan

FOUR = ["d1", "d2", "d3", "d4"]
TWO_STAGES = (StageSpec(name="canary", group="canary"), StageSpec(name="all", percent=100))


async def _nothing_in_flight() -> None:
    """Every send has ended."""


async def _all_ask(yard: Yard, rollout: str, devices: list[str]) -> None:
    for device in devices:
        await yard.ready(rollout, device)
    await yard.look()
    for device in devices:
        await yard.report(rollout, device, State.FETCHED)


async def test_a_start_is_announced_and_opens_the_first_stage(yard: Yard) -> None:
    """The first look marks the announcement and opens the canary stage; nobody is offered anything unasked."""
    await yard.add_devices(["d1"], group="canary")
    await yard.add_devices(["d2", "d3"])
    rollout = await yard.run(plan(*TWO_STAGES))
    assert rollout in await yard.marks(Kind.ANNOUNCE)
    await yard.look()
    assert await yard.marks(Kind.ANNOUNCE) == {rollout}
    assert await yard.stages(rollout) == ["open", "pending"]
    assert (await yard.rollout(rollout)).announcement_expires == NOW + timedelta(seconds=LEASE_S)
    assert await yard.offered(rollout) == set()
    assert await yard.happenings(rollout) == ["rollout_created", "rollout_started", "stage_opened"]
    assert yard.woken == 1


async def test_a_pause_after_a_soak_does_not_keep_the_controller_busy(yard: Yard) -> None:
    """The soak ends while the rollout is paused: nothing follows from it until somebody resumes."""
    await yard.add_devices(["d1"], group="canary")
    await yard.add_devices(["d2"])
    rollout = await yard.run(plan(*TWO_STAGES, soak_s=5))
    await yard.ready(rollout, "d1")
    await yard.look()
    await yard.report(rollout, "d1", State.SUCCEEDED)
    assert await yard.look() == pytest.approx(5)
    await ordering.pause(yard.db, yard.clock, rollout)
    yard.clock.advance(6)
    assert await yard.look() > 1
    assert await yard.stages(rollout) == ["soaking", "pending"]
    await ordering.resume(yard.db, yard.clock, rollout)
    await yard.look()
    assert await yard.stages(rollout) == ["passed", "open"]


async def test_only_ready_devices_of_open_stages_are_offered(yard: Yard) -> None:
    """Readiness alone opens nothing: the device of a later stage and the one with a low battery wait."""
    await yard.add_devices(["d1", "d2"], group="canary")
    await yard.add_devices(["d3"])
    rollout = await yard.run(plan(*TWO_STAGES))
    for device in ("d1", "d3"):
        await yard.ready(rollout, device)
    await yard.ready(rollout, "d2", LOW_BATTERY)
    await yard.look()
    assert await yard.offered(rollout) == {"d1"}
    row = await yard.row(rollout, "d1")
    assert (row.state, row.grant, row.ready) == ("offered", "download", False)
    assert row.offer_expires == NOW + timedelta(seconds=LEASE_S)
    assert await yard.marks(Kind.OFFER) == {f"d1/{rollout}"}
    assert (await yard.rollout(rollout)).offers_made == 1


async def test_a_revoked_device_is_passed_over(yard: Yard) -> None:
    """It said that it is ready before it was revoked; others are offered all the same."""
    await yard.add_devices(["d1", "d2"])
    rollout = await yard.run()
    for device in ("d1", "d2"):
        await yard.ready(rollout, device)
    await yard.set_device_state("d1", DeviceState.REVOKED)
    await yard.look()
    assert await yard.offered(rollout) == {"d2"}


async def test_a_device_that_asks_is_granted_what_it_asked_for(yard: Yard) -> None:
    """The grant names the nonce of the question, so that an old one answers nothing."""
    await yard.add_devices(["d1"])
    rollout = await yard.run()
    await _all_ask(yard, rollout, ["d1"])
    asked = await yard.row(rollout, "d1")
    await yard.marks(Kind.OFFER)
    await yard.look()
    row = await yard.row(rollout, "d1")
    assert (row.grant, row.grant_nonce, row.asking) == ("activate", asked.nonce, False)
    assert await yard.marks(Kind.OFFER) == {f"d1/{rollout}"}


async def test_a_paused_rollout_finishes_what_it_began(yard: Yard) -> None:
    """No new offers, but devices that have fetched may activate."""
    await yard.add_devices(["d1", "d2"])
    rollout = await yard.run()
    await _all_ask(yard, rollout, ["d1"])
    await ordering.pause(yard.db, yard.clock, rollout)
    await yard.ready(rollout, "d2")
    await yard.look()
    assert (await yard.row(rollout, "d1")).grant == "activate"
    assert await yard.offered(rollout) == {"d1"}


async def test_a_halted_rollout_only_hears(yard: Yard) -> None:
    """One that asks is heard and gets no grant; one that is ready gets no offer; the announcement is made anew."""
    await yard.add_devices(["d1", "d2"])
    rollout = await yard.run()
    await _all_ask(yard, rollout, ["d1"])
    await ordering.halt(yard.db, yard.clock, rollout, barrier=_nothing_in_flight)
    await yard.ready(rollout, "d2")
    await yard.marks(Kind.OFFER)
    await yard.look()
    row = await yard.row(rollout, "d1")
    assert (row.grant, row.asking) == ("download", False)
    assert await yard.marks(Kind.OFFER) == {f"d1/{rollout}"}
    assert await yard.offered(rollout) == {"d1"}
    assert rollout in await yard.marks(Kind.ANNOUNCE)


@pytest.mark.parametrize(
    ("rules", "failures"),
    [
        pytest.param({"halt_count": 2, "halt_ratio": 1.0, "halt_min_sample": 4}, 2, id="count"),
        pytest.param({"halt_ratio": 0.5, "halt_min_sample": 2}, 2, id="ratio"),
    ],
)
async def test_failures_halt(yard: Yard, rules: dict[str, Any], failures: int) -> None:
    """The look that sees the rule broken halts, announces it, tells the figures, and offers nothing any more."""
    await yard.add_devices(FOUR)
    rollout = await yard.run(plan(**rules))
    for device in FOUR[:3]:
        await yard.ready(rollout, device)
    await yard.look()
    for number in range(failures):
        assert (await yard.rollout(rollout)).state is RolloutState.RUNNING
        await yard.report(rollout, FOUR[number], State.ROLLED_BACK)
        await yard.ready(rollout, "d4") if number == failures - 1 else None
        await yard.report(rollout, "d3", State.FETCHED)
        await yard.marks(Kind.ANNOUNCE)
        await yard.look()
    found = await yard.rollout(rollout)
    assert found.state is RolloutState.HALTED
    assert "2" in found.reason and "failed" in found.reason
    assert await yard.marks(Kind.ANNOUNCE) == {rollout}
    assert await yard.offered(rollout) == {"d1", "d2", "d3"}
    assert "rollout_halted" in await yard.happenings(rollout)


async def test_halting_comes_before_passing(yard: Yard) -> None:
    """A stage that has its successes and too many failures halts; the next one stays shut."""
    await yard.add_devices(["d1", "d2"], group="canary")
    await yard.add_devices(["d3"])
    rollout = await yard.run(plan(*TWO_STAGES, success_ratio=0.5, halt_ratio=0.5, halt_min_sample=2))
    for device in FOUR[:3]:
        await yard.ready(rollout, device)
    await yard.look()
    await yard.report(rollout, "d1", State.SUCCEEDED)
    await yard.report(rollout, "d2", State.FAILED)
    await yard.look()
    assert (await yard.rollout(rollout)).state is RolloutState.HALTED
    assert await yard.stages(rollout) == ["open", "pending"]


async def test_leases_are_renewed_at_half_of_their_life(yard: Yard) -> None:
    """Announcement and open offers are signed anew at half, not before; an unused activate grant is not said again."""
    await yard.add_devices(["d1", "d2"])
    rollout = await yard.run()
    await _all_ask(yard, rollout, ["d1"])
    await yard.ready(rollout, "d2")
    await yard.look()
    for kind in (Kind.ANNOUNCE, Kind.OFFER):
        await yard.marks(kind)
    yard.clock.advance(LEASE_S / 2 - 1)
    assert await yard.look() == pytest.approx(1)
    assert await yard.marks(Kind.ANNOUNCE) == set() == await yard.marks(Kind.OFFER)
    yard.clock.advance(1)
    await yard.look()
    assert await yard.marks(Kind.ANNOUNCE) == {rollout}
    assert await yard.marks(Kind.OFFER) == {f"d1/{rollout}", f"d2/{rollout}"}
    row = await yard.row(rollout, "d1")
    assert (row.grant, row.grant_nonce) == ("activate", None)  # it may still be used; what is signed says download
    assert row.offer_expires == yard.clock.now() + timedelta(seconds=LEASE_S)


async def test_a_device_that_asks_while_its_offer_runs_out_is_counted_once(yard: Yard) -> None:
    """The answer and the renewal fall into one look: the answer holds, and counts stay right."""
    await yard.add_devices(["d1"])
    rollout = await yard.run()
    await yard.ready(rollout, "d1")
    await yard.look()
    yard.clock.advance(LEASE_S / 2 + 1)
    await yard.report(rollout, "d1", State.FETCHED)
    await yard.look()
    row = await yard.row(rollout, "d1")
    assert (row.grant, row.grant_nonce, row.asking) == ("activate", row.nonce, False)


async def test_a_rollout_completes_when_every_member_is_done(yard: Yard) -> None:
    """Declined counts as done; nothing more is renewed or looked at."""
    await yard.add_devices(["d1", "d2"])
    rollout = await yard.run()
    for device in ("d1", "d2"):
        await yard.ready(rollout, device)
    await yard.look()
    await yard.report(rollout, "d1", State.SUCCEEDED)
    await yard.look()
    assert (await yard.rollout(rollout)).state is RolloutState.RUNNING
    await yard.report(rollout, "d2", State.DECLINED)
    await yard.marks(Kind.ANNOUNCE)
    await yard.look()
    found = await yard.rollout(rollout)
    assert (found.state, found.ended_at) == (RolloutState.COMPLETED, NOW)
    assert await yard.marks(Kind.ANNOUNCE) == {rollout}
    yard.clock.advance(LEASE_S)
    assert await yard.look() == MAX_IDLE_S
    assert await yard.marks(Kind.ANNOUNCE) == set()


async def test_an_aborted_rollout_ends_when_the_last_device_says_so(yard: Yard) -> None:
    """Pending devices are done at once; the one that was offered something reports for itself."""
    await yard.add_devices(["d1", "d2"])
    rollout = await yard.run()
    await yard.ready(rollout, "d1")
    await yard.look()
    await yard.deliver(rollout, "d1")
    await ordering.abort(yard.db, yard.clock, rollout, barrier=_nothing_in_flight)
    await yard.look()
    assert (await yard.row(rollout, "d2")).state == State.CANCELLED
    assert (await yard.rollout(rollout)).ended_at is None
    await yard.report(rollout, "d1", State.CANCELLED)
    await yard.look()
    found = await yard.rollout(rollout)
    assert (found.state, found.ended_at) == (RolloutState.ABORTED, NOW)


async def test_an_aborted_rollout_does_not_wait_for_who_was_never_reached(yard: Yard) -> None:
    """An offer that was decided and never sent gets no answer; that of another rollout counts for nothing."""
    await yard.add_devices(["d1", "d2"])
    rollout = await yard.run()
    await yard.ready(rollout, "d1")
    await yard.ready(rollout, "d2")
    await yard.look()
    await yard.deliver("x-" + rollout, "d1")
    await yard.deliver(rollout, "d2")
    await ordering.abort(yard.db, yard.clock, rollout, barrier=_nothing_in_flight)
    assert [(row.state, row.grant) for row in await yard.rows(rollout)] == [
        (State.CANCELLED, "closed"),
        ("offered", "download"),
    ]
    await yard.report(rollout, "d2", State.CANCELLED)
    await yard.look()
    assert (await yard.rollout(rollout)).ended_at == NOW


async def test_an_offer_that_left_with_the_abort_is_still_answered(yard: Yard) -> None:
    """It was not recorded yet: the outcome of the device that took it replaces what the abort assumed."""
    await yard.add_devices(["d1"])
    rollout = await yard.run()
    await yard.ready(rollout, "d1")
    await yard.look()
    await ordering.abort(yard.db, yard.clock, rollout, barrier=_nothing_in_flight)
    await yard.look()
    await yard.marks(Kind.OFFER)
    await yard.report(rollout, "d1", State.ROLLED_BACK)
    await yard.check_counts()
    row = await yard.row(rollout, "d1")
    assert (row.state, row.grant) == (State.ROLLED_BACK, "closed")
    assert await yard.marks(Kind.OFFER) == {f"d1/{rollout}"}, "it is heard"


async def test_a_failure_that_comes_after_the_end_is_counted(yard: Yard) -> None:
    """The rollout is over, and stays so; what the device said last is settled as a failure all the same."""
    await yard.add_devices(["d1"])
    rollout = await yard.run()
    await yard.look()
    await yard.ready(rollout, "d1")
    await yard.look()
    await ordering.abort(yard.db, yard.clock, rollout, barrier=_nothing_in_flight)
    await yard.look()
    assert (await yard.rollout(rollout)).ended_at == NOW
    await yard.report(rollout, "d1", State.ROLLED_BACK)
    await yard.look()
    row = await yard.row(rollout, "d1")
    assert (row.state, row.settled) == (State.ROLLED_BACK, True)
    found = await yard.rollout(rollout)
    assert (found.state, found.ended_at) == (RolloutState.ABORTED, NOW)


async def test_a_scheduled_rollout_starts_by_the_clock(yard: Yard) -> None:
    """Not a second earlier, and without anybody asking."""
    await yard.add_devices(["d1"])
    rollout = await creating.create(yard.db, yard.clock, plan(start_at=NOW + timedelta(seconds=20)))
    assert rollout.state is RolloutState.SCHEDULED
    assert await yard.look() == pytest.approx(20)
    yard.clock.advance(19)
    await yard.look()
    assert (await yard.rollout(rollout.id)).started_at is None
    yard.clock.advance(1)
    await yard.look()
    found = await yard.rollout(rollout.id)
    assert (found.state, found.started_at) == (RolloutState.RUNNING, yard.clock.now())
    assert await yard.stages(rollout.id) == ["open"]


async def test_a_second_look_at_the_same_facts_changes_nothing(yard: Yard) -> None:
    """A look is idempotent: no mark, no event, no waking of delivery."""
    await yard.add_devices(["d1"])
    rollout = await yard.run()
    await yard.ready(rollout, "d1")
    await yard.look()
    woken = yard.woken
    for kind in Kind:
        await yard.marks(kind)
    before = await yard.happenings(rollout)
    await yard.look()
    assert (yard.woken, await yard.happenings(rollout)) == (woken, before)
    assert not any([await yard.marks(kind) for kind in Kind])


async def test_offers_go_out_at_the_pace_when_the_controller_sleeps_as_long_as_it_says(yard: Yard) -> None:
    """Thirty ready devices at twelve a minute take two and a half minutes, with nobody else waking the controller."""
    ids = [f"d{number:02}" for number in range(30)]
    await yard.add_devices(ids)
    rollout = await yard.run(plan(pace_per_minute=12))
    for device in ids:
        await yard.ready(rollout, device)
    for _ in range(200):
        if len(await yard.offered(rollout)) == len(ids):
            break
        yard.clock.advance(max(0.05, await yard.look()))
        elapsed_s = (yard.clock.now() - NOW).total_seconds()
        assert elapsed_s <= 30 * 60 / 12 + 5
    assert len(await yard.offered(rollout)) == len(ids)
    assert (yard.clock.now() - NOW).total_seconds() >= 28 * 60 / 12


async def test_run_looks_when_it_is_woken(yard: Yard) -> None:
    """The loop does not wait for its next tick when a report came in."""
    await yard.add_devices(["d1"])
    rollout = await yard.run()
    task = asyncio.create_task(yard.controller.run())
    try:
        async with asyncio.timeout(10):
            while await yard.stages(rollout) != ["open"]:
                await asyncio.sleep(0.01)
            await yard.ready(rollout, "d1")
            yard.controller.wake()
            while not await yard.offered(rollout):
                await asyncio.sleep(0.01)
    finally:
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


_STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("ready"), st.sampled_from(FOUR)),
        st.tuples(st.just("wait"), st.sampled_from(FOUR)),
        st.tuples(st.sampled_from(list(State)), st.sampled_from(FOUR)),
        st.tuples(st.sampled_from(["pause", "resume", "halt", "abort", "look", "hour"]), st.just("")),
    ),
    max_size=40,
)


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(_STEPS)
def test_whatever_happens_counts_hold_and_a_halt_gives_nothing(steps: list[tuple[Any, str]]) -> None:
    """Any order of reports, orders and looks: counts equal a recount; halted, nobody gets an offer or a grant."""
    asyncio.run(_live(steps))


@pytest.mark.slow
@settings(max_examples=150, deadline=None, derandomize=False, suppress_health_check=[HealthCheck.too_slow])
@given(_STEPS)
def test_whatever_else_happens_counts_hold_and_a_halt_gives_nothing(steps: list[tuple[Any, str]]) -> None:
    """Others every time."""
    asyncio.run(_live(steps))


async def _live(steps: list[tuple[Any, str]]) -> None:
    async with open_yard() as yard:
        await yard.add_devices(FOUR[:2], group="canary")
        await yard.add_devices(FOUR[2:])
        rollout = await yard.run(plan(*TWO_STAGES, success_ratio=0.5, halt_ratio=0.6, halt_min_sample=2))
        await yard.look()
        for what, device in steps:
            before = {row.device: row for row in await yard.rows(rollout)}
            was = (await yard.rollout(rollout)).state
            await _step(yard, rollout, what, device)
            await yard.check_counts()
            state = (await yard.rollout(rollout)).state
            for row in await yard.rows(rollout):
                given_more = (row.offered_at, row.grant == "activate") > (
                    before[row.device].offered_at, before[row.device].grant == "activate",
                ) if before[row.device].offered_at else row.offered_at is not None  # fmt: skip
                if given_more:
                    assert state is RolloutState.RUNNING or (state is RolloutState.PAUSED and row.grant == "activate")
                    assert was in (RolloutState.RUNNING, RolloutState.PAUSED)
                assert not (before[row.device].is_terminal and not row.is_terminal)


async def _step(yard: Yard, rollout: str, what: Any, device: str) -> None:
    match what:
        case "ready":
            await yard.ready(rollout, device)
        case "wait":
            await yard.ready(rollout, device, LOW_BATTERY)
        case State():
            await yard.report(rollout, device, what)
        case "look":
            await yard.look()
        case "hour":
            yard.clock.advance(LEASE_S * 0.6)
            await yard.look()
        case _:
            verbs = {"pause": ordering.pause, "resume": ordering.resume}
            try:
                if what in verbs:
                    await verbs[what](yard.db, yard.clock, rollout, "because")
                else:
                    verb = ordering.halt if what == "halt" else ordering.abort
                    await verb(yard.db, yard.clock, rollout, barrier=_nothing_in_flight)
            except FlagshipError:
                pass


async def test_random_lives_end(yard: Yard) -> None:
    """Devices that go their way in any order bring the rollout to its end, whatever the stages."""
    random = Random(7)
    ids = await yard.add_devices([f"d{number:02}" for number in range(12)])
    stages = [StageSpec(name=f"s{share}", percent=share) for share in (10, 50, 100)]
    rollout = await yard.run(plan(*stages, soak_s=5, pace_per_minute=600))
    way = [State.DOWNLOADING, State.FETCHED, State.INSTALLING, State.VERIFYING, State.SUCCEEDED]
    at = dict.fromkeys(ids, 0)
    for _ in range(2000):
        if (await yard.rollout(rollout)).state is RolloutState.COMPLETED:
            break
        device = random.choice(ids)
        row = await yard.row(rollout, device)
        if row.offered_at is None:
            await yard.ready(rollout, device)
        elif not row.is_terminal:
            if way[at[device]] is State.INSTALLING and row.grant != "activate":
                at[device] -= 1  # the grant ran out, or is not here yet: it asks again
            await yard.report(rollout, device, way[at[device]])
            at[device] += 1
        if random.random() < 0.5:
            yard.clock.advance(2)
            await yard.look()
    assert (await yard.rollout(rollout)).state is RolloutState.COMPLETED
    assert {row.state for row in await yard.rows(rollout)} == {State.SUCCEEDED}
