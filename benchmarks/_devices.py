"""Devices that cost little: each has its own keys, certificate and connection, and says what a real agent says.

Built from the agent's identity and reporter, so reports are signed and ordered as an agent's are. What is left out
costs the orchestrator nothing: verifying, fetching and installing. Each step takes up to ``spread_s``, at random.
"""

import asyncio
import secrets
from collections import Counter
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from aiomqtt import Will

from device_client import identity
from device_client.agent.journal import Update
from device_client.config import DeviceHome, DeviceSettings, settings_from, write
from device_client.download.progress import Standing
from device_client.identity_files import IdentityFiles
from device_client.reporter import Reporter, will
from orchestrator.cli.client import ApiClient
from protocol.clock import SystemClock
from protocol.directives import ANNOUNCEMENT_TYPE, OFFER_TYPE, Announcement, Grant, Offer
from protocol.enrolment import EnrolmentAnswers
from protocol.envelopes import decode, encode, parse
from protocol.mqtt.connection import ConnectionSettings, Message, Session, connect
from protocol.states import Phase, State
from protocol.topics import RULES, Kind, Topics

_SUBSCRIBED = (Kind.TRUST_ROOT, Kind.TRUST_BUNDLE, Kind.TRUST_TIMESTAMP, Kind.ANNOUNCE, Kind.STATUS_SYNC)


def make_device(home: DeviceHome, name: str, product: str, hardware: str) -> DeviceSettings:
    """Keys and settings of a device that is not enrolled yet."""
    settings = settings_from({"device": {"id": name, "product": product, "hardware": hardware}}, "benchmark")
    identity.make_keys(home)
    write(home, settings)
    return settings


def enrol(home: Path, devices: Path, names: Sequence[str], product: str, hardware: str) -> None:
    """Make devices below a folder and have them admitted. Blocking."""
    requests = []
    for name in names:
        place = DeviceHome(devices / name)
        settings = make_device(place, name, product, hardware)
        requests.append(identity.make_request(place, settings).model_dump(mode="json"))
    answers = EnrolmentAnswers.model_validate(ApiClient(home).post("/devices", {"requests": requests}))
    file = devices / "answers.json"
    file.write_text(answers.model_dump_json())
    for name in names:
        identity.accept(DeviceHome(devices / name), file)


@dataclass
class Driver:
    """One device on its connection.

    Attributes:
        counted: Messages of device-updates by name; what comes with the connection is not among them.
        answered: Rollouts whose announcement was answered.
        ended: Rollouts whose closing offer has come.
    """

    session: Session
    reporter: Reporter
    topics: Topics
    settings: DeviceSettings
    version: str = "1.0.0"
    spread_s: float = 0.0
    counted: Counter[str] = field(default_factory=Counter)
    ended: set[str] = field(default_factory=set)
    answered: set[str] = field(default_factory=set)
    _random: Random = field(default_factory=Random)
    _updates: dict[str, Update] = field(default_factory=dict)

    async def run(self, changed: asyncio.Event) -> None:
        """Say that it is here, then answer what comes."""
        own = (self.topics.filter(Kind.OFFER, device=self.settings.device.id), RULES[Kind.OFFER].qos)
        await self.session.subscribe([*((self.topics.filter(kind), RULES[kind].qos) for kind in _SUBSCRIBED), own])
        await self.reporter.presence(online=True)
        await self.reporter.inventory(self.settings, self.version, None, [])
        async with asyncio.TaskGroup() as group:
            async for message in self.session.messages():
                group.create_task(self._take(message, changed))

    async def _take(self, message: Message, changed: asyncio.Event) -> None:
        kind = self.topics.parse(message.topic).kind
        if kind is Kind.ANNOUNCE:
            envelope = parse(message.payload, RULES[kind].max_bytes, ANNOUNCEMENT_TYPE)
            await self._answer(decode(envelope.payload, Announcement))
        elif kind is Kind.OFFER:
            self.counted["offers"] += 1
            offer = decode(parse(message.payload, RULES[kind].max_bytes, OFFER_TYPE).payload, Offer)
            await self._follow(offer)
            changed.set()

    async def _answer(self, announcement: Announcement) -> None:
        if announcement.rollout in self.answered:
            return
        self.answered.add(announcement.rollout)
        await self._work()
        nonce = secrets.token_urlsafe(12)
        self.counted["readiness"] += 1
        await self.reporter.readiness(announcement.rollout, 0, nonce, Phase.DOWNLOAD, [], ready=True, stale=False)

    async def _follow(self, offer: Offer) -> None:
        """The machine's way through an update on which everything goes well."""
        update = self._updates.get(offer.rollout)
        if offer.grant is Grant.CLOSED:
            self.ended.add(offer.rollout)
        elif update is None:
            update = Update(offer=offer, state=State.DOWNLOADING, from_version=self.version)
            self._updates[offer.rollout] = update
            self.counted["progress"] += 1
            await self.reporter.progress(update, Standing(total_bytes=1))
            await self._work()
            await self._say(offer, State.FETCHED, Phase.INSTALL)
        elif update.state is State.FETCHED and offer.grant is Grant.ACTIVATE and offer.nonce == update.nonce:
            await self._say(offer, State.INSTALLING)
            await self._work()
            self.version = offer.release.path.split("/")[1]
            self.counted["inventory"] += 1
            await self.reporter.inventory(self.settings, self.version, None, [])
            await self._say(offer, State.VERIFYING)
        elif update.state is State.VERIFYING and offer.heard.nonce == update.nonce:
            await self._work()
            await self._say(offer, State.SUCCEEDED)

    async def _say(self, offer: Offer, state: State, phase: Phase | None = None) -> None:
        news = {"offer": offer, "state": state, "phase": phase, "nonce": secrets.token_urlsafe(12)}
        update = self._updates[offer.rollout] = self._updates[offer.rollout].model_copy(update=news)
        self.counted["state"] += 1
        await self.reporter.state(update, self.version)

    async def _work(self) -> None:
        await asyncio.sleep(self._random.uniform(0, self.spread_s))


class Drivers:
    """Many devices in this process, each with its own connection."""

    def __init__(self, homes: Sequence[Path], kind: type[Driver] = Driver) -> None:
        self._kind = kind
        self._homes = [DeviceHome(home) for home in homes]
        self._stack = AsyncExitStack()
        self._tasks: list[asyncio.Task[None]] = []
        self._changed = asyncio.Event()
        self.devices: list[Driver] = []

    async def start(self, product: str, hardware: str) -> None:
        """Connect all of them."""
        for home in self._homes:
            self.devices.append(await self._connect(home, product, hardware))
            self._tasks.append(asyncio.create_task(self.devices[-1].run(self._changed)))

    async def until_ended(self, rollout: str, timeout_s: float) -> None:
        """Wait until every device has got its closing offer.

        Raises:
            TimeoutError: Not in time.
        """
        async with asyncio.timeout(timeout_s):
            while not all(rollout in device.ended for device in self.devices):
                for task in self._tasks:
                    if task.done():
                        task.result()
                self._changed.clear()
                await self._changed.wait()

    def counted(self) -> Counter[str]:
        """Messages of all devices so far."""
        return sum((device.counted for device in self.devices), Counter[str]())

    async def stop(self) -> None:
        """Disconnect all."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._stack.aclose()

    async def _connect(self, home: DeviceHome, product: str, hardware: str) -> Driver:
        enrolment, files = identity.load_enrolment(home), IdentityFiles(home)
        number, topics, address = identity.next_session(home), Topics(enrolment.fleet), enrolment.brokers[0]
        topic, farewell = will(enrolment.device, topics, number)
        session = await self._stack.enter_async_context(
            connect(
                ConnectionSettings(
                    host=address.host,
                    port=address.port,
                    client_id=enrolment.device,
                    ca=files.ca,
                    certificate=files.certificate,
                    key=files.device_key,
                    will=Will(topic, encode(farewell), qos=1),
                )
            )
        )
        reporter = Reporter(topics, enrolment.device, identity.load_report_signer(home), SystemClock())
        reporter.attach(session, number)
        values = {"device": {"id": enrolment.device, "product": product, "hardware": hardware}}
        return self._kind(session, reporter, topics, settings_from(values, "benchmark"))
