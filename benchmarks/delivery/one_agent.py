"""One real agent for the rows, behind a link; and when its download began and ended, as the broker saw it."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.delivery.raw_clients import Identity
from benchmarks.orchestrator_cpu import HARDWARE, PRODUCT, Fleet
from device_client.config import DeviceHome
from device_client.identity_files import IdentityFiles
from orchestrator.cli.client import ApiClient
from orchestrator.config import Home
from orchestrator.delivery.broker_access import service_connection
from orchestrator.demo.fleet import DEVICE_TIMES
from orchestrator.demo.processes import Server, command
from protocol.directives import OFFER_TYPE, Grant, Offer
from protocol.envelopes import decode, parse
from protocol.mqtt.connection import connect
from protocol.reports import STATE_TYPE, StateReport
from protocol.states import State
from protocol.topics import DELIVERY, INGEST, RULES, Kind, Topics

DEVICE = "real"
UPDATE_TIMEOUT_S = 300.0


@dataclass
class Times:
    """When a rollout's download was granted and when the device had everything, in seconds of the event loop."""

    granted: dict[str, float] = field(default_factory=dict)
    fetched: dict[str, float] = field(default_factory=dict)
    watching: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass
class RealAgent:
    """An enrolled device; ``running`` starts its agent."""

    fleet: Fleet
    home: Path
    times: Times

    @property
    def identity(self) -> Identity:
        """Its certificates, for peers that fetch over the same link."""
        files = IdentityFiles(DeviceHome(self.home))
        return Identity(files.ca, files.certificate, files.device_key)

    @asynccontextmanager
    async def running(self, *words: str | Path) -> AsyncIterator[Server]:
        """The agent as a process; ``words`` instead of its usual command."""
        start = words or ("flagship-device", "run", "--config", self.home)
        agent = Server(self.fleet.place / "agent.log", start)
        await agent.start()
        try:
            yield agent
        finally:
            await agent.stop()

    async def update(self, rollout: str, version: str) -> float:
        """Roll a release out to it and wait for the end; returns the seconds from the grant to the last chunk."""
        client = ApiClient(self.fleet.home)
        spec = {"release": f"{PRODUCT}/{version}", "stages": [{"name": "all", "percent": 100}]}
        await asyncio.to_thread(client.post, "/rollouts", {"id": rollout, "spec": spec})
        await asyncio.to_thread(client.post, f"/rollouts/{rollout}/start", {})
        async with asyncio.timeout(UPDATE_TIMEOUT_S):
            while True:
                state = (await asyncio.to_thread(client.get, f"/rollouts/{rollout}"))["state"]
                if state == "completed":
                    return self.times.fetched[rollout] - self.times.granted[rollout]
                if state not in ("running", "scheduled", "draft"):
                    raise RuntimeError(f"{rollout}: expected completed, found {state}")
                await asyncio.sleep(0.2)


@asynccontextmanager
async def real_agent(
    fleet: Fleet, port: int, factory: Path | None = None, version: str = "0.9.0"
) -> AsyncIterator[RealAgent]:
    """Enrol one device that reaches the broker at ``port``, and watch what is said to it and by it."""
    home = fleet.place / "real"
    if factory is None:
        factory = fleet.place / "factory"
        factory.mkdir()
        (factory / "app").write_text("one\n")
    await command(
        "flagship-device", "enrol", "--home", home, "--id", DEVICE, "--product", PRODUCT, "--hardware", HARDWARE,
        "--installed", factory, "--version", version, "--health", "true",
    )  # fmt: skip
    answers = fleet.place / "real-answers.json"
    await command("flagship", "device", "enrol", "--home", fleet.home, home / "request.json", "-o", answers)
    data = json.loads(answers.read_text())
    for answer in data["answers"]:
        for broker in answer["brokers"]:
            broker["port"] = port
    answers.write_text(json.dumps(data))
    await command("flagship-device", "enrol", "--home", home, "--accept", answers)
    with (home / "device.toml").open("a") as file:
        file.write("\n[timing]\n" + "".join(f"{key} = {value}\n" for key, value in DEVICE_TIMES.items()))
    times = Times()
    watches = [
        asyncio.create_task(_watch(fleet.home, times, DELIVERY, Kind.OFFER)),
        asyncio.create_task(_watch(fleet.home, times, INGEST, Kind.STATE)),
    ]
    try:
        yield RealAgent(fleet, home, times)
    finally:
        for task in watches:
            task.cancel()
        await asyncio.gather(*watches, return_exceptions=True)


async def _watch(path: Path, times: Times, certificate: str, kind: Kind) -> None:
    home = Home(path)
    settings = home.load()
    topics, loop = Topics(settings.fleet), asyncio.get_running_loop()
    async with connect(service_connection(home, settings, certificate, purpose="benchmark")) as session:
        await session.subscribe([(topics.filter(kind, device=DEVICE), 1)])
        async for message in session.messages():
            if kind is Kind.OFFER:
                offer = decode(parse(message.payload, RULES[kind].max_bytes, OFFER_TYPE).payload, Offer)
                if offer.grant is Grant.DOWNLOAD:
                    times.granted.setdefault(offer.rollout, loop.time())
            else:
                report = decode(parse(message.payload, RULES[kind].max_bytes, STATE_TYPE).payload, StateReport)
                if report.state is State.FETCHED:
                    times.fetched.setdefault(report.rollout, loop.time())
