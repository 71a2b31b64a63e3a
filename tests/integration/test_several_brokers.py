"""A fleet on two brokers, the second one somebody else's: devices use either, and go on at the other when one dies."""

import asyncio
import contextlib
import json
import signal
from collections.abc import AsyncIterator

from device_client.identity_files import IdentityFiles
from tests.certificates import free_ports
from tests.integration.small_fleet import SmallFleet, installed, make_package, make_tree, small_fleet, until
from tests.orchestrator.delivery.second_broker import NAME, SecondBroker

NAMES = ["d1", "d2"]
SLOW = {"download": {"rate_limit_bytes_s": 400_000}}
"""Seconds for the image: time enough to kill a broker."""
WINDOW_BYTES = 400_000
"""More than what is on its way at once."""


@contextlib.asynccontextmanager
async def _fleet_on_two() -> AsyncIterator[tuple[SmallFleet, SecondBroker]]:
    """A running fleet whose second broker runs as well."""
    ports = free_ports()
    listed = [{"name": NAME, "device_port": ports[0], "service_port": ports[1]}]
    async with small_fleet(FLAGSHIP_BROKERS=json.dumps(listed), FLAGSHIP_TIMING__EXPEL_WAIT_S="1") as fleet:
        second = SecondBroker(fleet.home, fleet.place / "second", fleet.settings.fleet, ports)
        await second.start()
        try:
            yield fleet, second
        finally:
            await second.end(signal.SIGKILL)


def _prefer_the_second(fleet: SmallFleet) -> None:
    for home in fleet.devices.values():
        file = IdentityFiles(home).enrolment
        values = json.loads(file.read_text())
        assert len(values["brokers"]) == 2
        values["brokers"].reverse()
        file.write_text(json.dumps(values))


def _ports(fleet: SmallFleet) -> set[int]:
    """Where devices are connected now."""
    sessions = [agent._uplink._session for agent in fleet.agents.values()]
    return {session._settings.port for session in sessions if session is not None}


async def _until_standing(fleet: SmallFleet, *, connected: bool) -> dict[str, object]:
    """How the second broker stands, once it is reached and right, or not reached any more."""
    async with asyncio.timeout(30):
        while True:
            found = {broker["name"]: broker for broker in (await fleet.call("get", "/status"))["brokers"]}
            second: dict[str, object] = found[NAME]
            if second["connected"] is connected and (not connected or second["topics"] == 0):
                return second
            await asyncio.sleep(0.1)


async def test_devices_go_on_at_the_other_broker_with_what_is_missing() -> None:
    """Killed -9 in mid-transfer: what was fetched there is not fetched again, and the rollout ends."""
    async with _fleet_on_two() as (fleet, second):
        factory = await asyncio.to_thread(make_tree, fleet.place, "1.0.0")
        new = await asyncio.to_thread(make_tree, fleet.place, "1.1.0", 1_600_000)
        await _until_standing(fleet, connected=True)
        await fleet.publish(await asyncio.to_thread(make_package, fleet.home, new, "1.1.0"))
        await fleet.enrol(NAMES, factory, **SLOW)
        _prefer_the_second(fleet)
        fleet.start_agents(NAMES)
        await fleet.roll_out("r-1", "1.1.0")
        transfers = [agent._fetcher for agent in fleet.agents.values()]

        def in_the_middle() -> bool:
            return all(one.last is not None and one.last.present_bytes > 600_000 for one in transfers)

        await until(in_the_middle, "every device in mid-transfer")
        assert _ports(fleet) == {second.settings.device_port}
        await second.end(signal.SIGKILL)
        await fleet.until_state("r-1", "completed")
        assert [installed(home) for home in fleet.devices.values()] == ["1.1.0"] * len(NAMES)
        assert _ports(fleet) == {fleet.settings.broker.device_port}
        release = await fleet.call("get", "/releases/gateway/1.1.0")
        for one in transfers:
            assert one.last is not None
            assert one.last.fetched_bytes <= release["chunk_bytes"] + WINDOW_BYTES < release["chunk_bytes"] + 600_000
        behind = await _until_standing(fleet, connected=False)
        assert str(second.settings.service_port) in str(behind["why"])
        await second.start()
        assert (await _until_standing(fleet, connected=True))["releases"] == []


async def test_a_revoked_device_is_out_when_both_brokers_say_so() -> None:
    """The broker that does not answer is named until it does; then the device is kept out there as well."""
    async with _fleet_on_two() as (fleet, second):
        factory = await asyncio.to_thread(make_tree, fleet.place, "1.0.0")
        await _until_standing(fleet, connected=True)
        await fleet.enrol(["d1"], factory)
        await second.end()
        closed = await fleet.call("post", "/devices/d1/revoke", {"reason": "stolen"})
        assert f"broker {NAME}" in closed["pending"]
        assert "broker main" not in closed["pending"]
        await second.start()  # it reads the new list as it starts
        async with asyncio.timeout(30):
            while (await fleet.call("get", "/devices/d1"))["session_ended_at"] is None:
                await asyncio.sleep(0.1)
