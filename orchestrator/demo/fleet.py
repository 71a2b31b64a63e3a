"""The demo's fleet: a home, ``serve``, and one real agent per device with a home, keys and a certificate of its own."""

import asyncio
import contextlib
import json
import socket
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator.demo.image import FACTORY, Images
from orchestrator.demo.processes import Server, command
from orchestrator.demo.relay import Relay
from orchestrator.errors import OperationError

FLEET, PRODUCT, HARDWARE = "demo", "gateway", "rev-a"
AT_ONCE = 2
HOSTS = 2
TRANSFER_S = 6
START_TIMEOUT_S = 60.0

ORCHESTRATOR_TIMES = {
    "FLAGSHIP_TIMING__TICK_S": "0.2",
    "FLAGSHIP_TIMING__STATUS_INTERVAL_S": "0.2",
}
DEVICE_TIMES = {
    "readiness_retry_s": 1,
    "readiness_level_s": 10,
    "gate_interval_s": 0.5,
    "progress_interval_s": 0.2,
    "chunk_timeout_s": 2,
    "connect_backoff_s": 0.5,
    "connect_backoff_cap_s": 2,
}
"""What the demo shortens; the defaults are meant for years."""

_HEALTH = '#!/bin/sh\nexec "$FLAGSHIP_RELEASE/flagship-demo/selftest.sh"\n'


@dataclass(frozen=True, slots=True)
class Cast:
    """Who plays which part; the others are undisturbed."""

    canaries: tuple[str, ...]
    low_battery: str
    in_use: str
    approval: str
    cut_off: str
    killed: str

    @classmethod
    def of(cls, devices: Sequence[str]) -> "Cast":
        """The first two are canaries, the next five are disturbed."""
        return cls((devices[0], devices[1]), *devices[2:7])


@dataclass
class Fleet:
    """Everything that runs, and how it is started and stopped."""

    place: Path
    images: Images
    devices: list[str]
    relay: Relay
    cast: Cast
    servers: list[Server] = field(default_factory=list)
    victim: Server | None = None

    @property
    def home(self) -> Path:
        """The fleet's home."""
        return self.place / "home"

    def device(self, name: str) -> Path:
        """A device's home."""
        return self.place / "devices" / name

    async def start_orchestrator(self) -> None:
        """Make the home and start ``serve`` with a managed broker."""
        api, devices, services = free_ports(3)
        await command(
            "flagship", "init", self.home, "--fleet", FLEET, "--product", PRODUCT, "--codesign", "app",
            "--api-port", str(api), "--device-port", str(devices), "--service-port", str(services),
        )  # fmt: skip
        serve = Server(self.place / "serve.log", ["flagship", "serve", "--home", self.home], ORCHESTRATOR_TIMES)
        self.servers.append(serve)
        await serve.start()
        await until_serving(api, serve)

    async def enrol(self, device_port: int) -> None:
        """Make every device's keys and request, have them answered, and accept the answers."""
        health = self.place / "health.sh"
        health.write_text(_HEALTH)
        health.chmod(0o755)
        few = asyncio.Semaphore(AT_ONCE)
        await _each(few, [self._ask(name, health) for name in self.devices])
        answers = self.place / "answers.json"
        requests = [self.device(name) / "request.json" for name in self.devices]
        await command("flagship", "device", "enrol", "--home", self.home, *requests, "-o", answers)
        # One device's way to the broker is a bad link: its answer names the relay.
        relayed = self.place / "answers-relay.json"
        port = await self.relay.start()
        data = json.loads(answers.read_text())
        for answer in data["answers"]:
            for broker in answer["brokers"]:
                broker["port"] = port if broker["port"] == device_port else broker["port"]
        relayed.write_text(json.dumps(data))
        files = {self.cast.cut_off: relayed}
        await _each(few, [self._accept(name, files.get(name, answers)) for name in self.devices])

    async def start_agents(self, package_bytes: int) -> None:
        """Write each device's settings, then start the agents; the one that will be killed has its own process."""
        for name in self.devices:
            self._write_settings(name, package_bytes)
        others = [name for name in self.devices if name != self.cast.killed]
        for host in range(HOSTS):
            configs = [word for name in others[host::HOSTS] for word in ("--config", self.device(name))]
            words: list[str | Path] = ["flagship-device", "run", *configs]
            self.servers.append(Server(self.place / f"agents-{host}.log", words))
            await self.servers[-1].start()
        own: list[str | Path] = ["flagship-device", "run", "--config", self.device(self.cast.killed)]
        self.victim = Server(self.place / "agent-killed.log", own)
        self.servers.append(self.victim)
        await self.victim.start()

    def set_battery(self, percent: int) -> None:
        """Charge or drain the battery of the device that has one."""
        (self._supplies / "BAT0" / "capacity").write_text(f"{percent}\n")

    def check(self) -> None:
        """Notice a process that ended by itself; raises OperationError."""
        for server in self.servers:
            server.check()

    async def stop(self) -> None:
        """Stop everything that was started: agents first."""
        for server in reversed(self.servers):
            await server.stop()
        await self.relay.close()

    @property
    def _supplies(self) -> Path:
        return self.device(self.cast.low_battery) / "power_supply"

    async def _ask(self, name: str, health: Path) -> None:
        await command(
            "flagship-device", "enrol", "--home", self.device(name), "--id", name, "--product", PRODUCT,
            "--hardware", HARDWARE, "--label", f"site={'north' if name in self.cast.canaries else 'south'}",
            "--installed", self.images.factory, "--version", FACTORY, "--health", health,
        )  # fmt: skip

    async def _accept(self, name: str, answers: Path) -> None:
        await command("flagship-device", "enrol", "--home", self.device(name), "--accept", answers)

    def _write_settings(self, name: str, package_bytes: int) -> None:
        sections: dict[str, dict[str, object]] = {"timing": dict(DEVICE_TIMES)}
        if name in (self.cast.cut_off, self.cast.killed):
            fetched = package_bytes * min(1, self.images.changed / self.images.length)
            sections["download"] = {"rate_limit_bytes_s": max(25_000, int(fetched / TRANSFER_S))}
        if name == self.cast.approval:
            sections["gates"] = {"require_approval": True}
        if name == self.cast.low_battery:
            battery = self._supplies / "BAT0"
            battery.mkdir(parents=True)
            (battery / "type").write_text("Battery\n")
            self.set_battery(12)
            sections["gates"] = {"power_supply_root": str(self._supplies)}
        lines = [
            f"\n[{section}]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in values.items())
            for section, values in sections.items()
        ]
        with (self.device(name) / "device.toml").open("a") as file:
            file.write("".join(lines))


async def until_serving(port: int, serve: Server) -> None:
    """Wait until the API answers.

    Raises:
        OperationError: ``serve`` ended, or did not answer in time.
    """
    try:
        async with asyncio.timeout(START_TIMEOUT_S):
            while True:
                serve.check()
                with contextlib.suppress(OSError):
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                    writer.close()
                    return
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise OperationError(f"demo: serve does not answer on port {port} within {START_TIMEOUT_S:.0f} s") from None


def free_ports(count: int) -> list[int]:
    """Loopback ports that nothing listens on now."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    try:
        return [int(one.getsockname()[1]) for one in sockets]
    finally:
        for one in sockets:
            one.close()


async def _each(few: asyncio.Semaphore, work: Sequence[Coroutine[None, None, None]]) -> None:
    async def one(job: Coroutine[None, None, None]) -> None:
        async with few:
            await job

    async with asyncio.TaskGroup() as group:
        for job in work:
            group.create_task(one(job))
