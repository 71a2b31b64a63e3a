"""Mosquitto with the generated configuration, or with one line of it changed."""

import contextlib
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from orchestrator.broker_check.figures import Figures
from orchestrator.broker_check.probe_client import Access, ProbeClient
from orchestrator.broker_check.probing import Bounds, check_broker
from orchestrator.delivery.broker_config import CONFIG_FILE, BrokerPlan, broker_files
from orchestrator.errors import UnreachableError
from protocol.topics import DELIVERY, Topics
from tests.certificates import Authority, free_ports

FLEET = "checked"
BOUNDS = Bounds(timeout_s=60, most_bytes=24 * 2**20, others=600, stall_s=0.3, silence_s=0.4)


@dataclass(frozen=True, slots=True)
class Broker:
    """A running broker and the identities of both listeners."""

    delivery: Access
    device: Access
    topics: Topics

    def check(self, bounds: Bounds = BOUNDS, *, device: bool = True) -> Figures:
        """Probe it."""
        return check_broker(self.topics, self.delivery, self.device if device else None, bounds)

    def retained(self) -> int:
        """How many retained chunks and announcements there are."""
        client = ProbeClient(self.delivery, mqtt5=True, deadline=time.monotonic() + 20)
        client.subscribe([f"{self.topics.root}/{kind}/+" for kind in ("chunk", "announce")], 1)
        client.subscribe([f"{self.topics.root}/offer/+/+"], 1)
        found = client.collect({"what never comes"}, 0.5)
        client.close()
        return found.foreign


@contextlib.contextmanager
def running(place: Path, **changes: str) -> Iterator[Broker]:
    """Start mosquitto; ``changes`` are lines of its configuration by their first word, "" drops them."""
    devices, services = Authority(place / "devices.pem", "devices"), Authority(place / "services.pem", "services")
    for name in ("broker", "dev1"):
        devices.issue(place / f"{name}.pem", place / f"{name}.key", name)
    services.issue(place / "orch.pem", place / "orch.key", DELIVERY)
    device_port, service_port = free_ports()
    plan = BrokerPlan(
        fleet=FLEET,
        directory=place,
        devices_ca=place / "devices.pem",
        devices_crl=place / "none",
        services_ca=place / "services.pem",
        services_crl=place / "none",
        certificate=place / "broker.pem",
        key=place / "broker.key",
        device_port=device_port,
        service_port=service_port,
        user="root",
    )
    changes = {"crlfile": "", **changes}
    for name, text in broker_files(plan).items():
        lines = [changes.get(line.partition(" ")[0], line) for line in text.splitlines()]
        (place / name).write_text("\n".join(lines if name == CONFIG_FILE else text.splitlines()) + "\n")
    program = shutil.which("mosquitto") or "/usr/sbin/mosquitto"
    with (place / "log").open("wb") as output:
        process = subprocess.Popen([program, "-c", str(place / CONFIG_FILE)], stdout=output, stderr=output)
    try:
        delivery = Access(
            "127.0.0.1", service_port, "checker", place / "devices.pem", place / "orch.pem", place / "orch.key"
        )
        device = Access("127.0.0.1", device_port, "dev1", place / "devices.pem", place / "dev1.pem", place / "dev1.key")
        _until_ready(delivery)
        yield Broker(delivery, device, Topics(FLEET))
    finally:
        process.terminate()
        process.wait(10)


def _until_ready(access: Access) -> None:
    deadline = time.monotonic() + 10
    while True:
        try:
            ProbeClient(access, mqtt5=True, deadline=deadline).close()
            return
        except UnreachableError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
