"""Row: bytes on the wire for each byte of ciphertext, for the whole life of an update, of a real agent.

Counted both ways as TCP payload, from the agent's first byte to its last: TLS handshakes, trust, announcement, offers,
reports, sealed manifest, SUBSCRIBEs, acknowledgements, and the broker's last words. Lost messages are counted too: they
were sent. Compressible images are held against their ciphertext as well, and against what they are as files.
"""

import asyncio
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.delivery.one_agent import RealAgent, real_agent
from benchmarks.delivery.releases import Published, chunks, publish_random
from benchmarks.delivery.results import samples
from benchmarks.orchestrator_cpu import HARDWARE, Fleet, running_fleet
from benchmarks.packing import make_image
from device_client.config import DeviceHome
from orchestrator.config import Home
from orchestrator.demo.fleet import ORCHESTRATOR_TIMES
from orchestrator.demo.processes import command
from tests.links.link import Link, link
from tests.links.mqtt_faults import Faults, mqtt_faults

LOSSES = (0.02, 0.05)


async def measure(rounds: int, size_mb: int = 30) -> dict[str, Any]:
    """Without loss, with some, and for an image that compresses."""
    found: dict[float, list[float]] = {0.0: [], **{loss: [] for loss in LOSSES}}
    lost: dict[float, list[float]] = {loss: [] for loss in LOSSES}
    ups: list[float] = []
    async with running_fleet(ORCHESTRATOR_TIMES) as fleet, AsyncExitStack() as stack:
        home = Home(fleet.home)
        counted = await stack.enter_async_context(link(home.load().broker.device_port))
        # What the agent is told; it leads to the broker, or to the one that loses messages.
        door = await stack.enter_async_context(link(counted.port))
        agent = await stack.enter_async_context(real_agent(fleet, door.port))
        for number in range(rounds):
            for loss, column in found.items():
                published = await publish_random(fleet, size_mb * 10**6)
                faults = mqtt_faults(home, DeviceHome(agent.home), counted.port, Faults(drop=loss), seed=number)
                async with faults as hand:
                    door.target = "127.0.0.1", hand.port if loss else counted.port
                    up, down = await _update(agent, counted, published, f"r-{number}-{round(100 * loss)}")
                    column.append(up + down)
                if not loss:
                    ups.append(up)
                else:
                    lost[loss].append(hand.fates["drop"] / hand.fates.total())
        door.target, chunk = ("127.0.0.1", counted.port), published.size_bytes / len(published.chunks)
        image = fleet.place / "image"
        await asyncio.to_thread(make_image, image, size_mb * 10**6)
        plain = sum(path.stat().st_size for path in image.rglob("*") if path.is_file())
        published = await _publish(fleet, image, "2.0.0")
        compressible = sum(await _update(agent, counted, published, "r-compressible"))
    return {
        "image_mb": size_mb,
        "mean_chunk_bytes": round(chunk),
        "wire_per_ciphertext": samples(found[0.0]),
        "up_per_ciphertext": samples(ups),
        "lossy": [{"loss": samples(lost[loss]), "wire_per_ciphertext": samples(found[loss])} for loss in LOSSES],
        "compressible": {
            "wire_per_ciphertext": round(compressible, 4),
            "wire_per_image": round(compressible * published.size_bytes / plain, 4),
        },
    }


async def _publish(fleet: Fleet, tree: Path, version: str) -> Published:
    package = fleet.place / f"{version}.package"
    await command(
        "flagship", "release", "create", "--home", fleet.home, tree, "--version", version, "--hardware", HARDWARE,
        "-o", package,
    )  # fmt: skip
    await fleet.publish(package)
    return Published(version, await asyncio.to_thread(chunks, package, Home(fleet.home).load().fleet))


async def _update(agent: RealAgent, counted: Link, published: Published, rollout: str) -> tuple[float, float]:
    before = replace(counted.counted)
    async with agent.running():
        await agent.update(rollout, published.version)
    await asyncio.sleep(0.2)  # the last bytes
    up, down = counted.counted.up_bytes - before.up_bytes, counted.counted.down_bytes - before.down_bytes
    return up / published.size_bytes, down / published.size_bytes
