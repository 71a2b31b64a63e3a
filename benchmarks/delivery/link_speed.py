"""Row: MB/s of one real agent over a link, beside stop-and-wait and an HTTPS download of the same bytes.

The agent's time runs from the moment its download is granted to the moment its report that everything is verified and
written has come; the sealed manifest is in it. curl's time is that of the whole file, TLS handshake included. Stop and
wait is one chunk after the other over MQTT, some of them, as a rate. All go through the same link, one at a time.
"""

import asyncio
import time
from contextlib import AsyncExitStack
from functools import partial
from itertools import islice
from typing import Any

from benchmarks.delivery.one_agent import RealAgent, real_agent
from benchmarks.delivery.raw_clients import Identity, MqttDevice
from benchmarks.delivery.releases import Published, publish_random
from benchmarks.delivery.results import samples
from benchmarks.delivery.servers import nginx
from benchmarks.orchestrator_cpu import running_fleet
from device_client.config import DownloadSection
from orchestrator.config import Home
from orchestrator.demo.fleet import ORCHESTRATOR_TIMES
from tests.links.link_process import link_process

LINKS = ((20, 50), (20, 200), (100, 50), (100, 200))
"""Mbit/s and milliseconds of the round trip."""
SECONDS = 6.0
"""About this long the link is busy with the image of one round."""
SINGLE_CHUNKS = 16
TINY_BYTES = 1000
FILE = "image"
CURL_TIMEOUT_S = 120.0


async def measure(rounds: int, seconds: float = SECONDS) -> dict[str, Any]:
    """All links, interleaved rounds of the three."""
    found: dict[tuple[int, int], dict[str, list[float]]] = {
        link: {"ours": [], "single": [], "https": []} for link in LINKS
    }
    one_chunk: dict[tuple[int, int], float] = {}
    async with running_fleet(ORCHESTRATOR_TIMES) as fleet, AsyncExitStack() as stack:
        root = fleet.place / "html"
        root.mkdir()
        web = await stack.enter_async_context(nginx(fleet.place / "nginx", Home(fleet.home), root))
        way = stack.enter_context(link_process(Home(fleet.home).load().broker.device_port))
        aside = stack.enter_context(link_process(web.port))
        agent = await stack.enter_async_context(real_agent(fleet, way.port))
        for number in range(rounds):
            for (mbit, milliseconds), column in found.items():
                for one in (way, aside):
                    rate = mbit * 1e6 / 8
                    one.change(delay_s=milliseconds / 2000, up_bytes_s=rate, down_bytes_s=rate)
                if not number:
                    tiny = await publish_random(fleet, TINY_BYTES)
                    async with agent.running():
                        one_chunk[mbit, milliseconds] = await agent.update(f"r-{mbit}-{milliseconds}", tiny.version)
                published = await publish_random(fleet, _image_bytes(mbit, seconds))
                (root / FILE).write_bytes(b"".join(published.chunks.values()))
                column["ours"].append(await _agent(agent, published, f"r-{number}-{mbit}-{milliseconds}"))
                column["https"].append(await _curl(aside.port, agent.identity, published.size_bytes))
                column["single"].append(await asyncio.to_thread(_single, way.port, agent.identity, published))
    limits = DownloadSection()
    return {
        "window": {"count": limits.max_window, "bytes": limits.window_bytes},
        "links": [
            {"image_mb": _image_bytes(link[0], seconds) / 1e6, "one_chunk_s": round(one_chunk[link], 3)}
            | _row(link, column)
            for link, column in found.items()
        ],
    }


def _image_bytes(mbit: int, seconds: float) -> int:
    return int(mbit * 1e6 / 8 * seconds)


def _row(link: tuple[int, int], column: dict[str, list[float]]) -> dict[str, Any]:
    pairs = partial(zip, strict=True)
    return {
        "mbit_s": link[0],
        "round_trip_ms": link[1],
        "mb_s": {name: samples(values, 3) for name, values in column.items()},
        "times_single": samples([a / b for a, b in pairs(column["ours"], column["single"])], 2),
        "of_https": samples([a / b for a, b in pairs(column["ours"], column["https"])], 3),
    }


async def _agent(agent: RealAgent, published: Published, rollout: str) -> float:
    async with agent.running():
        return published.size_bytes / 1e6 / await agent.update(rollout, published.version)


async def _curl(port: int, identity: Identity, size_bytes: int) -> float:
    words = ("--cacert", identity.ca, "--cert", identity.certificate, "--key", identity.key)
    process = await asyncio.create_subprocess_exec(
        "curl", "-sS", "--tlsv1.3", "--fail", "-o", "/dev/null", "-w", "%{time_total} %{size_download}",
        *map(str, words), f"https://127.0.0.1:{port}/{FILE}", stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    async with asyncio.timeout(CURL_TIMEOUT_S):
        out, _ = await process.communicate()
    seconds, size = out.decode().split()
    if int(size) != size_bytes:
        raise RuntimeError(f"curl: expected {size_bytes} B, found {size}")
    return size_bytes / 1e6 / float(seconds)


def _single(port: int, identity: Identity, published: Published) -> float:
    some = dict(islice(published.sizes.items(), SINGLE_CHUNKS))
    device = MqttDevice(port, identity, "real")
    try:
        start = time.monotonic()
        total = device.fetch(some, 1, 2**30)
        return total / 1e6 / (time.monotonic() - start)
    finally:
        device.close()
