"""What does one device's update cost the orchestrator, and does the payload's cost depend on the number of devices?

    python benchmarks/orchestrator_cpu.py [--devices 10 100] [--rounds 7] [--json FILE]

A real ``flagship serve`` with the managed mosquitto over TLS, times as they are by default. CPU is user and system
time of the ``serve`` process alone. Each round is one rollout of a new, tiny release to all devices: from the moment
before it starts by its schedule until the last closing offer has come and the status topics have settled. What
``serve`` uses in the same time with nothing to do is measured in the same run and subtracted; both are shown. The
first round warms up and is left out; figures are medians. Devices answer at once, or take up to ``--spread-s`` a step.
"""

import argparse
import asyncio
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))  # for what stands beside this file

from benchmarks._devices import Driver, Drivers, enrol
from benchmarks._machine import cpu_s, machine, signature_us
from benchmarks._real_agent import count_real_agent
from orchestrator.cli.client import ApiClient
from orchestrator.demo.fleet import free_ports, until_serving
from orchestrator.demo.processes import Server, command, program

GOAL_MS = 1.0
GOAL_RATIO = 1.2
"""Of publishing with most devices to publishing with none; CPU of one run differs by some percent from the next."""
PRODUCT, HARDWARE = "gateway", "rev-a"
VERIFIED, SIGNED = 6, 4
"""Five reports of an update and the inventory that ends it; four offers."""
LEAD_S = 3.0
SETTLE_S = 1.5
IDLE_S = 10.0
ROUND_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class UpdateCost:
    """Of one device-update, medians over rounds; ``idle_ms`` is what was subtracted from ``whole_ms``."""

    devices: int
    spread_s: float
    net_ms: float
    whole_ms: float
    idle_ms: float
    lowest_ms: float
    highest_ms: float
    messages: dict[str, float]


@dataclass(frozen=True, slots=True)
class PayloadCost:
    """CPU seconds, medians over rounds."""

    devices: int
    create_s: float
    publish_s: float


class Fleet:
    """A home and its ``serve``."""

    def __init__(self, place: Path, serve: Server) -> None:
        self.place = place
        self.home = place / "home"
        self.serve = serve
        self._made = 0

    def create(self, size_bytes: int) -> tuple[str, Path, float]:
        """Pack a new release; returns (version, package, CPU seconds of ``release create``). Blocking."""
        self._made += 1
        version, tree = f"1.0.{self._made}", self.place / "tree"
        _write_tree(tree, size_bytes, self._made)
        package = self.place / f"{version}.package"
        words: list[str | Path] = [program("flagship"), "release", "create", "--home", self.home, tree]
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(
            [*words, "--version", version, "--hardware", HARDWARE, "-o", package], check=True, capture_output=True
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return version, package, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    async def publish(self, package: Path) -> None:
        """Hand a package in."""
        await asyncio.to_thread(ApiClient(self.home).upload, "/releases", package)

    async def idle_rate(self) -> float:
        """CPU seconds per second with nothing to do."""
        loop = asyncio.get_running_loop()
        before, since = cpu_s(self.serve.pid), loop.time()
        await asyncio.sleep(IDLE_S)
        return (cpu_s(self.serve.pid) - before) / (loop.time() - since)


@asynccontextmanager
async def running_fleet(env: dict[str, str] | None = None) -> AsyncIterator[Fleet]:
    """A new home with a running ``serve``."""
    with tempfile.TemporaryDirectory(prefix="fs-bench-") as name:
        place = Path(name)
        api, devices, services = free_ports(3)
        ports = ("--api-port", str(api), "--device-port", str(devices), "--service-port", str(services))
        await command("flagship", "init", place / "home", "--product", PRODUCT, *ports)
        serve = Server(place / "serve.log", ["flagship", "serve", "--home", place / "home"], env)
        try:
            await serve.start()
            await until_serving(api, serve)
            yield Fleet(place, serve)
        finally:
            await serve.stop()


async def measure_updates(devices: int, spread_s: float, rounds: int) -> UpdateCost:
    """One rollout per round to all devices."""
    async with running_fleet() as fleet:
        drivers = await start_drivers(fleet, devices, spread_s)
        try:
            versions = [await _ready_release(fleet, 200) for _ in range(rounds + 1)]
            await asyncio.sleep(SETTLE_S)
            idle = await fleet.idle_rate()
            found = []
            for number, version in enumerate(versions):
                before = drivers.counted()
                used, lasted = await one_round(fleet, drivers, f"r-{number}", version)
                if number:
                    found.append(((used - idle * lasted), used, idle * lasted))
            messages = {name: n / devices for name, n in sorted((drivers.counted() - before).items())}
        finally:
            await drivers.stop()
    net, whole, subtracted = ([1000 * x / devices for x in column] for column in zip(*found, strict=True))
    middle, all_of_it, idle_part = (round(statistics.median(column), 3) for column in (net, whole, subtracted))
    lowest, highest = round(min(net), 3), round(max(net), 3)
    return UpdateCost(devices, spread_s, middle, all_of_it, idle_part, lowest, highest, messages)


async def validate() -> dict[str, int]:
    """Messages of a real agent in one update."""
    async with running_fleet() as fleet:
        version = await _ready_release(fleet, 200)
        return await count_real_agent(fleet.place, fleet.home, PRODUCT, HARDWARE, version)


async def start_drivers(fleet: Fleet, devices: int, spread_s: float = 0.0, kind: type[Driver] = Driver) -> Drivers:
    """Enrol and connect devices of a kind."""
    names = [f"d{number:03}" for number in range(devices)]
    folder = fleet.place / "devices"
    folder.mkdir()
    if names:
        await asyncio.to_thread(enrol, fleet.home, folder, names, PRODUCT, HARDWARE)
    drivers = Drivers([folder / name for name in names], kind)
    await drivers.start(PRODUCT, HARDWARE)
    for device in drivers.devices:
        device.spread_s = spread_s
    return drivers


async def one_round(fleet: Fleet, drivers: Drivers, rollout: str, version: str) -> tuple[float, float]:
    """(CPU seconds, seconds) of one rollout; no operator asks anything meanwhile."""
    client, loop = ApiClient(fleet.home), asyncio.get_running_loop()
    start_at = datetime.now(UTC) + timedelta(seconds=LEAD_S)
    stages = [{"name": "all", "percent": 100}]
    spec = {"release": f"{PRODUCT}/{version}", "stages": stages, "start_at": start_at.isoformat()}
    await asyncio.to_thread(client.post, "/rollouts", {"id": rollout, "spec": spec})
    await asyncio.sleep((start_at - datetime.now(UTC)).total_seconds() - 0.2)
    before, since = cpu_s(fleet.serve.pid), loop.time()
    if any(rollout in device.answered for device in drivers.devices):
        raise RuntimeError(f"{rollout} began before it was due: raise LEAD_S")
    await drivers.until_ended(rollout, ROUND_TIMEOUT_S)
    await asyncio.sleep(SETTLE_S)
    return cpu_s(fleet.serve.pid) - before, loop.time() - since


async def measure_payload(devices: int, size_mb: int, rounds: int) -> PayloadCost:
    """Pack and publish ``rounds`` releases while devices are connected."""
    created, published = [], []
    async with running_fleet() as fleet:
        drivers = await start_drivers(fleet, devices)
        try:
            await asyncio.sleep(SETTLE_S)
            idle, loop = await fleet.idle_rate(), asyncio.get_running_loop()
            for _ in range(rounds):
                _, package, used = await asyncio.to_thread(fleet.create, size_mb * 1_000_000)
                before, since = cpu_s(fleet.serve.pid), loop.time()
                await fleet.publish(package)
                published.append(cpu_s(fleet.serve.pid) - before - idle * (loop.time() - since))
                created.append(used)
                package.unlink()
        finally:
            await drivers.stop()
    return PayloadCost(devices, round(statistics.median(created), 3), round(statistics.median(published), 3))


async def _ready_release(fleet: Fleet, size_bytes: int) -> str:
    version, package, _ = await asyncio.to_thread(fleet.create, size_bytes)
    await fleet.publish(package)
    return version


def _write_tree(tree: Path, size_bytes: int, seed: int) -> None:
    tree.mkdir(exist_ok=True)
    (tree / "data").write_bytes(random.Random(seed).randbytes(size_bytes))


def print_updates(costs: Sequence[UpdateCost], real: Mapping[str, float]) -> None:
    """The first table."""
    print("serve's CPU per device-update without payload, ms (whole = net + idle over the same time)")
    print(f"{'devices':>8} {'step':>8} {'net':>7} {'lowest':>7} {'highest':>8} {'whole':>7} {'idle':>7}   goal")
    for cost in costs:
        goal = f"{GOAL_MS:g} {'met' if cost.net_ms <= GOAL_MS else 'MISSED'}"
        spread = f"{cost.net_ms:>7.2f} {cost.lowest_ms:>7.2f} {cost.highest_ms:>8.2f}"
        parts = f"{cost.whole_ms:>7.2f} {cost.idle_ms:>7.2f}"
        print(f"{cost.devices:>8} {_step(cost.spread_s):>8} {spread} {parts}   {goal}")
    for cost in costs:
        who = f"{cost.devices} devices, {_step(cost.spread_s)}"
        print(f"messages per device-update, {who}: {_words(cost.messages)}")
    print(f"messages per device-update, a real agent: {_words(real)}")
    if any(abs(cost.messages.get(name, 0) - real[name]) > 1 for cost in costs for name in real):
        raise RuntimeError("the light devices do not say what a real agent says")


def _step(spread_s: float) -> str:
    return f"<= {spread_s:g} s" if spread_s else "at once"


def _words(messages: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {count:g}" for name, count in messages.items())


def print_payload(costs: Sequence[PayloadCost], size_mb: int) -> bool:
    """The second table; returns whether publishing costs the same for any number of devices."""
    print(f"CPU of a release of {size_mb} MB, s")
    print(f"{'devices':>8} {'create':>8} {'publish and read back (serve)':>30}")
    for cost in costs:
        print(f"{cost.devices:>8} {cost.create_s:>8.2f} {cost.publish_s:>30.2f}")
    first, last = min(costs, key=lambda c: c.devices), max(costs, key=lambda c: c.devices)
    same = last.publish_s <= GOAL_RATIO * first.publish_s and last.create_s <= GOAL_RATIO * first.create_s
    print(f"goal: {last.devices} devices at most {GOAL_RATIO:g} times {first.devices}: {'met' if same else 'MISSED'}")
    return same


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print the tables, write a JSON file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--devices", type=int, nargs="+", default=[10, 100])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--spread-s", type=float, nargs="+", default=[0.0, 1.0])
    parser.add_argument("--size-mb", type=int, default=30, help="of the payload; 0 leaves that part out")
    parser.add_argument("--json", type=Path, default=Path(__file__).parent / "results" / "orchestrator_cpu.json")
    options = parser.parse_args(arguments)
    here = machine()
    print(f"{here['processor']}, {here['cores']} cores, Linux {here['kernel']}, Python {here['python']}")
    updates = [
        asyncio.run(measure_updates(devices, spread_s, options.rounds))
        for spread_s in options.spread_s
        for devices in options.devices
    ]
    real = asyncio.run(validate())
    print_updates(updates, real)
    verify, sign = signature_us()
    floor = round((VERIFIED * verify + SIGNED * sign) / 1000, 2)
    print(f"of it {VERIFIED} P-256 verifications at {verify:g} us, {SIGNED} signatures at {sign:g} us: {floor:g} ms")
    print(f"load average {os.getloadavg()[0]:.1f}")
    met = all(cost.net_ms <= GOAL_MS for cost in updates if not cost.spread_s)
    found = {"measured_at": datetime.now(UTC).isoformat(timespec="seconds"), "machine": here, "goal_ms": GOAL_MS}
    found |= {"updates": [asdict(cost) for cost in updates], "real_agent_messages": real}
    found |= {"p256_verify_us": verify, "signature_us": sign, "signatures_ms": floor}
    found |= {"load_average": round(os.getloadavg()[0], 1)}
    if options.size_mb:
        payload = [asyncio.run(measure_payload(n, options.size_mb, 3)) for n in (0, *options.devices)]
        met = print_payload(payload, options.size_mb) and met
        found |= {"payload_mb": options.size_mb, "goal_ratio": GOAL_RATIO, "payload": [asdict(c) for c in payload]}
    found["goals_met"] = met
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(found, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
