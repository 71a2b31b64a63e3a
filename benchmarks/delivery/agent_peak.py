"""Row: the most memory that an agent ever had, for small and large images, fetched in full and as a delta."""

from importlib.util import find_spec
from typing import Any

from benchmarks import agent_memory
from benchmarks.delivery.results import samples

SIZES_MB = (50, 500)
DELTAS = "orchestrator.publisher.deltas"


async def measure(rounds: int, sizes_mb: tuple[int, ...] = SIZES_MB) -> dict[str, Any]:
    """Each size in each way."""
    found: dict[tuple[bool, int], list[float]] = {}
    for _ in range(rounds):
        for delta in (False, True) if find_spec(DELTAS) else (False,):
            for size in sizes_mb:
                peak = await agent_memory.measure(size, delta=delta)
                found.setdefault((delta, size), []).append(peak)
    rows = [
        {"image_mb": size, "delta": delta, "vm_hwm_mb": samples(peaks, 1)} for (delta, size), peaks in found.items()
    ]
    return {"agents": rows}
