"""Devices that are cut off: by whoever holds the broker, or by the fleet itself, which trusts them no more."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
import pytest_asyncio

from device_client import identity
from device_client.identity_files import IdentityFiles
from orchestrator.demo.relay import Relay
from protocol.encryption import unwrap_key
from protocol.errors import ContentError, ErrorCode
from protocol.mqtt.connection import ConnectionLost, ConnectionSettings, connect
from protocol.topics import Kind
from tests.attacks.arena import Arena, Victim, arena
from tests.attacks.catalogue import attack
from tests.attacks.test_freeze import MovedClock
from tests.integration.small_fleet import TIMES, installed, until

pytestmark = pytest.mark.asyncio(loop_scope="module")
LIVELY = {"timing": TIMES | {"readiness_level_s": 1}}
"""Says something at least every second; a fleet of a million says it every 15 minutes."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def ground() -> AsyncIterator[Arena]:
    """A fleet that calls a device silent after four seconds."""
    async with arena(FLAGSHIP_TIMING__SILENT_AFTER_S="4") as made:
        yield made


async def _revoke(ground: Arena, victim: Victim) -> None:
    await ground.fleet.call("post", f"/devices/{victim.name}/revoke", {"reason": "stolen"})


@attack("E4", "no offer and no key; E_KEY for any other device's")
async def test_e4_a_revoked_device_wants_the_next_release(ground: Arena) -> None:
    """A stolen device, revoked, waits for the next release, and tries the key that another device was sent."""
    async with ground.victim() as thief, ground.victim() as honest:
        await _revoke(ground, thief)
        await ground.seen(thief, "revoked")
        await ground.roll_out("r-e4", honest)
        filters = [(ground.topics.filter(Kind.OFFER, device=one.name), 1) for one in (thief, honest)]
        await until(lambda: "r-e4" in honest.agent.runner.offers, "the honest device is offered the release")
        await ground.session.subscribe(filters)
        offers: dict[str, dict[str, str]] = {}
        async with asyncio.timeout(10):
            async for message in ground.session.messages():
                topic = ground.topics.parse(message.topic)
                payload = json.loads(base64.b64decode(json.loads(message.payload)["payload"]))
                offers[topic.device] = payload
                if payload.get("key_wrap"):
                    break
        await ground.session.unsubscribe([name for name, _ in filters])
        assert list(offers) == [honest.name]
        offer = offers[honest.name]
        wrap, digest = base64.b64decode(offer["key_wrap"]), ground.ref("1.1.0").sha256
        for name in (thief.name, honest.name):
            with pytest.raises(ContentError) as caught:
                unwrap_key(wrap, identity.load_content_key(thief.home), release=digest, device=name)
            assert caught.value.code is ErrorCode.KEY
        assert installed(thief.home) == "1.0.0"


@attack("N5", "the session ends and stays out")
async def test_n5_a_revoked_certificate_with_an_open_session(ground: Arena) -> None:
    """A device is connected when it is revoked; its session must not live on, nor a new one begin."""
    async with ground.victim() as victim:
        reporter = victim.agent._reporter
        await until(lambda: reporter.is_connected, "the victim is connected")
        await _revoke(ground, victim)
        await until(lambda: not reporter.is_connected, "its session was ended")
        files = IdentityFiles(victim.home)
        target = ConnectionSettings(
            "127.0.0.1", ground.fleet.settings.broker.device_port, victim.name, files.ca, files.certificate,
            files.device_key, timeout_s=3,
        )  # fmt: skip
        with pytest.raises(ConnectionLost):
            async with connect(target) as session:
                await session.subscribe([(ground.topics.filter(Kind.ANNOUNCE), 1)])
        assert not reporter.is_connected
        await ground.seen(victim, "revoked")
        assert installed(victim.home) == "1.0.0"


@attack("F6", "silent on the operator's side, stale on the device's")
async def test_f6_all_traffic_to_one_device_is_dropped(ground: Arena) -> None:
    """The broker, or the network, keeps one device from everything, so that it stays as it is; both sides notice."""
    relay, clock = Relay("127.0.0.1", ground.fleet.settings.broker.device_port), MovedClock()
    port = await relay.start()
    try:
        async with ground.victim(clock, through=port, only=True, **LIVELY) as victim:
            assert "silent" not in await ground.explained(victim)
            relay.cut()
            await ground.seen(victim, "It is silent")
            clock.offset = timedelta(days=8)
            await until(lambda: victim.agent._verifier.stale, "the victim knows that it may be cut off")
            assert installed(victim.home) == "1.0.0"
            relay.mend()
            clock.offset = timedelta()
            await until(lambda: not victim.agent._verifier.stale, "the victim is fresh again")
            async with asyncio.timeout(20):
                while "It is silent" in await ground.explained(victim):
                    await asyncio.sleep(0.1)
    finally:
        await relay.close()
