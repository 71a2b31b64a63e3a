"""A small fleet for tests: a home, ``serve`` as a process, real agents in this one. And a short place for sockets."""

import asyncio
import contextlib
import os
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from device_client import identity
from device_client.agent.journal import boot_id
from device_client.config import DeviceHome, DeviceSettings, load, write
from device_client.config import settings_from as device_settings
from device_client.installers.making import make_installer
from device_client.service import Agent
from orchestrator.cli.client import ApiClient
from orchestrator.cli.init import HomePlan, initialise
from orchestrator.config import Home, Settings
from orchestrator.demo.fleet import free_ports
from orchestrator.demo.processes import Server
from orchestrator.publisher.creating import ReleaseSpec, create_release
from orchestrator.publisher.workspace import Workspace
from protocol.clock import Clock, SystemClock
from protocol.enrolment import EnrolmentAnswers
from protocol.errors import FlagshipError
from protocol.identifiers import ReleaseName
from protocol.manifest import Policy

FLEET, PRODUCT, HARDWARE = "harbour", "gateway", "rev-a"
DEADLINE_S = 60.0
TIMES = {
    "readiness_retry_s": 0.5,
    "readiness_level_s": 5,
    "gate_interval_s": 0.3,
    "progress_interval_s": 0.1,
    "refusal_interval_s": 0.3,
    "chunk_timeout_s": 1,
    "connect_backoff_s": 0.2,
    "connect_backoff_cap_s": 1,
}
QUICK = {"FLAGSHIP_TIMING__TICK_S": "0.1", "FLAGSHIP_TIMING__STATUS_INTERVAL_S": "0.1"}


@contextlib.contextmanager
def short_place() -> Any:
    """A new folder whose path leaves room for a socket's name."""
    place = Path(tempfile.mkdtemp(prefix="fs-"))
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)


def make_home(place: Path, codesign: tuple[str, ...] = ()) -> tuple[Home, Settings]:
    """A fleet's home on free ports; executables of the components in ``codesign`` must be signed."""
    api, devices, services, claims = free_ports(4)
    plan = HomePlan(
        FLEET,
        (PRODUCT,),
        codesign=codesign,
        api_port=api,
        device_port=devices,
        service_port=services,
        enrol_port=claims,
    )
    home = initialise(place / "home", plan)
    return home, home.load()


def make_tree(place: Path, version: str, size_bytes: int = 400_000) -> Path:
    """What a version installs: a program that names itself, and bytes that do not compress."""
    tree = place / f"tree-{version}"
    tree.mkdir()
    (tree / "version").write_text(f"{version}\n")
    (tree / "data").write_bytes(os.urandom(size_bytes))
    return tree


def make_package(
    home: Home,
    tree: Path,
    version: str,
    counter: int | None = None,
    policy: Policy | None = None,
    delta_from: tuple[Path, ...] = (),
) -> Path:
    """A package that this home's release keys signed."""
    spec = ReleaseSpec(
        name=ReleaseName(PRODUCT, version),
        component="app",
        hardware=(HARDWARE,),
        requires={},
        conflicts={},
        policy=policy or Policy(),
        counter=counter,
        delta_from=delta_from,
    )
    output = home.path.parent / f"{version}.package"
    create_release(tree, output, spec, Workspace(home.publisher), datetime.now(UTC))
    return output


def make_device(place: Path, name: str, factory: Path, **sections: dict[str, Any]) -> tuple[DeviceHome, DeviceSettings]:
    """A device with keys and what it left the factory with; not enrolled yet."""
    home = DeviceHome(place / name)
    values: dict[str, Any] = {
        "device": {"id": name, "product": PRODUCT, "hardware": HARDWARE, **sections.pop("device", {})},
        "timing": TIMES,
    }
    settings = device_settings(values | sections, "test")
    identity.make_keys(home)
    write(home, settings)
    make_installer(home, settings, boot_id).install_factory(factory, "1.0.0")
    return home, settings


def accept(home: DeviceHome, answers: EnrolmentAnswers) -> None:
    """Hand a device its answer."""
    file = home.path / "answers.json"
    file.write_text(answers.model_dump_json())
    identity.accept(home, file)


def installed(home: DeviceHome) -> str:
    """The version that a device runs, as the tree itself says."""
    return (home.current / "version").read_text().strip()


async def until(condition: Callable[[], bool], what: str, timeout_s: float = DEADLINE_S) -> None:
    """Wait for a condition; fails with ``what`` when it does not come about."""
    try:
        async with asyncio.timeout(timeout_s):
            while not condition():
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise AssertionError(f"within {timeout_s:g} s: {what}") from None


@dataclass
class SmallFleet:
    """A home, its ``serve``, and devices; made by ``small_fleet``."""

    place: Path
    home: Home
    settings: Settings
    serve: Server
    devices: dict[str, DeviceHome] = field(default_factory=dict)
    agents: dict[str, Agent] = field(default_factory=dict)
    tasks: dict[str, asyncio.Task[None]] = field(default_factory=dict)

    async def call(self, method: str, *words: Any, **params: str) -> Any:
        """One call of the API, repeated while ``serve`` is not there."""
        client = await asyncio.to_thread(ApiClient, self.home)
        async with asyncio.timeout(DEADLINE_S):
            while True:
                try:
                    return await asyncio.to_thread(getattr(client, method), *words, **params)
                except FlagshipError as error:
                    if getattr(error, "exit_code", 1) != 9:
                        raise
                    self.serve.check()
                    await asyncio.sleep(0.05)

    async def enrol(self, names: Sequence[str], factory: Path, **sections: dict[str, Any]) -> None:
        """Make devices and admit them."""
        requests = []
        for name in names:
            home, settings = await asyncio.to_thread(make_device, self.place, name, factory, **sections)
            self.devices[name] = home
            requests.append(identity.make_request(home, settings).model_dump(mode="json"))
        answers = EnrolmentAnswers.model_validate(await self.call("post", "/devices", {"requests": requests}))
        for name in names:
            await asyncio.to_thread(accept, self.devices[name], answers)

    def start_agents(self, names: Sequence[str], clock: Clock | None = None) -> None:
        """Start the real agents, in this process."""
        for name in names:
            home, settings = load(self.devices[name].path)
            home.create()
            self.agents[name] = Agent(home, settings, clock or SystemClock())
            self.tasks[name] = asyncio.create_task(self.agents[name].run())

    async def publish(self, package: Path) -> None:
        """Hand a package in."""
        await self.call("upload", "/releases", package)

    async def roll_out(self, rollout: str, version: str, **plan: Any) -> None:
        """One stage with everyone in it, or what ``plan`` says, started."""
        spec = {"release": f"{PRODUCT}/{version}", "stages": [{"name": "all", "percent": 100}], **plan}
        await self.call("post", "/rollouts", {"id": rollout, "spec": spec})
        await self.call("post", f"/rollouts/{rollout}/start", {})

    async def until_state(self, rollout: str, state: str) -> dict[str, Any]:
        """Wait until a rollout has come to a state."""
        async with asyncio.timeout(DEADLINE_S):
            while True:
                found: dict[str, Any] = await self.call("get", f"/rollouts/{rollout}")
                if found["state"] == state:
                    return found
                self.serve.check()
                await asyncio.sleep(0.1)

    def brokers(self) -> list[int]:
        """Process ids of the mosquittos whose configuration is this home's."""
        found = []
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                words = (entry / "cmdline").read_bytes().split(b"\0") if entry.name.isdecimal() else []
                if words and words[0].endswith(b"mosquitto") and str(self.home.path).encode() in b" ".join(words):
                    found.append(int(entry.name))
        return found

    def kill_broker(self) -> None:
        """SIGKILL, and everything that it retained is gone."""
        (broker,) = self.brokers()
        os.kill(broker, signal.SIGKILL)
        for file in self.home.broker.glob("retained.db*"):
            file.unlink()


@contextlib.asynccontextmanager
async def small_fleet(*codesign: str, **environment: str) -> AsyncIterator[SmallFleet]:
    """A running ``serve`` on a new home, without devices; ``environment`` sets what ``config.toml`` does not.

    Args:
        codesign: Components whose executables must be signed.
    """
    with short_place() as place:
        home, settings = await asyncio.to_thread(make_home, place, codesign)
        serve = Server(place / "serve.log", ["flagship", "serve", "--home", home.path], QUICK | environment)
        fleet = SmallFleet(place, home, settings, serve)
        await serve.start()
        try:
            yield fleet
        finally:
            for task in fleet.tasks.values():
                task.cancel()
            await asyncio.gather(*fleet.tasks.values(), return_exceptions=True)
            await serve.stop()
