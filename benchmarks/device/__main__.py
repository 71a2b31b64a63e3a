"""What does the agent cost its device: at its start, idle, and in one update?

    python -m benchmarks.device [--rounds 3] [--idle-s 60] [--json benchmarks/results/device.json]

A real ``flagship serve`` with its mosquitto over TLS and a real ``flagship-device run`` with what a device has
installed, all settings as they are by default but the disk's reserve. Each round updates a 10 MiB directory of which
1 % differs; what is the same is copied from the running version. "start": from the process' start to the line in its
log that says that it is connected. "active": from the order to start the rollout, over HTTP, or its answer, to the
switched link. "written": bytes that the process caused to be written to storage (``/proc/PID/io``), from before the
rollout to its end, by byte that differs. Medians.
"""

import argparse
import asyncio
import json
import random
import statistics
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks._device_install import device_agent
from benchmarks._machine import cpu_s, machine
from benchmarks.device.memory import shares_mb
from benchmarks.orchestrator_cpu import HARDWARE, PRODUCT, Fleet, running_fleet
from orchestrator.cli.client import ApiClient
from orchestrator.demo.processes import Server, command

GOALS = {"idle_rss_mb": 60.0, "idle_cpu_percent": 0.1, "active_s": 2.0}
FILES, FILE_BYTES, CHANGED_BYTES = 100, 104_858, 104_858
LIMIT_S = 60.0


def main() -> None:
    """Measure and write the file."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--rounds", type=int, default=3)
    words.add_argument("--idle-s", type=float, default=60)
    words.add_argument("--json", type=Path)
    given = words.parse_args()
    found = asyncio.run(_measure(given.rounds, given.idle_s))
    print(json.dumps(found, indent=1))
    if given.json:
        result = {"machine": machine(), "measured_at": datetime.now(UTC).isoformat(timespec="seconds"), "goals": GOALS}
        given.json.write_text(json.dumps(result | found, indent=1) + "\n")


async def _measure(rounds: int, idle_s: float) -> dict[str, Any]:
    argv, env = await asyncio.to_thread(device_agent)
    async with running_fleet() as fleet:
        tree = fleet.place / "image"
        await asyncio.to_thread(_write, tree)
        device = await _enrolled(fleet, tree)
        log = fleet.place / "agent.log"
        agent = Server(log, [*argv, "run", "--config", device], env)
        try:
            starts = [await _start(agent, log) for _ in range(rounds)]
            await asyncio.sleep(5)
            idle = await _idle(agent.pid, idle_s)
            updates = [await _update(fleet, agent, device, tree, number) for number in range(1, rounds + 1)]
            rss_after = _rss_mb(agent.pid)
        finally:
            await agent.stop()
    medians = {name: round(statistics.median(row[name] for row in updates), 2) for name in updates[0]}
    return {
        "start_s": round(statistics.median(starts), 2),
        **idle,
        "rss_after_updates_mb": rss_after,
        **medians,
        "changed_bytes": CHANGED_BYTES,
        "import_mb": await asyncio.to_thread(shares_mb, argv[0], env),
    }


async def _enrolled(fleet: Fleet, factory: Path) -> Path:
    device, answers = fleet.place / "device", fleet.place / "answers.json"
    await command(
        "flagship-device", "enrol", "--home", device, "--id", "d1", "--product", PRODUCT, "--hardware", HARDWARE,
        "--installed", factory, "--version", "1.0.0",
    )  # fmt: skip
    await command("flagship", "device", "enrol", "--home", fleet.home, device / "request.json", "-o", answers)
    await command("flagship-device", "enrol", "--home", device, "--accept", answers)
    return device


async def _start(agent: Server, log: Path) -> float:
    if agent.pid:
        await agent.stop()
    await asyncio.to_thread(log.write_bytes, b"")
    began = time.monotonic()
    await agent.start()
    await _until(lambda: '"event": "connected"' in log.read_text())
    return time.monotonic() - began


async def _idle(pid: int, seconds: float) -> dict[str, float]:
    before, began = cpu_s(pid), time.monotonic()
    await asyncio.sleep(seconds)
    used = (cpu_s(pid) - before) / (time.monotonic() - began)
    return {"idle_rss_mb": _rss_mb(pid), "idle_cpu_percent": round(100 * used, 3)}


async def _update(fleet: Fleet, agent: Server, device: Path, tree: Path, number: int) -> dict[str, float]:
    """One update by which 1 % changes."""
    version = f"1.{number}.0"
    (tree / f"part-{number:03}").write_bytes(random.Random(number).randbytes(CHANGED_BYTES))
    package = fleet.place / f"{version}.package"
    await command(
        "flagship", "release", "create", "--home", fleet.home, tree, "--product", PRODUCT, "--version", version,
        "--hardware", HARDWARE, "-o", package,
    )  # fmt: skip
    await fleet.publish(package)
    client = ApiClient(fleet.home)
    spec = {"release": f"{PRODUCT}/{version}", "stages": [{"name": "all", "percent": 100}]}
    await asyncio.to_thread(client.post, "/rollouts", {"id": f"r-{number}", "spec": spec})
    link, written = device / "current", _written(agent.pid)
    began = time.monotonic()
    await asyncio.to_thread(client.post, f"/rollouts/r-{number}/start", {})
    started = time.monotonic()
    await _until(lambda: link.readlink().name.startswith(f"{version}-"), 0.002)
    active = time.monotonic()
    await _until(lambda: client.get(f"/rollouts/r-{number}")["state"] == "completed", 0.1)
    await asyncio.sleep(2)
    return {
        "active_s": active - started,
        "active_from_order_s": active - began,
        "written_per_changed_byte": (_written(agent.pid) - written) / CHANGED_BYTES,
    }


def _write(tree: Path) -> None:
    tree.mkdir()
    for number in range(FILES):
        (tree / f"part-{number:03}").write_bytes(random.Random(1000 + number).randbytes(FILE_BYTES))


def _rss_mb(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return round(next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:")) * 1024 / 1e6, 1)


def _written(pid: int) -> int:
    lines = Path(f"/proc/{pid}/io").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("write_bytes:"))


async def _until(holds: Any, every_s: float = 0.01) -> None:  # noqa: ANN401 - a question
    async with asyncio.timeout(LIMIT_S):
        while not holds():  # noqa: ASYNC110 - of a file and of other processes
            await asyncio.sleep(every_s)


if __name__ == "__main__":
    main()
