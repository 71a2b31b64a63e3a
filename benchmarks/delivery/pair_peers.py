"""What other ways fetch for a version pair, in bytes: each with its own programs and its best settings."""

import hashlib
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from backports import zstd

from benchmarks.delivery.pair_inputs import Pair

BLOCK = 4096
TIMEOUT_S = 900.0
LEVEL = 19


def patch_from(pair: Pair, place: Path) -> int:
    """``zstd -19 --patch-from --long=31``."""
    out = place / "patch.zst"
    _run("zstd", "-q", "-f", f"-{LEVEL}", "--long=31", f"--patch-from={pair.old}", str(pair.new), "-o", str(out))
    return out.stat().st_size


def xdelta3(pair: Pair, place: Path) -> int:
    """``xdelta3 -9``, with a source window that holds the whole old file."""
    out = place / "patch.xdelta"
    _run("xdelta3", "-e", "-9", "-f", "-B", "268435456", "-s", str(pair.old), str(pair.new), str(out))
    return out.stat().st_size


def casync(pair: Pair, place: Path) -> int:
    """Its own chunks, 64 KiB on average, compressed: the new ones, and the index."""
    store, index = place / "store", place / "index.caibx"
    sizes = []
    for file in (pair.old, pair.new):
        _run("casync", "make", f"--store={store}", str(index), str(file))
        sizes.append(sum(path.stat().st_size for path in store.rglob("*.cacnk")))
    return sizes[1] - sizes[0] + index.stat().st_size


def blocks(pair: Pair, place: Path) -> int:
    """Blocks of 4 KiB that the old file lacks, put together and compressed; and 32 B of index for each block."""
    del place
    known = {hashlib.sha256(block).digest() for block in _blocks(pair.old)}
    missing, count = bytearray(), 0
    for block in _blocks(pair.new):
        count += 1
        digest = hashlib.sha256(block).digest()
        if digest not in known:
            known.add(digest)
            missing += block
    return len(zstd.compress(bytes(missing), LEVEL)) + 32 * count


PEERS: Mapping[str, Callable[[Pair, Path], int]] = {
    "patch_from": patch_from,
    "xdelta3": xdelta3,
    "casync": casync,
    "blocks": blocks,
}


def peer_bytes(pair: Pair, name: str) -> int:
    """Bytes that this peer fetches. Blocking."""
    with tempfile.TemporaryDirectory(prefix="fs-pair-") as place:
        return PEERS[name](pair, Path(place))


def _blocks(path: Path) -> list[bytes]:
    data = path.read_bytes()
    return [data[at : at + BLOCK] for at in range(0, len(data), BLOCK)]


def _run(*words: str) -> None:
    if shutil.which(words[0]) is None:
        raise RuntimeError(f"{words[0]} is not installed; run benchmarks/delivery/setup.sh")
    done = subprocess.run(words, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(words[:3])} ended with {done.returncode}: {done.stderr.strip()[-500:]}")
