"""Row: the most memory that an agent ever had, for small and large images, fetched in full and as a delta.

The figure is the process' VmHWM when its update is done. What the manifest alone takes of it, parsed and in the form
that a download uses, is measured apart for the largest image: it is the part that grows with the image.
"""

import asyncio
import gc
import tempfile
import tracemalloc
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks import agent_memory
from benchmarks.delivery.results import samples
from device_client.download.store import ArtifactStore
from orchestrator.publisher.packing import pack
from protocol.encryption import open_manifest, seal_manifest
from protocol.manifest import Manifest

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
    return {"agents": rows, "manifest_mb": round(await asyncio.to_thread(_manifest_mb, max(sizes_mb)), 1)}


def _manifest_mb(size_mb: int) -> float:
    with tempfile.TemporaryDirectory(prefix="fs-peak-") as name:
        place = Path(name)
        agent_memory.make_image(place / "image", size_mb)
        artifact = pack(place / "image", "app", bytes(32), lambda _cid, _data: None).artifact
        manifest = Manifest(product="gateway", version="1.1.0", artifacts=[artifact])
        key, sealed = seal_manifest(manifest.to_json())
        del artifact, manifest
        gc.collect()
        tracemalloc.start()
        try:
            opened = Manifest.from_json(open_manifest(key, sealed)).artifacts[0]
            ArtifactStore(place, opened).close()
            return tracemalloc.get_traced_memory()[1] / 1e6
        finally:
            tracemalloc.stop()
