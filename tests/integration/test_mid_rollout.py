"""What breaks in mid-rollout, and the rollout still ends right: the broker wiped, the orchestrator killed."""

import asyncio

from orchestrator.storage import assignments
from orchestrator.storage.database import Database
from tests.integration.small_fleet import SmallFleet, installed, make_package, make_tree, small_fleet, until

NAMES = ["d1", "d2", "d3"]
LATE = "d4"
"""A member that is switched on when all is broken: it knows nothing but what the broker then has."""
EVERYONE = [*NAMES, LATE]
SLOW = {"download": {"rate_limit_bytes_s": 300_000}}
"""Seconds for the image of 1.1.0: time enough to break something."""


async def _in_mid_transfer(fleet: SmallFleet) -> None:
    """All devices have begun to fetch, none is done."""
    factory = await asyncio.to_thread(make_tree, fleet.place, "1.0.0")
    new = await asyncio.to_thread(make_tree, fleet.place, "1.1.0", 1_500_000)
    await fleet.publish(await asyncio.to_thread(make_package, fleet.home, new, "1.1.0"))
    await fleet.enrol(EVERYONE, factory, **SLOW)
    fleet.start_agents(NAMES)
    await fleet.roll_out("r-1", "1.1.0")
    transfers = [agent._fetcher for agent in fleet.agents.values()]

    def all_begun() -> bool:
        return all(one.last is not None and 100_000 < one.last.present_bytes for one in transfers)

    await until(all_begun, "every device in mid-transfer")
    assert [installed(home) for home in fleet.devices.values()] == ["1.0.0"] * len(EVERYONE)


async def _ends_right(fleet: SmallFleet) -> None:
    """Everyone has the new version, the late one too, and the counts say so."""
    fleet.start_agents([LATE])
    await fleet.until_state("r-1", "completed")
    assert [installed(home) for home in fleet.devices.values()] == ["1.1.0"] * len(EVERYONE)
    await fleet.serve.stop()
    database = await Database.open(fleet.home.database)
    try:
        async with database.read() as conn:
            rows = await assignments.of_rollout(conn, "r-1")
            counts = await assignments.load_counts(conn, "r-1")
            assert counts == await assignments.recount(conn, "r-1")
    finally:
        await database.close()
    assert {row.state for row in rows} == {"succeeded"}


async def test_a_broker_that_lost_everything_is_made_right() -> None:
    """Killed in mid-transfer with its database deleted: trust, offers and chunks are published again by themselves."""
    async with small_fleet() as fleet:
        await _in_mid_transfer(fleet)
        (before,) = fleet.brokers()
        fleet.kill_broker()
        await until(lambda: fleet.brokers() not in ([], [before]), "another broker in its place")
        await _ends_right(fleet)


async def test_a_killed_orchestrator_goes_on_where_it_was() -> None:
    """SIGKILL in mid-transfer: its broker dies with it; a new serve finds the rollout in the database and ends it."""
    async with small_fleet() as fleet:
        await _in_mid_transfer(fleet)
        await fleet.serve.kill()
        await until(lambda: not fleet.brokers(), "no broker is left behind")
        await fleet.serve.start()
        await _ends_right(fleet)
