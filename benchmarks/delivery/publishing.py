"""Row: does the cost of packing, publishing and reading back depend on the number of devices?

Three fleets at once, each with its devices enrolled and connected, and in each round one release for each of them, in
turns. CPU is that of ``release create``, of ``serve`` and of its broker, from handing the package in until every chunk
was read back; what both use in the same time with nothing to do is subtracted. Bytes are those that the broker's
process has read and written.
"""

import asyncio
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

from benchmarks._machine import cpu_s
from benchmarks.delivery.results import samples
from benchmarks.delivery.servers import moved_bytes, named
from benchmarks.orchestrator_cpu import SETTLE_S, Fleet, running_fleet, start_drivers

DEVICES = (10, 50, 200)
COLUMNS = ("create_s", "serve_s", "broker_s", "broker_mb")
IDLE_S = 10.0


@dataclass
class Site:
    """A fleet with its devices, and what was measured of it."""

    fleet: Fleet
    broker: int
    idle: tuple[float, float] = (0.0, 0.0)
    found: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in COLUMNS})

    def used(self) -> tuple[float, float]:
        """CPU seconds of ``serve`` and of its broker so far."""
        return cpu_s(self.fleet.serve.pid), cpu_s(self.broker)

    async def rest(self) -> None:
        """Learn what is used with nothing to do."""
        before = self.used()
        await asyncio.sleep(IDLE_S)
        after = self.used()
        self.idle = ((after[0] - before[0]) / IDLE_S, (after[1] - before[1]) / IDLE_S)

    async def publish(self, size_bytes: int) -> dict[str, float]:
        """One new release."""
        loop = asyncio.get_running_loop()
        _, package, created = await asyncio.to_thread(self.fleet.create, size_bytes)
        before, moved, since = self.used(), moved_bytes(self.broker), loop.time()
        await self.fleet.publish(package)
        after, lasted = self.used(), loop.time() - since
        package.unlink()
        return {
            "create_s": created,
            "serve_s": after[0] - before[0] - lasted * self.idle[0],
            "broker_s": after[1] - before[1] - lasted * self.idle[1],
            "broker_mb": (moved_bytes(self.broker) - moved) / 1e6,
        }


async def measure(rounds: int, devices: tuple[int, ...] = DEVICES, size_mb: int = 60) -> dict[str, Any]:
    """Interleaved rounds of the fleets."""
    async with AsyncExitStack() as stack:
        sites: dict[int, Site] = {}
        for count in devices:
            fleet = await stack.enter_async_context(running_fleet())
            drivers = await start_drivers(fleet, count)
            stack.push_async_callback(drivers.stop)
            sites[count] = Site(fleet, named(fleet.serve.pid, "mosquitto"))
        await asyncio.sleep(SETTLE_S)
        await asyncio.gather(*(site.rest() for site in sites.values()))
        for number in range(rounds + 1):
            for site in sites.values():
                used = await site.publish(size_mb * 10**6)
                for name, value in used.items():
                    if number:  # the first round warms up
                        site.found[name].append(value)
    fleets = [
        {"devices": count, "cpu_s": samples(_sums(site)), **{name: samples(site.found[name]) for name in COLUMNS}}
        for count, site in sites.items()
    ]
    return {"image_mb": size_mb, "fleets": fleets}


def _sums(site: Site) -> list[float]:
    return [sum(parts) for parts in zip(*(site.found[name] for name in COLUMNS[:3]), strict=True)]
