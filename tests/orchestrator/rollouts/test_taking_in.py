"""Dynamic membership: who comes later joins the last open stage, under the same pace; who does not fit does not."""

from datetime import timedelta
from typing import Any

import pytest

from orchestrator.model.plan import Members, RolloutSpec, StageSpec
from orchestrator.model.rollout import RolloutState
from orchestrator.rollouts import placing
from orchestrator.storage import groups
from orchestrator.storage.reports import Incoming, apply_batch
from protocol.reports import Inventory
from protocol.states import State
from tests.orchestrator.rollouts.yard import NOW, Yard, plan

HALVES = (StageSpec(name="canary", percent=50), StageSpec(name="rest", percent=100))


def dynamic(selector: str | None = None, group: str | None = None, **more: Any) -> RolloutSpec:
    """A plan that takes late joiners for a day."""
    values = {"end_at": NOW + timedelta(days=1), **more}
    return plan(*HALVES, members=Members(dynamic=True, selector=selector, group=group), **values)


async def inventory(yard: Yard, device: str, **changes: Any) -> None:
    """A device says what it is."""
    values = {"product": "gateway", "hardware": "rev-a", "components": {"app": "1.0.0"}, "agent": "1", **changes}
    head = {"fleet": "harbour", "issued": NOW, "device": device, "session": 9, "seq": yard.next_seq()}
    async with yard.db.begin() as conn:
        await apply_batch(conn, [Incoming(device, Inventory(**head, **values))], yard.clock.now())


async def test_who_enrols_later_joins_the_last_open_stage(yard: Yard) -> None:
    """Counted among its members, and offered like them."""
    await yard.add_devices(["d1", "d2"])
    rollout = await yard.run(dynamic())
    await yard.look()
    await yard.add_devices(["late"])
    await yard.add_devices(["other"], hardware="rev-z")
    await yard.look()
    assert (await yard.row(rollout, "late")).stage == 0
    assert {row.device for row in await yard.rows(rollout)} == {"d1", "d2", "late"}
    assert await yard.sizes(rollout) == [2, 1]
    await yard.ready(rollout, "late")
    await yard.look()
    assert "late" in await yard.offered(rollout)


async def test_who_comes_to_fit_joins_too(yard: Yard) -> None:
    """By a label, or by being put into the group."""
    await yard.add_devices(["d1", "d2"], group="ward", labels={"site": "lab"})
    await yard.add_devices(["moved", "added"])
    by_label = await yard.run(dynamic(selector="site=lab"))
    await yard.add_release(name="gateway/1.2.0")
    by_group = await yard.run(dynamic(group="ward", release="gateway/1.2.0"))
    await yard.look()
    await inventory(yard, "moved", labels={"site": "lab"})
    async with yard.db.begin() as conn:
        await groups.add_members(conn, "ward", ["added"])
    await yard.look()
    assert {row.device for row in await yard.rows(by_label)} == {"d1", "d2", "moved"}
    assert {row.device for row in await yard.rows(by_group)} == {"d1", "d2", "added"}


async def test_a_static_rollout_takes_nobody_in(yard: Yard) -> None:
    """And what nobody asks for is not kept."""
    await yard.add_devices(["d1", "d2"])
    rollout = await yard.run(plan(*HALVES))
    await yard.look()
    await yard.add_devices(["late"])
    await yard.look()
    assert len(await yard.rows(rollout)) == 2
    async with yard.db.read() as conn:
        assert (await conn.exec_driver_sql("SELECT count(*) FROM newcomers")).scalar() == 0


async def test_the_pace_holds_for_late_joiners(yard: Yard) -> None:
    """A limit that is kept where offers are made cannot be passed by coming late."""
    await yard.add_devices(["d1", "d2"])
    rollout = await yard.run(dynamic(pace_per_minute=1))
    await yard.look()
    await yard.add_devices([f"late{n}" for n in range(5)])
    await yard.look()
    for row in await yard.rows(rollout):
        if row.stage == 0:
            await yard.ready(rollout, row.device)
    await yard.look()
    assert len(await yard.offered(rollout)) == 1
    yard.clock.advance(60)
    await yard.look()
    assert len(await yard.offered(rollout)) == 2


async def test_it_completes_at_its_end_and_not_before(yard: Yard) -> None:
    """While more may come it is not over, whoever is done."""
    await yard.add_devices(["d1", "d2"])
    rollout = await yard.run(dynamic())
    for _ in range(2):
        await yard.look()
        for row in await yard.rows(rollout):
            if row.state == "pending":
                await yard.ready(rollout, row.device)
        await yard.look()
        for row in await yard.rows(rollout):
            if row.state == "offered":
                await yard.report(rollout, row.device, State.SUCCEEDED)
        await yard.look()
    assert (await yard.rollout(rollout)).state is RolloutState.RUNNING
    yard.clock.advance(86_400)
    while await yard.look() == 0:
        pass
    assert (await yard.rollout(rollout)).state is RolloutState.COMPLETED
    await yard.add_devices(["late"])
    await yard.look()
    assert len(await yard.rows(rollout)) == 2


async def test_who_enrols_before_the_first_stage_opens_joins_it(yard: Yard) -> None:
    """Looked at once, and not lost between the start and the first look."""
    await yard.add_devices(["d1", "d2"])
    rollout = await yard.run(dynamic())
    await yard.add_devices(["late"])
    await yard.look()
    assert (await yard.row(rollout, "late")).stage == 0


async def test_who_enrols_while_a_rollout_starts_is_looked_at_after_it(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The snapshot of its members was taken before; another dynamic rollout that runs must not use the news up."""
    await yard.add_devices(["d1", "d2"])
    running = await yard.run(dynamic())
    await yard.look()
    await yard.add_release(name="gateway/1.2.0")
    place = placing.place

    async def meanwhile(*words: Any) -> list[int]:
        monkeypatch.setattr(placing, "place", place)
        await yard.add_devices(["late"])
        await yard.look()
        return await place(*words)

    monkeypatch.setattr(placing, "place", meanwhile)
    starting = await yard.run(dynamic(release="gateway/1.2.0"))
    await yard.look()
    for rollout in (running, starting):
        assert {row.device for row in await yard.rows(rollout)} == {"d1", "d2", "late"}
