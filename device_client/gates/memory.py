"""Is there memory enough, and is nothing starving? The kernel's MemAvailable, and its pressure stall information (PSI).

Pressure is the share of the last minute in which some task stood still for want of memory, io or cpu.
"""

import asyncio
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from device_client.config_gates import GatesSection
from device_client.gates.gate import GateContext, Ready, Verdict, Wait, unknown
from device_client.kernel_files import kernel_text

RESOURCES = ("memory", "io", "cpu")
_RETRY_S = 60.0
"""The average is over a minute."""


@dataclass(frozen=True, slots=True)
class Memory:
    """What the kernel says; None where it does not.

    Attributes:
        available_bytes: That programs can have without swapping.
        pressure_percent: By resource, the average over 60 s of "some".
    """

    available_bytes: int | None
    pressure_percent: Mapping[str, float | None]


@dataclass(frozen=True, slots=True)
class MemoryLimits:
    """What is demanded: no memory where it is 0, no pressure of a resource that is not named."""

    min_bytes: int
    max_pressure_percent: Mapping[str, float]

    @classmethod
    def of(cls, gates: GatesSection) -> "MemoryLimits":
        """As the device's owner set them."""
        named = zip(
            RESOURCES,
            (gates.max_memory_pressure_percent, gates.max_io_pressure_percent, gates.max_cpu_pressure_percent),
            strict=True,
        )
        return cls(gates.min_memory_bytes, {resource: limit for resource, limit in named if limit is not None})


class MemoryGate:
    """Open while memory is left and pressure is low."""

    name = "memory"

    def __init__(self, proc: Path, limits: MemoryLimits, *, waits: bool) -> None:
        """Watch ``proc``; ``waits``: what cannot be read keeps it shut."""
        self._proc = proc
        self._limits = limits
        self._waits = waits

    async def judge(self, _context: GateContext) -> Sequence[Verdict]:
        """Judge as it is now."""
        found = await asyncio.to_thread(read_memory, self._proc, tuple(self._limits.max_pressure_percent))
        return judge(found, self._limits, waits=self._waits)


def judge(memory: Memory, limits: MemoryLimits, *, waits: bool) -> list[Verdict]:
    """Pure: one verdict on the memory, one on each pressure that has a limit."""
    verdicts = [_judge_available(memory.available_bytes, limits.min_bytes, waits=waits)]
    for resource, limit in limits.max_pressure_percent.items():
        found = memory.pressure_percent.get(resource)
        if found is None:
            verdicts.append(unknown(f"{resource} pressure cannot be read; at most {limit:g} % is allowed", waits=waits))
        elif found > limit:
            detail = f"{resource} pressure at {found:g} % of the last minute; at most {limit:g} % is allowed"
            verdicts.append(Wait("pressure", detail, _RETRY_S))
    return verdicts


def _judge_available(found: int | None, least: int, *, waits: bool) -> Verdict:
    if not least:
        return Ready("no limit is set")
    if found is None:
        return unknown(f"available memory cannot be read; at least {least} B are needed", waits=waits)
    detail = f"{found} B of memory available; {least} B are needed"
    return Ready(detail) if found >= least else Wait("memory_low", detail)


def read_memory(proc: Path, resources: Sequence[str]) -> Memory:
    """Read ``<proc>/meminfo`` and ``<proc>/pressure/*``. Blocking."""
    available = re.search(r"^MemAvailable:\s+(\d+) kB$", kernel_text(proc / "meminfo"), re.MULTILINE)
    return Memory(
        int(available[1]) * 1024 if available else None,
        {resource: _average(kernel_text(proc / "pressure" / resource)) for resource in resources},
    )


def _average(text: str) -> float | None:
    found = re.search(r"^some .*\bavg60=(\d{1,3}(?:\.\d+)?)\b", text, re.MULTILINE)
    return float(found[1]) if found else None
