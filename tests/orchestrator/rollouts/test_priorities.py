"""Two rollouts and one device: one update at a time, the heavier first, and what gave way comes back."""

import pytest

from orchestrator.rollouts.steps import LOOK_AGAIN
from protocol.reports import Reason
from protocol.states import Phase, State
from tests.orchestrator.rollouts.yard import Yard, plan

OTHER = "gateway/1.2.0"
BUSY = Reason(gate="busy", code="busy")


async def two(yard: Yard, first: int = 500, second: int = 500, component: str = "app", **more: object) -> None:
    """r-1 offers d1 the release 1.1.0; r-2 then comes with 1.2.0."""
    await yard.add_devices(["d1"])
    await yard.add_release(name=OTHER, component=component)
    await yard.run(plan(weight=first))
    await yard.look()
    await yard.ready("r-1", "d1")
    await yard.look()
    assert (await yard.row("r-1", "d1")).state == "offered"
    await yard.run(plan(weight=second, release=OTHER, **more))
    await yard.look()
    await yard.ready("r-2", "d1", BUSY)
    await yard.look()


async def test_of_two_equals_the_second_waits_until_the_first_is_done(yard: Yard) -> None:
    """A device that is only busy counts as ready; it is offered the other release in the look after it is free."""
    await two(yard)
    waiting = await yard.row("r-2", "d1")
    assert (waiting.state, waiting.held_by) == ("pending", "rollout:r-1")
    assert await yard.look() > 0  # what waits costs no looks
    await yard.report("r-1", "d1", State.SUCCEEDED)
    await yard.look()
    assert (await yard.row("r-2", "d1")).state == "offered"


async def test_a_lighter_one_gives_way_before_it_installs(yard: Yard) -> None:
    """Its offer is closed; until the device says that it gave up, nothing new is offered to it."""
    await two(yard, second=501)
    gone = await yard.row("r-1", "d1")
    assert (gone.grant, gone.state) == ("closed", "superseded")  # nobody had heard of it
    assert gone.close_reason == "superseded by rollout r-2"
    assert (await yard.row("r-2", "d1")).state == "offered"


async def test_a_device_that_downloads_gives_it_up_first(yard: Yard) -> None:
    """Its own word that it is over frees it for the heavier one."""
    await yard.add_devices(["d1"])
    await yard.add_release(name=OTHER)
    await yard.run(plan(weight=1))
    await yard.look()
    await yard.ready("r-1", "d1")
    await yard.look()
    await yard.report("r-1", "d1", State.FETCHED)
    await yard.run(plan(weight=2, release=OTHER))
    await yard.look()
    await yard.ready("r-2", "d1", BUSY)
    await yard.look()
    lighter, heavier = await yard.row("r-1", "d1"), await yard.row("r-2", "d1")
    assert (lighter.grant, lighter.state, lighter.asking) == ("closed", "fetched", False)
    assert (heavier.state, heavier.held_by) == ("pending", "rollout:r-1")
    await yard.report("r-1", "d1", State.SUPERSEDED)
    await yard.look()
    assert (await yard.row("r-1", "d1")).state == "superseded"
    assert (await yard.row("r-2", "d1")).state == "offered"


async def test_who_has_begun_to_install_is_left_alone(yard: Yard) -> None:
    """An emergency too waits until the device is whole again."""
    await yard.add_devices(["d1"])
    await yard.add_release(name=OTHER)
    await yard.run(plan(weight=0))
    await yard.look()
    await yard.ready("r-1", "d1")
    await yard.look()
    await yard.report("r-1", "d1", State.INSTALLING)
    await yard.run(plan(emergency=True, release=OTHER))
    await yard.look()
    await yard.ready("r-2", "d1", BUSY)
    await yard.look()
    assert (await yard.row("r-1", "d1")).grant == "download"
    assert (await yard.row("r-2", "d1")).held_by == "rollout:r-1"


async def test_a_halted_rollout_gives_way_to_its_equal(yard: Yard) -> None:
    """Devices that wait for a bad release take the one that mends it."""
    await yard.add_devices(["d1"])
    await yard.add_release(name=OTHER)
    await yard.run(plan())
    await yard.look()
    await yard.ready("r-1", "d1")
    await yard.look()
    await yard.report("r-1", "d1", State.WAITING, phase=Phase.DOWNLOAD)
    await yard.order("r-1", "halt")
    await yard.run(plan(release=OTHER))
    await yard.look()
    await yard.ready("r-2", "d1", BUSY)
    await yard.look()
    assert (await yard.row("r-1", "d1")).close_reason == "superseded by rollout r-2"


async def test_another_component_comes_back_afterwards(yard: Yard) -> None:
    """What gave way is offered again, under the next attempt, once the heavier one is done with the device."""
    await two(yard, second=501, component="os")
    await yard.look()
    back = await yard.row("r-1", "d1")
    assert (back.state, back.held_by) == ("pending", "rollout:r-2")
    await yard.report("r-2", "d1", State.SUCCEEDED)
    await yard.look()
    again = await yard.row("r-1", "d1")
    assert (again.state, again.attempt) == ("offered", 2)
    await yard.check_counts()


@pytest.mark.parametrize("weight", [499, 500])
async def test_what_waits_is_looked_at_again_if_nobody_wakes_it(yard: Yard, weight: int) -> None:
    """Levels, not edges: a device that is free though nobody said so is offered after a while."""
    await two(yard, second=weight)
    async with yard.db.begin() as conn:
        await conn.exec_driver_sql("DELETE FROM assignments WHERE rollout = 'r-1'")
    yard.clock.advance(LOOK_AGAIN.total_seconds() - 1)
    await yard.look_only()
    assert (await yard.row("r-2", "d1")).state == "pending"
    yard.clock.advance(1)
    while await yard.look_only() == 0:
        pass
    assert (await yard.row("r-2", "d1")).state == "offered"


async def test_what_is_taken_from_another_rollout_counts_for_the_site(yard: Yard) -> None:
    """A site's bytes of this hour are spent: the second device keeps the lighter rollout's offer."""
    await yard.add_devices(["d1", "d2"], labels={"site": "lab"})
    await yard.add_release(name=OTHER)
    await yard.run(plan(weight=1))
    await yard.look()
    for device in ("d1", "d2"):
        await yard.ready("r-1", device)
    await yard.look()
    await yard.run(plan(weight=2, release=OTHER, site_bytes_per_hour=1))
    await yard.look()
    for device in ("d1", "d2"):
        await yard.ready("r-2", device, BUSY)
    while await yard.look() == 0:
        pass
    assert len(await yard.offered("r-2")) == 1
    assert sorted(row.state for row in await yard.rows("r-1")) == ["offered", "superseded"]
    assert {row.held_by for row in await yard.rows("r-2")} == {"", "site"}
