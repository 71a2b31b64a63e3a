"""N: the channel. What the broker lets through, and what it could do if it were the attacker."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from securesystemslib.signer import CryptoSigner

from device_client import identity
from device_client.identity_files import IdentityFiles
from orchestrator.delivery.broker_access import service_connection
from protocol.envelopes import encode, sign
from protocol.errors import ErrorCode
from protocol.mqtt.connection import ConnectionSettings, Message, RequestRefused, Session, connect
from protocol.reports import STATE_TYPE, Presence, StateReport
from protocol.states import Phase, State
from protocol.topics import DELIVERY, INGEST, Kind
from tests.attacks.arena import Arena, Victim
from tests.attacks.catalogue import attack
from tests.integration.small_fleet import FLEET, installed, until

pytestmark = pytest.mark.asyncio(loop_scope="module")


def as_device(ground: Arena, victim: Victim, client_id: str = "") -> ConnectionSettings:
    """A connection under a device's certificate: of a thief, or of a broker that plays the device."""
    files = IdentityFiles(victim.home)
    return ConnectionSettings(
        host="127.0.0.1",
        port=ground.fleet.settings.broker.device_port,
        client_id=client_id or victim.name,
        ca=files.ca,
        certificate=files.certificate,
        key=files.device_key,
    )


@asynccontextmanager
async def overheard(ground: Arena, *kinds: Kind) -> AsyncIterator[list[Message]]:
    """What comes on topics, as whoever holds the broker sees it."""
    settings = ground.fleet.settings
    target = await asyncio.to_thread(service_connection, ground.fleet.home, settings, INGEST, purpose="attacker")
    heard: list[Message] = []
    async with connect(target) as session:
        await session.subscribe([(ground.topics.filter(kind), 1) for kind in kinds])
        task = asyncio.create_task(_listen(session, heard.append))
        try:
            yield heard
        finally:
            await _end(task)


@asynccontextmanager
async def echo(ground: Arena, *kinds: Kind) -> AsyncIterator[list[str]]:
    """Whoever holds the broker gives everything that comes on retained topics once more."""
    again: list[str] = []

    async def repeat() -> None:
        async for message in session.messages():
            if message.payload and (message.topic, message.payload) not in said:
                said.add((message.topic, message.payload))
                again.append(message.topic)
                await session.publish(message.topic, message.payload, qos=1, retain=True)

    said: set[tuple[str, bytes]] = set()
    settings = ground.fleet.settings
    target = await asyncio.to_thread(service_connection, ground.fleet.home, settings, DELIVERY, purpose="echo")
    async with connect(target) as session:
        await session.subscribe([(ground.topics.filter(kind), 1) for kind in kinds])
        task = asyncio.create_task(repeat())
        try:
            yield again
        finally:
            await _end(task)


async def _listen(session: Session, take: Callable[[Message], None]) -> None:
    async for message in session.messages():
        take(message)


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def row(ground: Arena, rollout: str) -> dict[str, Any]:
    """Where a rollout stands, without what only the clock changes."""
    found: dict[str, Any] = await ground.fleet.call("get", f"/rollouts/{rollout}")
    return {name: found[name] for name in ("state", "stages")}


@attack("N1", "nothing arrives")
async def test_n1_a_device_publishes_where_it_may_not(ground: Arena) -> None:
    """A thief of one device's certificate publishes trust metadata, orders, chunks, and reports of another device."""
    async with ground.victim() as thief, ground.victim() as victim:
        await _end(thief.task)
        believed, state = victim.believes, ground.topics.build(Kind.STATE, device=victim.name)
        order = {"rollout": "r-n1"}
        forbidden = [
            ground.topics.build(Kind.TRUST_TIMESTAMP),
            ground.topics.build(Kind.TRUST_ROOT, n="2"),
            ground.topics.build(Kind.ANNOUNCE, **order),
            ground.topics.build(Kind.OFFER, device=victim.name, **order),
            ground.topics.build(Kind.CHUNK, cid="6" * 64),
            ground.topics.build(Kind.STATUS_SYNC),
            state,
        ]
        async with overheard(ground, Kind.STATE, Kind.PRESENCE) as up, connect(as_device(ground, thief)) as session:
            for topic in forbidden:
                with contextlib.suppress(RequestRefused):
                    await session.publish(topic, b"not mine to say", qos=1, retain=True)
            await session.publish(ground.topics.build(Kind.PRESENCE, device=thief.name), b"{}", qos=1)
            await until(lambda: any(m.topic.endswith(f"{thief.name}/presence") for m in up), "what it may say arrives")
            assert not [m for m in up if m.topic == state]
        assert not +victim.agent._refusals.counts, "nothing came that had to be refused"
        assert victim.believes == believed
        said = await ground.explained(victim)
        assert "dropped" not in said
        assert installed(victim.home) == "1.0.0"


@attack("N2", "E_SIGNATURE at the orchestrator")
async def test_n2_a_forged_success(ground: Arena) -> None:
    """A broker reports success in a device's name to open the next stage; it has no key of the device's."""
    async with ground.victim() as victim:
        await ground.roll_out("r-n2", victim)
        await until(lambda: victim.agent.runner.update is not None, "the victim is offered the release")
        await _end(victim.task)
        before = await row(ground, "r-n2")
        report = StateReport(
            fleet=FLEET, issued=datetime.now(UTC), device=victim.name, session=1000, seq=1, rollout="r-n2", attempt=1,
            nonce="n" * 16, state=State.SUCCEEDED, running_version="1.1.0",
        )  # fmt: skip
        stranger = CryptoSigner(ec.generate_private_key(ec.SECP256R1()))
        genuine = identity.load_report_signer(victim.home)
        stolen_name = sign(encode(report), STATE_TYPE, stranger).replace(
            stranger.public_key.keyid.encode(), genuine.public_key.keyid.encode()
        )
        topic = ground.topics.build(Kind.STATE, device=victim.name)
        async with connect(as_device(ground, victim)) as session:
            await session.publish(topic, sign(encode(report), STATE_TYPE, stranger), qos=1)
            await session.publish(topic, stolen_name, qos=1)
        said = await ground.seen(victim, ErrorCode.SIGNATURE)
        await ground.seen(victim, "2 reports were dropped")
        assert "succeeded" not in said
        assert await row(ground, "r-n2") == before
        assert installed(victim.home) == "1.0.0"
    await ground.fleet.call("post", "/rollouts/r-n2/abort", {})


@attack("N3", "E_REPLAY at the orchestrator")
async def test_n3_genuine_reports_and_a_last_will_are_replayed(ground: Arena) -> None:
    """A broker plays what a device said, and its will, once more: an old success, an old readiness, an old farewell."""
    async with ground.victim() as victim:
        async with overheard(ground, Kind.STATE, Kind.READINESS, Kind.INVENTORY) as said:
            await ground.roll_out("r-n3", victim)
            await ground.fleet.until_state("r-n3", "completed")
        await ground.seen(victim, "runs app 1.1.0")
        mine = [message for message in said if f"/{victim.name}/" in message.topic]
        assert {message.topic.rpartition("/")[2] for message in mine} == {"state", "readiness", "inventory"}
        before, session_number = await row(ground, "r-n3"), victim.agent._reporter._number
        await _end(victim.task)
        async with connect(as_device(ground, victim)) as session:
            presence = ground.topics.build(Kind.PRESENCE, device=victim.name)
            await session.publish(presence, encode(Presence(session=session_number + 5, online=True)), qos=1)
            await session.publish(presence, encode(Presence(session=session_number, online=False)), qos=1)
            for message in mine:
                await session.publish(message.topic, message.payload, qos=1)
            told = await ground.seen(victim, ErrorCode.REPLAY)
            assert "is connected" in told, "an old will ends no newer session"
            assert "runs app 1.1.0" in await ground.seen(victim, f"{len(mine)} reports were dropped")
        assert await row(ground, "r-n3") == before
        assert installed(victim.home) == "1.1.0"


@attack("N4", "the client id is the certificate's name: the victim's session goes on")
async def test_n4_a_client_id_is_taken_over(ground: Arena) -> None:
    """A thief of one device's certificate connects under another device's client id, to end its session."""
    async with ground.victim() as thief, ground.victim() as victim:
        await _end(thief.task)
        number = victim.agent._reporter._number
        async with connect(as_device(ground, thief, client_id=victim.name)) as session:
            await session.subscribe([(ground.topics.filter(Kind.OFFER, device=victim.name), 1)])
            await ground.order(victim, "r-n4", ground.ref())
            await until(lambda: victim.stands(State.WAITING, Phase.INSTALL), "the victim goes on")
            assert not list(session.drain()), "and its offers are not the thief's to read"
        assert victim.agent._reporter._number == number
        assert victim.agent._reporter.is_connected
        await ground.seen(victim, "It is connected")
        assert installed(victim.home) == "1.0.0"


@attack("N6", "accepted in the end")
async def test_n6_duplicates_and_reordering(ground: Arena) -> None:
    """A broker gives every message twice, and of new metadata the timestamp before the bundle that it needs."""
    async with ground.victim() as victim:
        files = ground.follow({})
        await ground.put(Kind.TRUST_TIMESTAMP, files["timestamp"])
        await ground.put(Kind.TRUST_TIMESTAMP, files["timestamp"])
        bundle = ground.bundle(files)
        await ground.put(Kind.TRUST_BUNDLE, bundle)
        await ground.put(Kind.TRUST_BUNDLE, bundle)
        version = json.loads(files["timestamp"])["signed"]["version"]
        await until(lambda: victim.believes["timestamp"] == version, "the newer metadata is believed")
        async with echo(ground, Kind.ANNOUNCE, Kind.OFFER) as again:
            await ground.roll_out("r-n6", victim)
            await ground.fleet.until_state("r-n6", "completed")
        assert len(again) >= 5
        assert "succeeded" in await ground.explained(victim)
        assert installed(victim.home) == "1.1.0"
