"""Row: CPU of all server processes for one device-update of 10 MiB, beside gooseBit's.

Ours is ``serve`` with everything below it: orchestrator, signer and broker, TLS, times as they are by default. Devices
say what an agent says, signed, and fetch every chunk by windows over the same connection. What the servers use with
nothing to do is in it, for as long as a round lasts. Devices answer at once.
"""

import asyncio
import hashlib
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks._devices import Driver, Drivers
from benchmarks.delivery import goosebit
from benchmarks.delivery.raw_clients import windows
from benchmarks.delivery.releases import Published, publish_random
from benchmarks.delivery.results import samples
from benchmarks.delivery.servers import named, tree_cpu_s
from benchmarks.orchestrator_cpu import SETTLE_S, Fleet, one_round, running_fleet, start_drivers
from device_client.config import DownloadSection
from protocol.directives import Grant, Offer
from protocol.mqtt.connection import Message
from protocol.states import Phase, State
from protocol.topics import Kind

TIMEOUT_S = 120.0


class FetchingDriver(Driver):
    """A device that fetches every chunk of ``sizes`` before it says that it has."""

    sizes: Mapping[str, int] = {}
    arrived: asyncio.Queue[Message]

    def begin(self, sizes: Mapping[str, int]) -> None:
        """What the next update consists of."""
        self.sizes, self.arrived = sizes, asyncio.Queue(len(sizes))

    async def _take(self, message: Message, changed: asyncio.Event) -> None:
        if self.topics.parse(message.topic).kind is Kind.CHUNK:
            self.arrived.put_nowait(message)
        else:
            await super()._take(message, changed)

    async def _say(self, offer: Offer, state: State, phase: Phase | None = None) -> None:
        if state is State.FETCHED and offer.grant is Grant.DOWNLOAD:
            async with asyncio.timeout(TIMEOUT_S):
                await self._fetch()
        await super()._say(offer, state, phase)

    async def _fetch(self) -> None:
        limits, done = DownloadSection(), list[str]()
        for topics in windows(self.sizes, limits.max_window, limits.window_bytes):
            asked = self.session.subscribe([(topic, 1) for topic in topics])
            await asyncio.gather(asked, *([self.session.unsubscribe(done)] if done else []))
            for _ in topics:
                message = await self.arrived.get()
                if hashlib.sha256(message.payload).hexdigest() != message.topic.rpartition("/")[2]:
                    raise ValueError(f"{message.topic}: its hash is not its name")
            done = topics
        await self.session.unsubscribe(done)


async def measure(rounds: int, devices: int = 50, size_mb: int = 10) -> dict[str, Any]:
    """Interleaved rounds of both."""
    ours: list[float] = []
    parts: dict[str, list[float]] = {"serve": [], "broker": []}
    theirs: list[float] = []
    with tempfile.TemporaryDirectory(prefix="fs-goosebit-") as name:
        async with running_fleet() as fleet:
            drivers = await start_drivers(fleet, devices, kind=FetchingDriver)
            try:
                before = drivers.counted()
                for number in range(rounds + 1):
                    published = await publish_random(fleet, size_mb * 2**20)
                    used = await _ours(fleet, drivers, published, f"r-{number}")
                    place = Path(name) / f"image-{number}"
                    place.mkdir()
                    payload = b"".join(published.chunks.values())
                    image = await asyncio.to_thread(goosebit.make_image, place, payload)
                    other = await goosebit.update_all(Path(name) / f"round-{number}", image, devices)
                    if number:  # the first round warms up
                        ours.append(1000 * sum(used.values()) / devices)
                        theirs.append(1000 * other / devices)
                        for part, values in parts.items():
                            values.append(1000 * used[part] / devices)
                messages = sum((drivers.counted() - before).values()) / devices / (rounds + 1)
            finally:
                await drivers.stop()
    return {
        "devices": devices,
        "payload_mb": round(published.size_bytes / 1e6, 2),
        "messages": round(messages, 1),
        "ms": {"ours": samples(ours, 2), "goosebit": samples(theirs, 2)},
        "parts_ms": {part: samples(values, 2) for part, values in parts.items()},
        "of_goosebit": samples([a / b for a, b in zip(ours, theirs, strict=True)]),
    }


async def _ours(fleet: Fleet, drivers: Drivers, published: Published, rollout: str) -> dict[str, float]:
    await asyncio.sleep(SETTLE_S)
    for device in drivers.devices:
        if isinstance(device, FetchingDriver):
            device.begin(published.sizes)
    broker = named(fleet.serve.pid, "mosquitto")
    all_before, broker_before = tree_cpu_s(fleet.serve.pid), tree_cpu_s(broker)
    await one_round(fleet, drivers, rollout, published.version)
    whole, of_broker = tree_cpu_s(fleet.serve.pid) - all_before, tree_cpu_s(broker) - broker_before
    return {"serve": whole - of_broker, "broker": of_broker}
