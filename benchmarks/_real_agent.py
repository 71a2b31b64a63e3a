"""What a real agent says in one update, counted on the broker: the light devices are held against it."""

import asyncio
from collections import Counter
from pathlib import Path

from orchestrator.config import Home, Settings
from orchestrator.delivery.broker_access import service_connection
from orchestrator.demo.fleet import DEVICE_TIMES
from orchestrator.demo.processes import Server, command
from protocol.mqtt.connection import connect
from protocol.topics import DELIVERY, INGEST, Kind, Topics

DEVICE = "real"
_NAMES = {
    Kind.INVENTORY: "inventory",
    Kind.READINESS: "readiness",
    Kind.STATE: "state",
    Kind.PROGRESS: "progress",
    Kind.OFFER: "offers",
}
TIMEOUT_S = 60.0


class Watcher:
    """Counts the messages of one device on the broker, by name."""

    def __init__(self, home: Path) -> None:
        self._home = Home(home)
        self._settings: Settings = self._home.load()
        self._topics = Topics(self._settings.fleet)
        self.counted: Counter[str] = Counter()
        self.watching = asyncio.Event()
        self.connected = asyncio.Event()

    async def watch(self, certificate: str, *kinds: Kind) -> None:
        """Count until cancelled."""
        target = service_connection(self._home, self._settings, certificate, purpose="benchmark")
        async with connect(target) as session:
            await session.subscribe([(self._topics.filter(kind, device=DEVICE), 1) for kind in kinds])
            self.watching.set()
            async for message in session.messages():
                name = _NAMES[self._topics.parse(message.topic).kind]
                self.counted[name] += 1
                if name == "inventory":
                    self.connected.set()


async def count_real_agent(place: Path, home: Path, product: str, hardware: str, version: str) -> dict[str, int]:
    """Bring one real agent from its factory's version to ``version``; returns its messages by name."""
    device, factory, answers = place / "device", place / "factory", place / "real-answers.json"
    factory.mkdir()
    (factory / "app").write_text("one\n")
    await command(
        "flagship-device", "enrol", "--home", device, "--id", DEVICE, "--product", product, "--hardware", hardware,
        "--installed", factory, "--version", "0.9.0", "--health", "true",
    )  # fmt: skip
    await command("flagship", "device", "enrol", "--home", home, device / "request.json", "-o", answers)
    await command("flagship-device", "enrol", "--home", device, "--accept", answers)
    with (device / "device.toml").open("a") as file:
        file.write("\n[timing]\n" + "".join(f"{key} = {value}\n" for key, value in DEVICE_TIMES.items()))
    up, down = Watcher(home), Watcher(home)
    agent = Server(place / "agent.log", ["flagship-device", "run", "--config", device])
    watches = [
        asyncio.create_task(up.watch(INGEST, *(kind for kind in _NAMES if kind is not Kind.OFFER))),
        asyncio.create_task(down.watch(DELIVERY, Kind.OFFER)),
    ]
    try:
        async with asyncio.timeout(TIMEOUT_S):
            await asyncio.gather(up.watching.wait(), down.watching.wait())
            await agent.start()
            await up.connected.wait()
        up.counted.clear()  # what came with the connection is not the update's
        create = ("flagship", "rollout", "create", "real", "--home", home, "--release", f"{product}/{version}")
        await command(*create)
        await command("flagship", "rollout", "start", "real", "--home", home)
        await command("flagship", "rollout", "watch", "real", "--home", home, "--timeout", "60s")
        await asyncio.sleep(1.0)
        return dict(sorted((up.counted + down.counted).items()))
    finally:
        await agent.stop()
        for task in watches:
            task.cancel()
        await asyncio.gather(*watches, return_exceptions=True)
