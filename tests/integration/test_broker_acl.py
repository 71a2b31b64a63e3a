"""Who may say and hear what, asked of the real broker by what it delivers.

A SUBACK proves nothing (mosquitto filters delivery), so every row of the truth table is a message that arrived or did
not. An auditor, who stands in no generated file, listens to everything and may speak everywhere.
"""

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from orchestrator.config import Home, Settings
from orchestrator.config_brokers import BrokerSettings
from orchestrator.delivery.broker import ManagedBroker
from orchestrator.delivery.broker_access import client_id, service_connection
from orchestrator.demo.fleet import free_ports
from protocol.mqtt.connection import ConnectionLost, ConnectionSettings, PublishRefused, Session, connect
from protocol.topics import DELIVERY, INGEST, TOPICS, Kind, Party, TopicRule, Topics, service_acl
from tests.certificates import Authority

AUDITOR = "auditor"
DEVICES = ("dev1", "dev2")
CLAIMS = ("claim.a", "claim.b")
SERVICES = {DELIVERY: Party.DELIVERY, INGEST: Party.INGEST, "viewer": Party.VIEWER}
HOSTILE = ("a/b", "+", "#", "dev1/state", "up/dev1", "dev1#", "+/dev1", "dev1/+", "orch-delivery", "%u")
TOPIC = Topics("fleet")
DEADLINE_S = 10


class Lab:
    """A home with a running broker, and certificates for whoever is asked for."""

    def __init__(self, home: Home, settings: Settings, devices: Authority, claims: Authority) -> None:
        self.home = home
        self.settings = settings
        self._devices = devices
        self._claims = claims
        self._made: dict[str, Path] = {}

    def service(self, name: str, **changes: object) -> ConnectionSettings:
        """Settings of a session on the listener for services."""
        return _changed(service_connection(self.home, self.settings, name), **changes)

    def device(self, name: str, **changes: object) -> ConnectionSettings:
        """Settings of a session on the listener for devices, under a certificate with this CN."""
        directory = self._made.setdefault(name, self.home.path / "made" / f"d{len(self._made)}")
        if not directory.exists():
            self._devices.issue(directory / "device.pem", directory / "device.key", name)
        settings = ConnectionSettings(
            host="127.0.0.1",
            port=self.settings.broker.device_port,
            client_id="x",
            ca=self.home.devices_ca,
            certificate=directory / "device.pem",
            key=directory / "device.key",
        )
        return _changed(settings, **changes)

    def claim(self, name: str, **changes: object) -> ConnectionSettings:
        """Settings of a session on the listener for claims, under a claim certificate with this CN."""
        directory = self.home.path / "made" / name
        if not directory.exists():
            self._claims.issue(directory / "device.pem", directory / "device.key", name)
        files = {"certificate": directory / "device.pem", "key": directory / "device.key"}
        return _changed(self.device("dev1"), **{**files, "port": self.settings.broker.enrol_port, **changes})

    def settings_of(self, who: str) -> ConnectionSettings:
        """A device's, a claim's or a service's session."""
        if who in CLAIMS:
            return self.claim(who)
        return self.service(who) if who in (*SERVICES, AUDITOR) else self.device(who)


def _changed(settings: ConnectionSettings, **changes: object) -> ConnectionSettings:
    return dataclasses.replace(settings, max_queued_incoming=10_000, **changes)  # type: ignore[arg-type]


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[Lab]:
    """The generated configuration, with one line more for the auditor."""
    home = Home(tmp_path)
    home.ca.mkdir()
    device_port, service_port, enrol_port = free_ports(3)
    ports = BrokerSettings(device_port=device_port, service_port=service_port, enrol_port=enrol_port)
    settings = Settings(fleet="fleet", broker=ports)
    claims = Authority(home.claims_ca, "claims")
    devices, services = Authority(home.devices_ca, "devices"), Authority(home.services_ca, "services")
    devices.issue(*home.certificate("broker"), "broker")
    for name in (*SERVICES, AUDITOR):
        services.issue(*home.certificate(name), name)
    with pytest.MonkeyPatch.context() as patch:
        audited = service_acl("fleet") + f"user {AUDITOR}\ntopic readwrite #\n"
        patch.setattr("orchestrator.delivery.broker_config.service_acl", lambda fleet: audited)
        broker = ManagedBroker(home, settings)
        running = asyncio.create_task(broker.run())
        try:
            await broker.ready(DEADLINE_S)
            yield Lab(home, settings, devices, claims)
        finally:
            running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await running


def _topics() -> Iterator[tuple[TopicRule, str, str]]:
    """(rule, device or claim that is named or "", topic)."""
    fixed = {"rollout": "r-1", "cid": "ab" * 32, "n": "1"}
    for rule in TOPICS:
        names = {name: value for name, value in fixed.items() if f"{{{name}}}" in rule.kind.value}
        if "{device}" in rule.kind.value:
            for device in DEVICES:
                yield rule, device, TOPIC.build(rule.kind, device=device, **names)
        elif "{claim}" in rule.kind.value:
            for claim in CLAIMS:
                yield rule, claim, TOPIC.build(rule.kind, claim=claim, **names)
        else:
            yield rule, "", TOPIC.build(rule.kind, **names)


OUTSIDE = ("elsewhere", "$SYS/x", f"{TOPIC.root}/other", f"{TOPIC.root}/up/dev1/else", "ota/v1/other/trust/bundle")
"""Topics that are in nobody's table."""


def _parties(who: str, device: str) -> set[Party]:
    if who in SERVICES:
        return {SERVICES[who]}
    if who in CLAIMS:
        return {Party.CLAIM} if who == device else set()
    return {Party.DEVICE, Party.OWN_DEVICE} if who == device else {Party.DEVICE}


async def _say(session: Session, topic: str, text: str) -> None:
    with contextlib.suppress(PublishRefused):
        await session.publish(topic, text.encode())


async def _hear_until(session: Session, last: str) -> set[str]:
    """Payloads that arrive, up to and including ``last``; the broker keeps the order for each client."""
    heard: set[str] = set()
    async with asyncio.timeout(DEADLINE_S):
        async for message in session.messages():
            heard.add(message.payload.decode())
            if last in heard:
                return heard
    raise AssertionError(f"{last} did not arrive")


@pytest.mark.parametrize("who", [*SERVICES, *DEVICES, *CLAIMS])
async def test_only_the_writer_of_a_topic_is_delivered(lab: Lab, who: str) -> None:
    """What a party publishes arrives exactly on the topics that the table gives it to write."""
    expected = {topic for rule, device, topic in _topics() if rule.writer in _parties(who, device)}
    async with connect(lab.service(AUDITOR)) as auditor, connect(lab.settings_of(who)) as speaker:
        await auditor.subscribe([("#", 1)])
        for topic in [*(topic for _, _, topic in _topics()), *OUTSIDE]:
            await _say(speaker, topic, topic)
        await _say(auditor, "fence", "fence")
        assert await _hear_until(auditor, "fence") - {"fence"} == expected


@pytest.mark.parametrize("who", [*SERVICES, *DEVICES, *CLAIMS])
async def test_only_the_readers_of_a_topic_hear_it(lab: Lab, who: str) -> None:
    """Whatever a party subscribes to, it hears exactly the topics that the table gives it to read."""
    expected = {topic for rule, device, topic in _topics() if rule.readers & _parties(who, device)}
    topics = [*(topic for _, _, topic in _topics()), *OUTSIDE]
    fence = min(expected)
    async with connect(lab.service(AUDITOR)) as auditor, connect(lab.settings_of(who)) as listener:
        await listener.subscribe([("#", 1), *((topic, 1) for topic in topics if not topic.startswith("$"))])
        for topic in topics:
            await _say(auditor, topic, topic)
        await auditor.publish(fence, b"fence")
        assert await _hear_until(listener, "fence") - {"fence"} == expected


@pytest.mark.parametrize("name", HOSTILE)
async def test_a_hostile_name_opens_nothing_of_another_device(lab: Lab, name: str) -> None:
    """A certificate whose CN has topic characters hears and says nothing that is another device's or a service's.

    Our authority never issues one; the broker must hold all the same.
    """
    owned = [topic for rule, device, topic in _topics() if device]
    down = [topic for rule, _, topic in _topics() if rule.writer is Party.DELIVERY]
    try:
        async with connect(lab.service(AUDITOR)) as auditor, connect(lab.device(name)) as hostile:
            await auditor.subscribe([("#", 1)])
            await hostile.subscribe([("#", 1), *((topic, 1) for topic in owned)])
            for topic in [*owned, *down]:
                await _say(hostile, topic, f"hostile {topic}")
            await auditor.publish("fence", b"fence")
            said = await _hear_until(auditor, "fence") - {"fence"}
            for topic in owned:
                await _say(auditor, topic, topic)
            # Everybody may read the bundle; where even that is closed to such a name, nothing at all came.
            await auditor.publish(TOPIC.build(Kind.TRUST_BUNDLE), b"fence")
            heard: set[str] = set()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.5):
                    heard = await _hear_until(hostile, "fence")
            heard |= {message.payload.decode() for message in hostile.drain()}
    except ConnectionLost:
        return  # refused at the door
    assert said == set()
    assert heard & set(owned) == set()


async def test_a_device_cannot_take_over_another_session(lab: Lab) -> None:
    """The client id that a device asks for is not used: its certificate's name is."""
    delivery_id = client_id(DELIVERY, lab.home.certificate(DELIVERY)[1])
    async with (
        connect(lab.device("dev1", client_id="dev1")) as victim,
        connect(lab.service(DELIVERY)) as delivery,
    ):
        for stolen in ("dev1", delivery_id, DELIVERY):
            async with connect(lab.device("dev2", client_id=stolen)) as thief:
                await thief.publish(TOPIC.build(Kind.PRESENCE, device="dev2"), b"here")
        await victim.subscribe([(TOPIC.build(Kind.TRUST_BUNDLE), 1)])
        await delivery.publish(TOPIC.build(Kind.TRUST_BUNDLE), b"still here")
        assert await _hear_until(victim, "still here") == {"still here"}


async def test_a_device_named_like_a_service_ends_no_service(lab: Lab) -> None:
    """Client ids of services cannot be the name of a device, whatever a certificate says."""
    async with connect(lab.service(DELIVERY)) as delivery:
        async with connect(lab.device(DELIVERY, client_id=DELIVERY)) as impostor:
            await _say(impostor, TOPIC.build(Kind.TRUST_BUNDLE), "forged")
        await delivery.subscribe([(TOPIC.build(Kind.TRUST_BUNDLE), 1)])
        await delivery.publish(TOPIC.build(Kind.TRUST_BUNDLE), b"mine")
        assert await _hear_until(delivery, "mine") == {"mine"}


async def test_a_claim_takes_over_no_session(lab: Lab) -> None:
    """Whoever holds a claim certificate cannot end a device's session: its client id is the claim's name."""
    async with connect(lab.device("dev1", client_id="dev1")) as victim:
        async with connect(lab.claim("claim.a", client_id="dev1")) as thief:
            await _say(thief, TOPIC.build(Kind.STATE, device="dev1"), "forged")
        await victim.subscribe([(TOPIC.build(Kind.TRUST_BUNDLE), 1)])
        async with connect(lab.service(DELIVERY)) as delivery:
            await delivery.publish(TOPIC.build(Kind.TRUST_BUNDLE), b"still here")
        assert await _hear_until(victim, "still here") == {"still here"}


@pytest.mark.parametrize("port", ["device_port", "service_port"])
async def test_a_claim_opens_no_other_door(lab: Lab, port: str) -> None:
    """A claim certificate is good at the listener for claims alone, and a device's is not good there."""
    claim = lab.claim("claim.a", port=getattr(lab.settings.broker, port), timeout_s=2.0)
    device = lab.device("dev1", port=lab.settings.broker.enrol_port, timeout_s=2.0)
    for wrong in (claim, device):
        with pytest.raises(ConnectionLost):
            async with connect(wrong) as session:
                await session.publish(TOPIC.build(Kind.STATUS_FLEET), b"x")


async def test_the_same_device_twice_is_one_session(lab: Lab) -> None:
    """A new connection of a device ends its old one, so a copied key shows."""
    async with connect(lab.device("dev1")) as old, connect(lab.device("dev1", client_id="y")):
        async with asyncio.timeout(DEADLINE_S):
            with pytest.raises(ConnectionLost):
                await old.wait_lost()


@pytest.mark.parametrize("listener", ["devices", "services"])
async def test_each_listener_takes_only_its_own_certificates(lab: Lab, listener: str) -> None:
    """A device's certificate opens nothing on the services' listener, nor the other way round."""
    device, service = lab.device("dev1"), lab.service("viewer")
    wrong = (
        _changed(service, port=lab.settings.broker.device_port, timeout_s=2.0)
        if listener == "devices"
        else _changed(device, port=lab.settings.broker.service_port, client_id="dev1", timeout_s=2.0)
    )
    with pytest.raises(ConnectionLost):
        async with connect(wrong) as session:
            await session.publish(TOPIC.build(Kind.STATUS_FLEET), b"x")
