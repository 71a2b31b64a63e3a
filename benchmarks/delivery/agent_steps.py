"""Row: CPU of a real agent's download by step, for each MB of ciphertext; how much of it is our own Python?

The agent is the real one in a process of its own, against the real broker; see ``sampled_agent`` for how its time is
attributed. Only downloads are looked at, from the verified offer to the durable stream. The image compresses to about
half. The MQTT library and the event loop are a step of their own: they are Python, and not ours.
"""

import json
import sys
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from benchmarks.agent_memory import make_image
from benchmarks.delivery.cpu_steps import OWN, STEPS
from benchmarks.delivery.one_agent import real_agent
from benchmarks.delivery.releases import chunks
from benchmarks.delivery.results import samples
from benchmarks.orchestrator_cpu import HARDWARE, running_fleet
from orchestrator.config import Home
from orchestrator.demo.fleet import ORCHESTRATOR_TIMES
from orchestrator.demo.processes import command


async def measure(rounds: int, size_mb: int = 100) -> dict[str, Any]:
    """One agent and one fleet for each round."""
    steps: dict[str, list[float]] = {step: [] for step in STEPS}
    total: list[float] = []
    own: list[float] = []
    lines: dict[str, float] = {}
    for _ in range(rounds):
        found, size_bytes = await _one(size_mb)
        noted = sum(found["steps_ns"].values())
        per_mb = found["process_s"] * 1000 / (size_bytes / 1e6)
        for step, values in steps.items():
            values.append(per_mb * found["steps_ns"].get(step, 0) / noted)
        total.append(per_mb)
        own.append(found["steps_ns"].get(OWN, 0) / noted)
        lines = {line: round(spent / noted, 4) for line, spent in list(found["lines_ns"].items())[:15]}
    return {
        "image_mb": size_mb,
        "ciphertext_mb": round(size_bytes / 1e6, 1),
        "noted": round(noted / 1e9 / found["process_s"], 3),
        "total_ms_per_mb": samples(total, 3),
        "ms_per_mb": {step: samples(values, 3) for step, values in steps.items()},
        "own_share": samples(own, 3),
        "dearest_lines": lines,
    }


async def _one(size_mb: int) -> tuple[dict[str, Any], int]:
    async with running_fleet(ORCHESTRATOR_TIMES) as fleet, AsyncExitStack() as stack:
        home, image, output = Home(fleet.home), fleet.place / "image", fleet.place / "steps.json"
        make_image(image, size_mb)
        package = fleet.place / "image.package"
        await command(
            "flagship", "release", "create", "--home", fleet.home, image, "--version", "2.0.0",
            "--hardware", HARDWARE, "-o", package,
        )  # fmt: skip
        await fleet.publish(package)
        settings = home.load()
        size_bytes = sum(map(len, chunks(package, settings.fleet).values()))
        agent = await stack.enter_async_context(real_agent(fleet, settings.broker.device_port))
        words = ("-m", "benchmarks.delivery.sampled_agent", agent.home, output)
        async with agent.running(Path(sys.executable).name, *words):
            await agent.update("r-1", "2.0.0")
        found: dict[str, Any] = json.loads(output.read_text())
        return found, size_bytes
