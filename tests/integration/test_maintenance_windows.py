"""A rollout with a window reaches two devices on opposite sides of the date line: each acts by its own clock."""

import asyncio
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from protocol.states import Phase, State
from protocol.windows import DAYS
from tests.integration.small_fleet import DEADLINE_S, SmallFleet, installed, make_package, make_tree, small_fleet, until

EAST, WEST = "Pacific/Kiritimati", "Pacific/Pago_Pago"
"""25 hours apart: what is open in one is a day away in the other."""


async def test_each_device_waits_for_its_own_time() -> None:
    """In the east the window is open and the device updates; in the west it fetches, and says until when it waits."""
    async with small_fleet() as fleet:
        factory = make_tree(fleet.place, "1.0.0", 1000)
        await fleet.publish(make_package(fleet.home, make_tree(fleet.place, "1.1.0"), "1.1.0"))
        await fleet.enrol(["east"], factory, device={"timezone": EAST})
        await fleet.enrol(["west"], factory, device={"timezone": WEST})
        fleet.start_agents(["east", "west"])
        begins = datetime.now(UTC).astimezone(ZoneInfo(EAST)) - timedelta(minutes=30)
        day = DAYS[begins.weekday()]
        window = {"days": [day], "start": f"{begins:%H:%M}", "minutes": 120}
        await fleet.roll_out("r-1", "1.1.0", policy={"windows": [window]})
        await until(lambda: installed(fleet.devices["east"]) == "1.1.0", "the device in the east runs the new version")
        await until(lambda: _waits(fleet, "west"), "the device in the west has it and waits")
        said = await _explained(fleet, "west", "the next window opens at")
        assert f"rollout ({day} {begins:%H:%M} {WEST} for 120 min)" in said
        assert installed(fleet.devices["west"]) == "1.0.0"


async def _explained(fleet: SmallFleet, name: str, word: str) -> str:
    """What ``flagship device explain`` says once it says ``word``."""
    async with asyncio.timeout(DEADLINE_S):
        while True:
            said = "\n".join((await fleet.call("get", f"/devices/{name}/explain"))["sentences"])
            if word in said:
                return said
            await asyncio.sleep(0.1)


def _waits(fleet: SmallFleet, name: str) -> bool:
    update = fleet.agents[name].runner.update
    if update is None or (update.state, update.phase) != (State.WAITING, Phase.INSTALL):
        return False
    return [(reason.gate, reason.code) for reason in update.reasons] == [("window", "closed")]
