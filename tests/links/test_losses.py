"""What lost PUBLISHes cost in bytes of the wire."""

import asyncio

import pytest

from tests.integration.small_fleet import TIMES, installed, make_package, make_tree, small_fleet, until
from tests.links.link import link
from tests.links.mqtt_faults import Faults, mqtt_faults
from tests.links.runs import set_brokers

IMAGE_BYTES = 6_000_000


@pytest.mark.parametrize(
    "share", [0.05, pytest.param(0.0, marks=pytest.mark.slow), pytest.param(0.1, marks=pytest.mark.slow)]
)
async def test_losses_cost_little_more_than_what_was_lost(share: float) -> None:
    """TLS bytes at the broker, both ways: at most (1.01 + 1.2 x) times the ciphertext; x is the share of bytes lost."""
    async with small_fleet() as fleet:
        factory = await asyncio.to_thread(make_tree, fleet.place, "1.0.0", 1000)
        tree = await asyncio.to_thread(make_tree, fleet.place, "1.1.0", IMAGE_BYTES)
        await fleet.publish(await asyncio.to_thread(make_package, fleet.home, tree, "1.1.0"))
        chunk_bytes = (await fleet.call("get", "/releases/gateway/1.1.0"))["chunk_bytes"]
        # On a busy machine what is only late must not count as lost: it would be fetched twice.
        await fleet.enrol(["d"], factory, timing=TIMES | {"chunk_timeout_s": 4})
        async with (
            link(fleet.settings.broker.device_port) as made,
            mqtt_faults(fleet.home, fleet.devices["d"], made.port, Faults(drop=share)) as hand,
        ):
            set_brokers(fleet.devices["d"], [{"host": "127.0.0.1", "port": hand.port}])
            await fleet.roll_out("r-1", "1.1.0")
            fleet.start_agents(["d"])
            await until(lambda: installed(fleet.devices["d"]) == "1.1.0", "the device runs the release")
        lost = hand.fate_bytes["drop"] / (hand.fate_bytes["drop"] + hand.fate_bytes["pass"])
        assert (lost > 0) == (share > 0)
        wire_bytes = made.counted.up_bytes + made.counted.down_bytes
        assert chunk_bytes < wire_bytes <= (1.01 + 1.2 * lost) * chunk_bytes
