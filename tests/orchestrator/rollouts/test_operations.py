"""What an operator may do: each verb in each state, and every way to be refused."""

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest

from orchestrator.errors import ConflictError, NotFoundError, OperationError, UsageError
from orchestrator.model.device import DeviceState
from orchestrator.model.plan import Members, RolloutSpec, StageSpec
from orchestrator.model.rollout import Rollout, RolloutState
from orchestrator.rollouts import creating
from orchestrator.storage import rollouts
from orchestrator.storage.releases import IMPORTING, WITHDRAWN
from protocol.topics import Kind
from tests.orchestrator.rollouts import ordering
from tests.orchestrator.rollouts.yard import NOW, Yard, plan

S = RolloutState
ALLOWED: dict[str, dict[RolloutState, RolloutState]] = {
    "start": {S.DRAFT: S.RUNNING, S.SCHEDULED: S.RUNNING},
    "pause": {S.RUNNING: S.PAUSED},
    "resume": {S.PAUSED: S.RUNNING, S.HALTED: S.RUNNING},
    "halt": {S.RUNNING: S.HALTED, S.PAUSED: S.HALTED},
    "abort": {state: S.ABORTED for state in S if state not in (S.ABORTED, S.COMPLETED)},
}
CASES = [(verb, state) for verb in ALLOWED for state in S]


@pytest.fixture
def sent() -> list[str]:
    """Barriers that were waited for."""
    return []


async def act(yard: Yard, verb: str, rollout: str, sent: list[str] | None = None) -> Rollout:
    """Carry out a verb through its own function."""

    async def barrier() -> None:
        if sent is not None:
            sent.append((await yard.rollout(rollout)).state.value)

    match verb:
        case "start":
            return await creating.start(yard.db, yard.clock, rollout)
        case "pause":
            return await ordering.pause(yard.db, yard.clock, rollout)
        case "resume":
            return await ordering.resume(yard.db, yard.clock, rollout, "looked at it")
        case "halt":
            return await ordering.halt(yard.db, yard.clock, rollout, barrier=barrier)
        case _:
            return await ordering.abort(yard.db, yard.clock, rollout, barrier=barrier)


@pytest.mark.parametrize(("verb", "state"), CASES, ids=[f"{verb}-{state}" for verb, state in CASES])
async def test_each_verb_applies_to_its_states_only(
    yard: Yard, sent: list[str], verb: str, state: RolloutState
) -> None:
    """Elsewhere it is refused with what it needs and what was found, and changes nothing."""
    await yard.add_devices(["d1"])
    rollout = (await creating.create(yard.db, yard.clock, plan())).id
    async with yard.db.begin() as conn:
        await rollouts.save(conn, rollout, state=state)
    await yard.marks(Kind.ANNOUNCE)
    if state in ALLOWED[verb]:
        found = await act(yard, verb, rollout, sent)
        assert found.state is ALLOWED[verb][state]
        assert found == await yard.rollout(rollout)
        assert await yard.marks(Kind.ANNOUNCE) == (set() if verb == "pause" else {rollout})
        assert await yard.marks(Kind.STATUS_ROLLOUT) == {rollout}
        assert sent == ([found.state.value] if verb in ("halt", "abort") else [])  # written before it waits
        return
    before = await yard.rollout(rollout)
    with pytest.raises(ConflictError, match=f"rollout r-1: is {state}; {verb} needs one that is "):
        await act(yard, verb, rollout, sent)
    assert await yard.rollout(rollout) == before
    assert await yard.marks(Kind.ANNOUNCE) == set()
    assert sent == []


@pytest.mark.parametrize("verb", sorted(ALLOWED))
async def test_a_verb_on_nothing(yard: Yard, verb: str) -> None:
    """The sentence names the id and where to look."""
    with pytest.raises(NotFoundError, match="rollout r-9: there is none; see 'flagship rollout list'"):
        await act(yard, verb, "r-9")


async def test_create_tries_the_plan_and_start_fixes_the_members(yard: Yard) -> None:
    """A draft has its stages with their sizes as of now, and nobody in them; nothing is announced before its start."""
    await yard.add_devices(["d1"], group="canary")
    await yard.add_devices(["d2", "d3"])
    await yard.add_devices(["done"], components={"app": "1.1.0"})
    spec = plan(StageSpec(name="canary", group="canary"), StageSpec(name="all", percent=100))
    rollout = await creating.create(yard.db, yard.clock, spec)
    assert (rollout.id, rollout.state, rollout.spec, rollout.created_at) == ("r-1", S.DRAFT, spec, NOW)
    assert await yard.rows("r-1") == []
    async with yard.db.read() as conn:
        assert [stage.members for stage in await rollouts.load_stages(conn, "r-1")] == [1, 2]
    assert await yard.marks(Kind.ANNOUNCE) == set()
    await yard.check_counts()
    await yard.look()
    assert await yard.stages("r-1") == ["pending", "pending"]
    await yard.add_devices(["d4"])
    await yard.set_device_state("d2", DeviceState.RETIRED)
    await creating.start(yard.db, yard.clock, "r-1")
    assert {row.device: row.stage for row in await yard.rows("r-1")} == {"d1": 0, "d3": 1, "d4": 1}
    await yard.add_devices(["d5"])
    await yard.look()
    assert len(await yard.rows("r-1")) == 3
    spec = spec.model_copy(update={"release": "gateway/1.2.0"})
    await yard.add_release(name="gateway/1.2.0")
    assert (await creating.create(yard.db, yard.clock, spec)).id == "r-2"
    later = plan(start_at=NOW + timedelta(hours=1))
    assert (await creating.create(yard.db, yard.clock, later, "night")).state is S.SCHEDULED


async def test_a_start_in_the_past_is_refused(yard: Yard) -> None:
    """Last year's date would start it at once; a time that passed on the way is now."""
    await yard.add_devices(["d1"])
    with pytest.raises(UsageError, match="is past"):
        await creating.create(yard.db, yard.clock, plan(start_at=NOW - timedelta(days=365)), "late")
    soon = await creating.create(yard.db, yard.clock, plan(start_at=NOW - timedelta(seconds=5)), "soon")
    assert soon.state is S.SCHEDULED


async def test_a_large_fleet_is_read_in_pages(yard: Yard) -> None:
    """Members beyond one page take part as well, and an abort cancels them all, in batches."""
    ids = await yard.add_devices([f"d{number:04}" for number in range(1201)])
    rollout = await yard.run()
    await act(yard, "abort", rollout)
    while await yard.look() == 0:
        pass
    async with yard.db.read() as conn:
        found = await conn.exec_driver_sql("SELECT state, count(*) FROM assignments GROUP BY state")
        assert [tuple(row) for row in found] == [("cancelled", len(ids))]
    assert await yard.marks(Kind.STATUS_DEVICE) == set(ids[:1000])
    assert (await yard.rollout(rollout)).ended_at is not None


async def test_what_never_began_ends_with_its_abort(yard: Yard) -> None:
    """Nobody was placed, and nobody is waited for."""
    await yard.add_devices(["d1"])
    rollout = await creating.create(yard.db, yard.clock, plan())
    await act(yard, "abort", rollout.id)
    assert (await yard.rollout(rollout.id)).ended_at == NOW


async def test_a_release_that_was_withdrawn_is_not_started(yard: Yard) -> None:
    """Between plan and start; a rollout that was to start by itself is a draft again, and says why."""
    await yard.add_devices(["d1"])
    await creating.create(yard.db, yard.clock, plan())
    await creating.create(yard.db, yard.clock, plan(start_at=NOW + timedelta(seconds=5)), "night")
    async with yard.db.begin() as conn:
        await conn.exec_driver_sql("UPDATE releases SET state = ?", (WITHDRAWN,))
    with pytest.raises(ConflictError, match="is withdrawn"):
        await creating.start(yard.db, yard.clock, "r-1")
    assert (await yard.rollout("r-1")).state is S.DRAFT
    yard.clock.advance(5)
    await yard.look()
    night = await yard.rollout("night")
    assert (night.state, "is withdrawn" in night.reason) == (S.DRAFT, True)
    assert "rollout_not_started" in await yard.happenings("night")


async def _no_release(yard: Yard) -> RolloutSpec:
    return RolloutSpec(release="gateway/9.9.9", stages=plan().stages)


async def _importing(yard: Yard) -> RolloutSpec:
    await yard.add_release(IMPORTING, "gateway/2.0.0")
    return RolloutSpec(release="gateway/2.0.0", stages=plan().stages)


async def _withdrawn(yard: Yard) -> RolloutSpec:
    await yard.add_release(WITHDRAWN, "gateway/2.0.0")
    return RolloutSpec(release="gateway/2.0.0", stages=plan().stages)


async def _no_group(yard: Yard) -> RolloutSpec:
    return plan(members=Members(group="night"))


async def _no_stage_group(yard: Yard) -> RolloutSpec:
    return plan(StageSpec(name="canary", group="night"), StageSpec(name="all", percent=100))


async def _empty_stage(yard: Yard) -> RolloutSpec:
    return plan(StageSpec(name="canary", selector="site=lab"), StageSpec(name="all", percent=100))


async def _left_over(yard: Yard) -> RolloutSpec:
    return plan(StageSpec(name="one", selector="id=d1"))


async def _nobody(yard: Yard) -> RolloutSpec:
    return plan(members=Members(selector="site=lab"))


@pytest.mark.parametrize(
    ("make", "error", "says"),
    [
        (_no_release, NotFoundError, "release gateway/9.9.9: there is none"),
        (_importing, ConflictError, "release gateway/2.0.0: is importing; publish it"),
        (_withdrawn, ConflictError, "release gateway/2.0.0: is withdrawn"),
        (_no_group, NotFoundError, "group night: there is none"),
        (_no_stage_group, NotFoundError, "group night: there is none"),
        (_empty_stage, ConflictError, "stage canary is empty"),
        (_left_over, ConflictError, "1 of 2 members are in no stage"),
        (_nobody, ConflictError, "no member"),
    ],
)
async def test_a_plan_that_cannot_be_carried_out_leaves_nothing(
    yard: Yard, make: Callable[[Yard], Awaitable[RolloutSpec]], error: type[OperationError], says: str
) -> None:
    """One sentence; no rollout, no stage, no assignment, no event, no mark."""
    await yard.add_devices(["d1", "d2"])
    spec = await make(yard)
    with pytest.raises(error) as refused:
        await creating.create(yard.db, yard.clock, spec)
    assert says in str(refused.value)
    async with yard.db.read() as conn:
        for table in ("rollouts", "stages", "assignments", "counts", "events", "dirty"):
            assert (await conn.exec_driver_sql(f"SELECT count(*) FROM {table}")).scalar() == 0, table


async def test_an_id_is_given_once(yard: Yard) -> None:
    """The second one is refused."""
    await yard.add_devices(["d1"])
    await creating.create(yard.db, yard.clock, plan(), "night")
    with pytest.raises(ConflictError, match="rollout night: exists already"):
        await creating.create(yard.db, yard.clock, plan(), "night")


async def test_a_halt_is_left_with_a_reason_only(yard: Yard) -> None:
    """Whoever resumes says why; the sentence repeats why it was halted. A pause needs none."""
    await yard.add_devices(["d1"])
    rollout = await yard.run()
    await act(yard, "halt", rollout)
    with pytest.raises(UsageError, match=r"was halted \(halted by an operator\); resume it with --reason"):
        await ordering.resume(yard.db, yard.clock, rollout)
    assert (await yard.rollout(rollout)).state is S.HALTED
    assert (await ordering.resume(yard.db, yard.clock, rollout, "false alarm")).reason == "false alarm"
    await act(yard, "pause", rollout)
    assert (await ordering.resume(yard.db, yard.clock, rollout)).state is S.RUNNING


async def test_a_reason_is_bounded(yard: Yard) -> None:
    """It stands in events and status topics."""
    await yard.add_devices(["d1"])
    rollout = await yard.run()
    with pytest.raises(UsageError, match="--reason: at most 500 characters, found 501"):
        await ordering.pause(yard.db, yard.clock, rollout, "x" * 501)


_STAGE: dict[str, Any] = {"name": "all", "percent": 100}


@pytest.mark.parametrize(
    ("stages", "says"),
    [
        pytest.param([], "at least 1 item", id="none"),
        pytest.param([{"name": "a"}], "expected one of group, selector, percent or devices", id="says nothing"),
        pytest.param(
            [{**_STAGE, "group": "g"}], "expected one of group, selector, percent or devices", id="says two things"
        ),
        pytest.param([_STAGE, _STAGE], "two have the name", id="one name twice"),
        pytest.param([{"name": "a", "percent": 50}, {"name": "b", "percent": 25}, _STAGE], "does not add", id="falls"),
        pytest.param([{"name": "a", "percent": 50}, {"name": "b", "percent": 50}, _STAGE], "does not add", id="stands"),
        pytest.param([{"name": "a", "percent": 50}], "add up to 50%, expected 100%", id="ends early"),
        pytest.param([{"name": "a", "percent": 101}], "less than or equal to 100", id="over a hundred"),
        pytest.param([{"name": "a", "percent": float("nan")}], "finite number", id="no number"),
        pytest.param([{"name": "a/b", "percent": 100}], "expected 1 to 64 letters", id="bad name"),
        pytest.param([{"name": "a", "selector": "site"}], "expected '=', '!=' or 'in'", id="bad selector"),
    ],
)
def test_a_plan_that_does_not_add_up(stages: list[dict[str, Any]], says: str) -> None:
    """The plan itself is refused before anything is looked up."""
    with pytest.raises(ValueError, match="validation error") as refused:
        RolloutSpec.model_validate({"release": "gateway/1.1.0", "stages": stages})
    assert says in str(refused.value)
