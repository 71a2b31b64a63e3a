"""Row: delivered MB per broker CPU-second over TLS, beside nginx in ranges and mosquitto's plain fan-out.

The same ciphertexts to 50 devices in each round: retained chunks by windows from the broker that ``serve`` runs, ranges
of the same lengths from nginx over kept connections, and live QoS 1 fan-out from a mosquitto without access lists.
Connecting is not measured; every payload is hashed. CPU is that of the server alone, user and system.
"""

from collections.abc import Callable
from contextlib import AsyncExitStack
from functools import partial
from typing import Any

from benchmarks.delivery.raw_clients import Identity, MqttDevice, RangeDevice, at_once
from benchmarks.delivery.releases import Published, digest, identities, publish_random
from benchmarks.delivery.results import samples
from benchmarks.delivery.servers import Served, named, nginx, plain_mosquitto, tree_cpu_s
from benchmarks.orchestrator_cpu import running_fleet
from device_client.config import DownloadSection
from orchestrator.config import Home

FILE = "image"
LIVE = 8
"""Messages that the publisher of the fan-out has unacknowledged."""
Ciphers = set[str]


async def measure(rounds: int, devices: int = 50, size_mb: int = 10) -> dict[str, Any]:
    """Interleaved rounds of the three."""
    found: dict[str, list[float]] = {"ours": [], "nginx": [], "raw": []}
    ciphers: Ciphers = set()
    async with running_fleet() as fleet, AsyncExitStack() as stack:
        home = Home(fleet.home)
        published = await publish_random(fleet, size_mb * 2**20)
        files = await identities(fleet, devices)
        (fleet.place / "html").mkdir()
        (fleet.place / "html" / FILE).write_bytes(b"".join(published.chunks.values()))
        web = await stack.enter_async_context(nginx(fleet.place / "nginx", home, fleet.place / "html"))
        raw = await stack.enter_async_context(plain_mosquitto(fleet.place / "raw", home))
        broker = Served(home.load().broker.device_port, named(fleet.serve.pid, "mosquitto"))
        ways = {"ours": (broker, windowed), "nginx": (web, ranges), "raw": (raw, fan_out)}
        for number in range(rounds + 1):
            for name, (server, way) in ways.items():
                rate = _rate(server, published, devices, partial(way, server.port, published, files, ciphers))
                if number:  # the first round warms up
                    found[name].append(rate)
    if len(ciphers) != 1:
        raise RuntimeError(f"TLS: the same version and cipher for all, found {sorted(ciphers)}")
    chunk = published.size_bytes / len(published.chunks)
    return {
        "devices": devices,
        "payload_mb": round(published.size_bytes / 1e6, 2),
        "mean_chunk_bytes": round(chunk),
        "tls": ciphers.pop(),
        "mb_per_cpu_s": {name: samples(values, 1) for name, values in found.items()},
        "ratio_nginx": samples([a / b for a, b in zip(found["ours"], found["nginx"], strict=True)], 3),
        "ratio_raw": samples([a / b for a, b in zip(found["ours"], found["raw"], strict=True)], 3),
    }


def windowed(port: int, published: Published, files: dict[str, Identity], ciphers: Ciphers) -> Callable[[], int]:
    """Devices that fetch retained chunks as the agent does."""
    lines = at_once([partial(MqttDevice, port, one, name) for name, one in files.items()])
    ciphers |= {device.line.cipher for device in lines}
    limits = DownloadSection()

    def run() -> int:
        sizes = published.sizes
        return sum(at_once([partial(_fetch, device, sizes, limits) for device in lines]))

    return run


def ranges(port: int, published: Published, files: dict[str, Identity], ciphers: Ciphers) -> Callable[[], int]:
    """Devices that ask for one range after the other."""
    lines = at_once([partial(RangeDevice, port, one) for one in files.values()])
    ciphers |= {device.line.cipher for device in lines}

    def one(device: RangeDevice) -> int:
        at = 0
        for topic, data in published.chunks.items():
            if digest(device.get(FILE, at, len(data))) != topic.rpartition("/")[2]:
                raise ValueError(f"{topic}: its hash is not its name")
            at += len(data)
        device.close()
        return at

    return lambda: sum(at_once([partial(one, device) for device in lines]))


def fan_out(port: int, published: Published, files: dict[str, Identity], ciphers: Ciphers) -> Callable[[], int]:
    """One publisher, and devices that wait for all of it."""
    lines = at_once([partial(MqttDevice, port, one, name) for name, one in files.items()])
    ciphers |= {device.line.cipher for device in lines}
    for device in lines:
        device.subscribe(["live/#"])
    publisher = MqttDevice(port, next(iter(files.values())), "publisher")

    def publish() -> int:
        for number, (topic, data) in enumerate(published.chunks.items()):
            publisher.publish(f"live/{topic}", data)
            if number >= LIVE:
                publisher.answered()
        for _ in range(min(LIVE, len(published.chunks))):
            publisher.answered()
        publisher.close()
        return 0

    def one(device: MqttDevice) -> int:
        total = 0
        for _ in published.chunks:
            topic, payload = device.take()
            if digest(payload) != topic.rpartition("/")[2]:
                raise ValueError(f"{topic}: its hash is not its name")
            total += len(payload)
        device.close()
        return total

    calls: list[Callable[[], int]] = [publish, *(partial(one, device) for device in lines)]
    return lambda: sum(at_once(calls))


def _fetch(device: MqttDevice, sizes: dict[str, int], limits: DownloadSection) -> int:
    total = device.fetch(sizes, limits.max_window, limits.window_bytes)
    device.close()
    return total


def _rate(server: Served, published: Published, devices: int, ready: Callable[[], Callable[[], int]]) -> float:
    run = ready()
    before = tree_cpu_s(server.pid)
    total = run()
    used = tree_cpu_s(server.pid) - before
    if total != devices * published.size_bytes:
        raise RuntimeError(f"delivered: expected {devices * published.size_bytes} B, found {total}")
    return total / 1e6 / used
