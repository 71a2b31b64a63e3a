"""What does trust cost a device: bytes and messages when it comes and per day, and CPU to verify?

    python benchmarks/trust.py [--json benchmarks/results/trust.json]

A real ``serve`` with mosquitto and one published release. A device that comes for the first time makes one connection
with the agent's own subscriptions; what is retained there is counted by topic. Payload bytes, without MQTT and TLS. A
day without a rollout is one renewed timestamp. Verification is timed over what came: cold begins with an empty folder,
warm with what was stored; CPU time of the thread, the best of five rounds.
"""

import argparse
import asyncio
import contextlib
import json
import os
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))  # for what stands beside this file

from benchmarks._machine import machine
from device_client import identity
from device_client.config import load
from device_client.identity_files import IdentityFiles
from device_client.service import Agent
from device_client.verification.release import Verifier
from orchestrator.demo.fleet import free_ports, until_serving
from orchestrator.demo.processes import Server, command
from protocol.clock import SystemClock
from protocol.mqtt.connection import ConnectionSettings, connect
from protocol.topics import Kind, Topics
from protocol.trust.bundle import unpack_bundle
from protocol.trust.checks import Receiver
from protocol.trust.floors import Floors
from protocol.trust.workflow import TrustStore

GOALS = {"first_bytes": 3_000, "first_messages": 2, "day_bytes": 400, "announcement_bytes": 1_000}
ROUNDS, REPEATS = 5, 20
QUIET_S = 2.0
PUBLISH_S = 30.0
Payloads = dict[Kind, list[bytes]]


class MemoryFloors:
    """Floors in memory: how fast the disk syncs is not what is measured."""

    def load(self) -> Floors:
        """None yet."""
        return Floors()

    def save(self, floors: Floors) -> None:
        """Nothing to do."""


async def collect(place: Path) -> tuple[Payloads, bytes, Receiver]:
    """What a new device gets, the root that it was given, and what it is."""
    home, device = place / "home", place / "device"
    api, devices, services = free_ports(3)
    ports = ("--api-port", str(api), "--device-port", str(devices), "--service-port", str(services))
    await command("flagship", "init", home, "--product", "gateway", *ports)
    serve = Server(place / "serve.log", ["flagship", "serve", "--home", home])
    try:
        await serve.start()
        await until_serving(api, serve)
        image, package, answers = place / "image", place / "image.package", place / "answers.json"
        image.mkdir()
        (image / "app").write_bytes(os.urandom(20_000))
        what = ("--product", "gateway", "--hardware", "rev-a")
        version = ("--version", "1.1.0")
        await command("flagship", "release", "create", "--home", home, image, *version, *what, "-o", package)
        await command("flagship", "release", "publish", "--home", home, package)
        await command("flagship-device", "enrol", "--home", device, "--id", "d1", *what)
        await command("flagship", "device", "enrol", "--home", home, device / "request.json", "-o", answers)
        await command("flagship-device", "enrol", "--home", device, "--accept", answers)
        await command("flagship", "rollout", "create", "r-1", "--home", home, "--release", "gateway/1.1.0")
        await command("flagship", "rollout", "start", "r-1", "--home", home)
        async with asyncio.timeout(PUBLISH_S):
            while Kind.ANNOUNCE not in (found := await listen(device)):
                continue  # each takes until it is quiet
    finally:
        await serve.stop()
    device_home, settings = load(device)
    me = settings.device
    fleet = identity.load_enrolment(device_home).fleet
    return found, identity.load_root(device_home), Receiver(fleet, me.id, me.product, me.hardware, {})


async def listen(device: Path) -> Payloads:
    """One connection with the agent's own subscriptions, until nothing more comes."""
    home, settings = load(device)
    enrolment, files = identity.load_enrolment(home), IdentityFiles(home)
    filters = Agent(home, settings, SystemClock()).inbox.subscriptions(settings.device.id)
    broker = enrolment.brokers[0]
    target = ConnectionSettings(
        broker.host, broker.port, settings.device.id, files.ca, files.certificate, files.device_key
    )
    topics, found = Topics(enrolment.fleet), defaultdict[Kind, list[bytes]](list)
    async with connect(target) as session:
        await session.subscribe(filters)
        messages = aiter(session.messages())
        with contextlib.suppress(TimeoutError):
            while True:
                async with asyncio.timeout(QUIET_S):
                    message = await anext(messages)
                found[topics.parse(message.topic).kind].append(message.payload)
    return found


def verification_ms(found: Payloads, root: bytes, receiver: Receiver) -> tuple[float, float]:
    """(cold, warm) CPU milliseconds of taking in what came."""
    files = {**unpack_bundle(found[Kind.TRUST_BUNDLE][0]), "timestamp.json": found[Kind.TRUST_TIMESTAMP][0]}

    def verifier(place: Path) -> Verifier:
        return Verifier(TrustStore(place, root), MemoryFloors(), lambda: receiver, SystemClock())

    best = [float("inf"), float("inf")]
    with tempfile.TemporaryDirectory(prefix="flagship-trust-") as name:
        for number in range(ROUNDS):
            fresh = [verifier(Path(name) / f"{number}-{repeat}") for repeat in range(REPEATS)]
            for kind in (0, 1):  # the second time each finds what it stored
                start = time.thread_time()
                for one in fresh:
                    one.refresh(files)
                best[kind] = min(best[kind], (time.thread_time() - start) / REPEATS * 1000)
    return best[0], best[1]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print a table, write a JSON file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, default=Path(__file__).parent / "results" / "trust.json")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="flagship-bench-") as name:
        found, root, receiver = asyncio.run(collect(Path(name)))
    trust = found[Kind.TRUST_BUNDLE] + found[Kind.TRUST_TIMESTAMP]
    cold, warm = verification_ms(found, root, receiver)
    figures = {
        "first_bytes": sum(map(len, trust)),
        "first_messages": len(trust),
        "root_history_bytes": sum(map(len, found[Kind.TRUST_ROOT])),
        "day_bytes": len(found[Kind.TRUST_TIMESTAMP][0]),
        "announcement_bytes": len(found[Kind.ANNOUNCE][0]),
        "cold_verification_ms": round(cold, 2),
        "warm_verification_ms": round(warm, 2),
    }
    met = all(figures[name] <= goal for name, goal in GOALS.items())
    for name, figure in figures.items():
        goal = f"   goal {GOALS[name]}" if name in GOALS else ""
        print(f"{name.replace('_', ' '):>24} {figure:>8}{goal}")
    print(f"goals: {'met' if met else 'MISSED'}")
    result = {"measured_at": datetime.now(UTC).isoformat(timespec="seconds"), "machine": machine(), **figures}
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps({**result, "goals": GOALS, "goals_met": met}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
