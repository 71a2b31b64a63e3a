"""Row: bytes to fetch for a real new version, of the version's size, beside other ways of delta.

Ours is ciphertext and sealed manifest: all chunks; A, those whose plain bytes the old version lacks; B, each of these
as a delta where that is smaller; levels as ``release create`` has them. Sizes
do not vary between runs, so each is taken once.
"""

import asyncio
import importlib
import importlib.util
import os
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.delivery.pair_inputs import Pair, make_pairs
from benchmarks.delivery.pair_peers import PEERS, peer_bytes
from orchestrator.publisher.packing import Packed, pack
from protocol.chunks import TAG_BYTES
from protocol.encryption import seal_manifest
from protocol.manifest import Artifact, Manifest

CACHE = Path(os.environ.get("FLAGSHIP_BENCH_CACHE", Path.home() / ".cache" / "flagship-bench"))
DELTAS = "orchestrator.publisher.deltas"
_SECRET = bytes(32)


@dataclass(frozen=True, slots=True)
class Ours:
    """Bytes that a device fetches, the sealed manifest included."""

    full: int
    copied: int
    delta: int | None
    sealed: int


async def measure(rounds: int, names: tuple[str, ...] = ()) -> dict[str, Any]:
    """All pairs, or those that are named."""
    del rounds
    return await asyncio.to_thread(_measure, names)


def _measure(names: tuple[str, ...]) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="fs-pairs-") as place:
        pairs = [pair for pair in make_pairs(CACHE / "packages", Path(place)) if not names or pair.name in names]
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            jobs = {(pair.name, peer): pool.submit(peer_bytes, pair, peer) for pair in pairs for peer in PEERS}
            peers = {key: job.result() for key, job in jobs.items()}
        return {"pairs": [_row(pair, peers) for pair in pairs]}


def _row(pair: Pair, peers: dict[tuple[str, str], int]) -> dict[str, Any]:
    ours, size = our_bytes(pair), pair.new.stat().st_size
    columns = {"full": ours.full, "a": ours.copied, "b": ours.delta, "sealed": ours.sealed}
    columns |= {peer: peers[pair.name, peer] for peer in PEERS}
    return {
        "name": pair.name,
        "is_image": pair.is_image,
        "versions": pair.versions,
        "size_bytes": size,
        "of_size": {name: None if count is None else round(count / size, 5) for name, count in columns.items()},
    }


def our_bytes(pair: Pair) -> Ours:
    """Pack both versions, and count what a device that runs the old one lacks of the new."""
    old = pack(pair.old, "app", _SECRET, _nowhere).artifact
    new = pack(pair.new, "app", _SECRET, _nowhere).artifact
    known = {row[0] for row in old.chunks}
    sealed = _sealed_bytes(new)
    full = {row[1]: row[5] + TAG_BYTES for row in new.chunks}
    lacking = {row[1]: row[5] + TAG_BYTES for row in new.chunks if row[0] not in known}
    delta, with_deltas = _delta_bytes(pair, known) if importlib.util.find_spec(DELTAS) else (None, sealed)
    return Ours(sum(full.values()) + sealed, sum(lacking.values()) + sealed, delta, with_deltas)


def _delta_bytes(pair: Pair, known: set[str]) -> tuple[int, int]:
    pack_with_deltas: Callable[..., Packed] = importlib.import_module(DELTAS).pack_with_deltas
    artifact: Any = pack_with_deltas(pair.new, [pair.old], "app", _SECRET, _nowhere).artifact
    shorter = {row[0]: row for base in artifact.deltas for row in base.rows}
    wanted: dict[str, int] = {}
    for index, row in enumerate(artifact.chunks):
        if row[0] not in known and row[1] not in wanted:
            delta = shorter.get(index)
            wanted[row[1]] = (delta[3] if delta else row[5]) + TAG_BYTES
    sealed = _sealed_bytes(artifact)
    return sum(wanted.values()) + sealed, sealed


def _sealed_bytes(artifact: Artifact) -> int:
    return len(seal_manifest(Manifest(product="gateway", version="1.0.0", artifacts=[artifact]).to_json())[1])


def _nowhere(_cid: str, _ciphertext: bytes) -> None:
    """Only sizes are wanted."""
