"""How much memory does a device's agent need, and does the image's size matter?

    python benchmarks/agent_memory.py [--sizes-mb 20 200] [--json benchmarks/results/agent_memory.json]

For each size: a new fleet, a real broker, one device with a fresh agent process that takes the image from announcement
to commit; then again, with the image's next version by copies and deltas. The figure is the process' VmHWM, the most
memory it ever had, read when the rollout has completed.
"""

import argparse
import asyncio
import json
import os
import platform
import random
import shutil
import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from orchestrator.demo.fleet import DEVICE_TIMES, ORCHESTRATOR_TIMES, free_ports, until_serving
from orchestrator.demo.processes import Server, command

GOAL_MB = 80.0
GOAL_GROWTH_MB = 5.0
FILE_BYTES = 200_000
SEED = 7


def make_image(target: Path, size_mb: int) -> None:
    """Files of bytes that compress to about half, as programs do."""
    source = random.Random(SEED)
    target.mkdir(parents=True)
    for number in range(size_mb * 1_000_000 // FILE_BYTES):
        noise = source.randbytes(FILE_BYTES // 2)
        (target / f"part-{number:05}").write_bytes(noise + b"the same text again and again\n" * (FILE_BYTES // 60))


def high_water_mb(pid: int) -> float:
    """VmHWM of a process, in MB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise RuntimeError("the kernel tells no VmHWM")


def change(image: Path) -> None:
    """One byte of every file: all of them are another one, and a third of the chunks."""
    for path in image.iterdir():
        with path.open("r+b") as file:
            file.seek(1000)
            file.write(b"X")


async def measure(size_mb: int) -> tuple[float, float]:
    """VmHWM in MB of an agent that took an image of this size whole, and of one that took the next by deltas."""
    with tempfile.TemporaryDirectory(prefix="flagship-bench-") as name:
        place = Path(name)
        home, device, image = place / "home", place / "device", place / "image"
        make_image(image, size_mb)
        (place / "factory").mkdir()
        (place / "factory" / "app").write_text("one\n")
        api, devices, services = free_ports(3)
        ports = ("--api-port", str(api), "--device-port", str(devices), "--service-port", str(services))
        await command("flagship", "init", home, "--product", "gateway", *ports)
        serve = Server(place / "serve.log", ["flagship", "serve", "--home", home], ORCHESTRATOR_TIMES)
        try:
            await serve.start()
            await until_serving(api, serve)
            await enrol(home, device, place)
            full = await update(home, device, image, "1.1.0")
            old = image.rename(place / "old")
            shutil.copytree(old, image)
            change(image)
            return full, await update(home, device, image, "1.2.0", "--delta-from", old, "--delta-level", "3")
        finally:
            await serve.stop()


async def enrol(home: Path, device: Path, place: Path) -> None:
    """Make the device and admit it."""
    await command(
        "flagship-device", "enrol", "--home", device, "--id", "d1", "--product", "gateway", "--hardware",
        "rev-a", "--installed", place / "factory", "--version", "1.0.0", "--health", "true",
    )  # fmt: skip
    answers = place / "answers.json"
    await command("flagship", "device", "enrol", "--home", home, device / "request.json", "-o", answers)
    await command("flagship-device", "enrol", "--home", device, "--accept", answers)
    with (device / "device.toml").open("a") as file:
        file.write("\n[timing]\n" + "".join(f"{key} = {value}\n" for key, value in DEVICE_TIMES.items()))


async def update(home: Path, device: Path, image: Path, version: str, *more: str | Path) -> float:
    """VmHWM of a fresh agent that took this version."""
    package = image.with_name(f"{version}.package")
    rollout = f"r-{version.replace('.', '-')}"
    await command(
        "flagship", "release", "create", "--home", home, image, "--product", "gateway", "--version", version,
        "--hardware", "rev-a", "-o", package, *more,
    )  # fmt: skip
    await command("flagship", "release", "publish", "--home", home, package)
    package.unlink()
    agent = Server(image.with_name(f"{version}.log"), ["flagship-device", "run", "--config", device])
    try:
        await agent.start()
        await command("flagship", "rollout", "create", rollout, "--home", home, "--release", f"gateway/{version}")
        await command("flagship", "rollout", "start", rollout, "--home", home)
        await command("flagship", "rollout", "watch", rollout, "--home", home, "--timeout", "300s")
        return high_water_mb(agent.pid)
    finally:
        await agent.stop()


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
    grown = max(after - before for before, after in zip(small, large, strict=True))
    met = max(large) < GOAL_MB and grown <= GOAL_GROWTH_MB
    print(f"{'image':>10} {'VmHWM whole':>14} {'by deltas':>10}")
    for size, (whole, deltas) in figures.items():
        print(f"{size:>7} MB {whole:>11.1f} MB {deltas:>7.1f} MB")
    verdict = "met" if met else "MISSED"
    print(f"goal: under {GOAL_MB:g} MB, at most {GOAL_GROWTH_MB:g} MB more for the larger image: {verdict}")
    found = {
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "vm_hwm_mb": {str(size): round(whole, 1) for size, (whole, _) in figures.items()},
        "vm_hwm_by_deltas_mb": {str(size): round(deltas, 1) for size, (_, deltas) in figures.items()},
        "goal_mb": GOAL_MB,
        "goal_growth_mb": GOAL_GROWTH_MB,
        "goals_met": met,
    }
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(found, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
