"""A fleet that goes on without one of its devices: revoked in mid-transfer, or found to be two."""

import asyncio
import base64
import json
import shutil
from typing import Any

import pytest

from device_client.config import DeviceHome, load
from device_client.service import Agent
from orchestrator.delivery.broker_access import service_connection
from protocol.clock import SystemClock
from protocol.mqtt.connection import connect
from protocol.topics import DELIVERY, Kind, Topics
from tests.integration.small_fleet import (
    DEADLINE_S,
    FLEET,
    TIMES,
    SmallFleet,
    installed,
    make_package,
    make_tree,
    small_fleet,
    until,
)

NAMES = ["d1", "d2", "d3"]
TOPICS = Topics(FLEET)


async def _prepare(fleet: SmallFleet, names: list[str], **sections: dict[str, Any]) -> None:
    factory = await asyncio.to_thread(make_tree, fleet.place, "1.0.0")
    new = await asyncio.to_thread(make_tree, fleet.place, "1.1.0", 1_000_000)
    await fleet.publish(await asyncio.to_thread(make_package, fleet.home, new, "1.1.0"))
    await fleet.enrol(names, factory, **sections)


async def _retained(fleet: SmallFleet, topic: str) -> dict[str, Any]:
    """The payload of what the broker retains."""
    target = service_connection(fleet.home, fleet.settings, DELIVERY, purpose="observer")
    async with asyncio.timeout(DEADLINE_S), connect(target) as session:
        await session.subscribe([(topic, 1)])
        async for message in session.messages():
            envelope = json.loads(message.payload)
            found: dict[str, Any] = json.loads(base64.b64decode(envelope["payload"]))
            return found
    raise AssertionError(topic)


async def test_a_device_revoked_in_mid_transfer_stays_where_it_is() -> None:
    """E4, N5: its offer is closed and holds no key, its connection is gone for good, the others complete without it."""
    async with small_fleet() as fleet:
        await _prepare(fleet, NAMES, download={"rate_limit_bytes_s": 300_000})
        fleet.start_agents(NAMES)
        await fleet.roll_out("r-1", "1.1.0")
        fetcher = fleet.agents["d2"]._fetcher
        await until(lambda: fetcher.last is not None and fetcher.last.present_bytes > 50_000, "d2 in mid-transfer")
        answer = await fleet.call("post", "/devices/d2/revoke", {"reason": "stolen"})
        assert (answer["state"], answer["pending"], answer["excluded_from"]) == ("revoked", "", ["r-1"])
        assert answer["session_ended_at"]
        again = await fleet.call("post", "/devices/d2/revoke", {"reason": "stolen, again"})
        assert (again["closed_reason"], again["pending"], again["excluded_from"]) == ("stolen", "", [])
        offer = await _retained(fleet, TOPICS.build(Kind.OFFER, device="d2", rollout="r-1"))
        assert offer["grant"] == "closed"
        assert "key_wrap" not in offer
        assert "stolen" in offer["reason"]
        await fleet.until_state("r-1", "completed")
        assert [installed(fleet.devices[name]) for name in NAMES] == ["1.1.0", "1.0.0", "1.1.0"]
        assert not fleet.agents["d2"]._reporter.is_connected
        status = await fleet.call("get", "/status")
        assert (status["devices"], status["revoked"], status["online"]) == (2, 1, 2)
        assert set(status["revocation_lists_expire"]) == {"devices-ca", "services-ca"}
        events = (await fleet.call("get", "/events", rollout="r-1"))["items"]
        assert events[-1]["text"] == "completed: 2 members are done, 1 excluded"


@pytest.mark.slow
async def test_two_live_copies_of_one_home_are_found_and_never_updated() -> None:
    """Both agents are real; the flag comes from them alone, keeps offers away, and is lifted by a person."""
    async with small_fleet() as fleet:
        await _prepare(fleet, ["d1"], download={"rate_limit_bytes_s": 100_000})
        await fleet.roll_out("r-0", "1.1.0")
        copy = DeviceHome(fleet.place / "copy")
        await asyncio.to_thread(shutil.copytree, fleet.devices["d1"].path, copy.path, symlinks=True)
        fleet.start_agents(["d1"])
        home, settings = load(copy.path)
        home.create()
        clone = asyncio.create_task(Agent(home, settings, SystemClock()).run())
        try:
            shown: dict[str, Any] = {}
            async with asyncio.timeout(DEADLINE_S):
                while not shown.get("duplicate_since"):
                    shown = await fleet.call("get", "/devices/d1")
                    await asyncio.sleep(0.05)
            page = await fleet.call("get", "/devices", concern="duplicate")
            assert [device["id"] for device in page["items"]] == ["d1"]
            assert (await fleet.call("get", "/status"))["duplicate"] == 1
            await fleet.until_state("r-0", "completed")  # without it
        finally:
            clone.cancel()
            await asyncio.gather(clone, return_exceptions=True)
        assert [installed(one) for one in (fleet.devices["d1"], copy)] == ["1.0.0", "1.0.0"]
        await fleet.call("post", "/devices/d1/clear-duplicate", {"reason": "the copy was wiped"})
        await fleet.roll_out("r-1", "1.1.0")
        await fleet.until_state("r-1", "completed")
        assert installed(fleet.devices["d1"]) == "1.1.0"
        assert installed(copy) == "1.0.0"


@pytest.mark.slow
async def test_a_device_that_is_switched_off_is_listed_as_silent_until_it_is_back() -> None:
    """No rollout runs: an idle device speaks by itself, so silence means something."""
    async with small_fleet(FLAGSHIP_TIMING__SILENT_AFTER_S="4") as fleet:
        factory = await asyncio.to_thread(make_tree, fleet.place, "1.0.0")
        await fleet.enrol(["d1"], factory, timing=TIMES | {"readiness_level_s": 1})
        fleet.start_agents(["d1"])
        await until(lambda: fleet.agents["d1"]._reporter.is_connected, "it is connected")

        async def silent() -> list[str]:
            return [device["id"] for device in (await fleet.call("get", "/devices", concern="silent"))["items"]]

        heard: set[str] = set()
        for _ in range(60):  # one and a half times the limit
            assert await silent() == []
            heard.add((await fleet.call("get", "/devices/d1"))["heard_at"])
            await asyncio.sleep(0.1)
        assert len(heard) >= 3
        fleet.tasks["d1"].cancel()
        await asyncio.gather(fleet.tasks["d1"], return_exceptions=True)
        async with asyncio.timeout(DEADLINE_S):
            while await silent() != ["d1"]:
                await asyncio.sleep(0.1)
        assert (await fleet.call("get", "/status"))["silent"] == 1
        fleet.start_agents(["d1"])
        async with asyncio.timeout(DEADLINE_S):
            while await silent() != []:
                await asyncio.sleep(0.1)
