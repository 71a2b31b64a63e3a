"""SIGKILL of a device's agent in mid-transfer, again and again: what was kept is kept."""

import asyncio

from orchestrator.demo.processes import Server
from tests.integration.small_fleet import installed, make_package, make_tree, small_fleet, until
from tests.links.link import Weather, link
from tests.links.mqtt_faults import mqtt_faults
from tests.links.runs import set_brokers

KILLS = 3
WINDOW = 4
IMAGE_BYTES = 5_000_000
ON_ITS_WAY = 3 * WINDOW
"""Chunks that a kill may cost: two windows that arrive, one that is being written."""


async def test_three_kills_cost_no_more_than_what_was_on_its_way() -> None:
    """Each start goes on from the disk; counted in what the broker sent."""
    async with small_fleet() as fleet:
        factory = await asyncio.to_thread(make_tree, fleet.place, "1.0.0", 1000)
        tree = await asyncio.to_thread(make_tree, fleet.place, "1.1.0", IMAGE_BYTES)
        await fleet.publish(await asyncio.to_thread(make_package, fleet.home, tree, "1.1.0"))
        await fleet.enrol(["d"], factory, download={"window": WINDOW, "max_window": WINDOW})
        home = fleet.devices["d"]
        await fleet.roll_out("r-1", "1.1.0")
        async with (
            mqtt_faults(fleet.home, home, fleet.settings.broker.device_port) as hand,
            link(hand.port, Weather(down_bytes_s=4_000_000)) as made,
        ):
            set_brokers(home, [{"host": "127.0.0.1", "port": made.port}])
            agent = Server(fleet.place / "agent.log", ["flagship-device", "run", "--config", home.path])
            try:
                for _ in range(KILLS):
                    await agent.start()
                    enough = made.counted.down_bytes + IMAGE_BYTES // (KILLS + 1)
                    while made.counted.down_bytes < enough:
                        agent.check()
                        await asyncio.sleep(0.02)
                    assert installed(home) == "1.0.0"
                    await agent.kill()
                await agent.start()
                await until(lambda: installed(home) == "1.1.0", "the device runs the release")
                await fleet.until_state("r-1", "completed")
            finally:
                await agent.stop()
        assert (home.current / "data").read_bytes() == (tree / "data").read_bytes()
        times = [count for topic, count in hand.passed.items() if "/chunk/" in topic]
        assert len(times) > KILLS * ON_ITS_WAY, "too small an image to tell"
        assert 0 < sum(times) - len(times) <= KILLS * ON_ITS_WAY
