"""How much memory does a device's agent need, and does the image's size matter?

    python benchmarks/agent_memory.py [--sizes-mb 20 200] [--json benchmarks/results/agent_memory.json]

For each size: a new fleet, a real broker, one device with a fresh agent process that takes the image from announcement
to commit. The figure is the process' VmHWM, the most memory it ever had, read when the rollout has completed.
"""

import argparse
import asyncio
import json
import os
import platform
import random
import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))  # for what stands beside this file

from benchmarks._device_install import device_agent
from orchestrator.demo.fleet import DEVICE_TIMES, ORCHESTRATOR_TIMES, free_ports, until_serving
from orchestrator.demo.processes import Server, command

GOAL_MB = 80.0
GOAL_GROWTH_MB = 5.0
FILE_BYTES = 200_000
CHANGED_EVERY = 8
"""Files of an image, one of which differs from the version before."""
SEED = 7


def make_image(target: Path, size_mb: int, changed_every: int = 0) -> None:
    """Files of bytes that compress to about half, as programs do.

    Args:
        target: A folder that is not there yet.
        size_mb: Of all files.
        changed_every: One file in so many has some bytes more than it would have; 0: none has.
    """
    source = random.Random(SEED)
    target.mkdir(parents=True)
    for number in range(size_mb * 1_000_000 // FILE_BYTES):
        noise = source.randbytes(FILE_BYTES // 2)
        if changed_every and number % changed_every == 0:
            noise = noise[: FILE_BYTES // 4] + b"changed" + noise[FILE_BYTES // 4 :]
        (target / f"part-{number:05}").write_bytes(noise + b"the same text again and again\n" * (FILE_BYTES // 60))


def high_water_mb(pid: int) -> float:
    """VmHWM of a process, in MB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise RuntimeError("the kernel tells no VmHWM")


async def measure(size_mb: int, *, delta: bool = False) -> float:
    """VmHWM in MB of an agent that took an image of this size.

    Args:
        size_mb: Of the image.
        delta: The device runs an image that differs in some files, and the release has deltas against it.
    """
    with tempfile.TemporaryDirectory(prefix="flagship-bench-") as name:
        place = Path(name)
        home, device, health = place / "home", place / "device", "true"
        make_image(place / "image", size_mb)
        against: tuple[str | Path, ...] = ()
        if delta:
            make_image(place / "factory", size_mb, CHANGED_EVERY)
            against = ("--delta-from", place / "factory", "--delta-level", "3")
        else:
            (place / "factory").mkdir()
            (place / "factory" / "app").write_text("one\n")
        api, devices, services = free_ports(3)
        ports = ("--api-port", str(api), "--device-port", str(devices), "--service-port", str(services))
        await command("flagship", "init", home, "--product", "gateway", *ports)
        serve = Server(place / "serve.log", ["flagship", "serve", "--home", home], ORCHESTRATOR_TIMES)
        words, env = await asyncio.to_thread(device_agent)
        agent = Server(place / "agent.log", [*words, "run", "--config", device], env)
        try:
            await serve.start()
            await until_serving(api, serve)
            package = place / "image.package"
            await command(
                "flagship", "release", "create", "--home", home, place / "image", "--product", "gateway",
                "--version", "1.1.0", "--hardware", "rev-a", "-o", package, *against,
            )  # fmt: skip
            await command("flagship", "release", "publish", "--home", home, package)
            await command(
                "flagship-device", "enrol", "--home", device, "--id", "d1", "--product", "gateway", "--hardware",
                "rev-a", "--installed", place / "factory", "--version", "1.0.0", "--health", health,
            )  # fmt: skip
            answers = place / "answers.json"
            await command("flagship", "device", "enrol", "--home", home, device / "request.json", "-o", answers)
            await command("flagship-device", "enrol", "--home", device, "--accept", answers)
            with (device / "device.toml").open("a") as file:
                file.write("\n[timing]\n" + "".join(f"{key} = {value}\n" for key, value in DEVICE_TIMES.items()))
            await agent.start()
            await command("flagship", "rollout", "create", "r-1", "--home", home, "--release", "gateway/1.1.0")
            await command("flagship", "rollout", "start", "r-1", "--home", home)
            await command("flagship", "rollout", "watch", "r-1", "--home", home, "--timeout", "100s")
            return high_water_mb(agent.pid)
        finally:
            await agent.stop()
            await serve.stop()


def machine() -> dict[str, str | int]:
    """What this was measured on."""
    model = next(
        (
            line.split(":", 1)[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.processor(),
    )
    return {
        "processor": model,
        "cores": os.cpu_count() or 0,
        "kernel": platform.release(),
        "python": platform.python_version(),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print a table, write a JSON file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes-mb", type=int, nargs="+", default=[20, 200])
    parser.add_argument("--json", type=Path, default=Path(__file__).parent / "results" / "agent_memory.json")
    options = parser.parse_args(arguments)
    figures = {size: asyncio.run(measure(size)) for size in options.sizes_mb}
    small, large = figures[min(figures)], figures[max(figures)]
    met = large < GOAL_MB and large - small <= GOAL_GROWTH_MB
    print(f"{'image':>10} {'VmHWM':>10}")
    for size, memory in figures.items():
        print(f"{size:>7} MB {memory:>7.1f} MB")
    verdict = "met" if met else "MISSED"
    print(f"goal: under {GOAL_MB:g} MB, at most {GOAL_GROWTH_MB:g} MB more for the larger image: {verdict}")
    found = {
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "vm_hwm_mb": {str(size): round(memory, 1) for size, memory in figures.items()},
        "goal_mb": GOAL_MB,
        "goal_growth_mb": GOAL_GROWTH_MB,
        "goals_met": met,
    }
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(found, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
