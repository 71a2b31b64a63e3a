"""Is the machine busy? The load of the last minute for each processor."""

import asyncio
import os
import re
from pathlib import Path

from device_client.gates.gate import GateContext, Ready, Verdict, Wait, unknown
from device_client.kernel_files import kernel_text

_RETRY_S = 60.0
"""The average is over a minute."""


class LoadGate:
    """Open while the load is not above the limit, if there is one."""

    name = "load"

    def __init__(self, proc: Path, max_per_core: float | None, *, waits: bool) -> None:
        """Watch ``<proc>/loadavg``; ``waits``: what cannot be read keeps it shut."""
        self._proc = proc
        self._max_per_core = max_per_core
        self._waits = waits

    async def judge(self, _context: GateContext) -> Verdict:
        """Judge the load as it is now."""
        if self._max_per_core is None:
            return Ready("no limit is set")
        load = await asyncio.to_thread(read_load, self._proc)
        return judge(load, os.cpu_count() or 1, self._max_per_core, waits=self._waits)


def judge(load: float | None, cores: int, max_per_core: float, *, waits: bool) -> Verdict:
    """Pure: the load is divided among the processors."""
    if load is None:
        return unknown(f"the load cannot be read; at most {max_per_core:g} per core is allowed", waits=waits)
    found = load / cores
    detail = f"load of {found:.2f} per core; at most {max_per_core:g} is allowed"
    return Ready(detail) if found <= max_per_core else Wait("busy_machine", detail, _RETRY_S)


def read_load(proc: Path) -> float | None:
    """The average of the last minute; None where it cannot be read. Blocking."""
    found = re.match(r"\d{1,9}\.\d+\b", kernel_text(proc / "loadavg"))
    return float(found[0]) if found else None
