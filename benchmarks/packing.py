"""How fast is packing on one core, and where does the time go?

    python benchmarks/packing.py [--size-mb 200] [--json benchmarks/results/packing.json]

The image is the machine's Python standard library, several times over, each time with its bytes permuted: as many small
files and as compressible as the real one, and no two copies share a chunk. All figures are CPU time of one thread, the
best of three runs. A step's time is that of its calls alone, over the same pieces; what is left is our own Python.
"""

import argparse
import hashlib
import hmac
import json
import os
import platform
import random
import shutil
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from orchestrator.package import CHUNK
from orchestrator.package_writer import PackageWriter
from orchestrator.publisher.packing import LEVEL, chunker, pack_source
from orchestrator.publisher.sources import Source, SourceStream, scan
from protocol.encryption import make_body

GOAL_MB_S = 60.0
GOAL_OWN_SHARE = 0.20
RUNS = 3
_KEY = b"k" * 32
_SKIPPED = ("__pycache__", "site-packages")


@dataclass(frozen=True, slots=True)
class Result:
    """Figures of one run; shares are of all CPU time."""

    image_bytes: int
    files: int
    chunks: int
    chunk_bytes: int
    cpu_s: float
    mb_per_s_per_core: float
    shares: dict[str, float]
    goals_met: bool


def make_image(target: Path, size_bytes: int) -> None:
    """Copies of the standard library with permuted bytes, until there are ``size_bytes``."""
    source = Path(sysconfig.get_paths()["stdlib"])
    files = [
        path
        for path in sorted(source.rglob("*"))
        if path.is_file() and not path.is_symlink() and not set(path.parts) & set(_SKIPPED)
    ]
    made, copy = 0, 0
    while made < size_bytes:
        table = list(range(256))
        random.Random(copy).shuffle(table)
        permutation = bytes(table)
        for path in files:
            place = target / f"copy{copy}" / path.relative_to(source)
            place.parent.mkdir(parents=True, exist_ok=True)
            data = path.read_bytes().translate(permutation)
            place.write_bytes(data)
            made += len(data)
            if made >= size_bytes:
                return
        copy += 1


def measure(image: Path, scratch: Path) -> Result:
    """Pack ``image`` into a package and take the time apart."""
    source = scan(image)
    chunks, bodies = _pieces(source)
    output = scratch / "image.package"
    steps: dict[str, Callable[[], int]] = {
        "total": lambda: _pack(image, output),
        "read": lambda: _read(image),
        "write": lambda: _write(bodies, scratch / "raw"),
        "fastcdc": lambda: _cut(chunks),
        "sha256": lambda: _hash(source, chunks, bodies),
        "zstd": lambda: _compress(chunks),
        "aes-gcm and hmac": lambda: _encrypt(bodies),
    }
    best = dict.fromkeys(steps, float("inf"))
    for _ in range(RUNS):  # in turns, so that a busy spell of the machine does not hit one step alone
        for name, step in steps.items():
            start = time.thread_time()
            step()
            best[name] = min(best[name], time.thread_time() - start)
    total = best.pop("total")
    best["own python"] = max(0.0, total - sum(best.values()))
    shares = {name: round(seconds / total, 4) for name, seconds in best.items()}
    rate = source.length / total / 1e6
    return Result(
        image_bytes=source.length,
        files=len(source.files),
        chunks=len(chunks),
        chunk_bytes=_pack(image, output),
        cpu_s=round(total, 3),
        mb_per_s_per_core=round(rate, 1),
        shares=shares,
        goals_met=rate >= GOAL_MB_S and shares["own python"] <= GOAL_OWN_SHARE,
    )


def write_result(result: Result, path: Path) -> None:
    """The figures and the machine they were taken on, as JSON."""
    machine = {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "system": platform.platform(),
        "python": platform.python_version(),
    }
    goals = {"mb_per_s_per_core": GOAL_MB_S, "own_python_share": GOAL_OWN_SHARE}
    data = {
        "benchmark": "packing",
        "taken_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine,
        "zstd_level": LEVEL,
        "goals": goals,
        "result": asdict(result),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data, indent=2) + "\n")


def main() -> int:
    """Measure, print the table, write the JSON file."""
    parser = argparse.ArgumentParser(description="Measure packing on one core.")
    parser.add_argument("--size-mb", type=int, default=200)
    parser.add_argument("--json", type=Path, default=Path(__file__).parent / "results" / "packing.json")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="flagship-packing-") as folder:
        image, scratch = Path(folder) / "image", Path(folder) / "scratch"
        scratch.mkdir()
        make_image(image, arguments.size_mb * 1_000_000)
        result = measure(image, scratch)
        shutil.rmtree(image)
    write_result(result, arguments.json)
    print(f"{_processor()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    print(f"image        {result.image_bytes / 1e6:8.1f} MB in {result.files} files, {result.chunks} chunks")
    print(f"ciphertext   {result.chunk_bytes / 1e6:8.1f} MB")
    print(f"CPU          {result.cpu_s:8.2f} s")
    print(f"rate         {result.mb_per_s_per_core:8.1f} MB/s per core   goal {GOAL_MB_S:g}")
    for name, share in sorted(result.shares.items(), key=lambda item: -item[1]):
        goal = f"   goal {GOAL_OWN_SHARE:.0%}" if name == "own python" else ""
        print(f"  {name:18} {share:6.1%}{goal}")
    return 0 if result.goals_met else 1


def _pack(image: Path, output: Path) -> int:
    output.unlink(missing_ok=True)
    with PackageWriter(output) as package:
        packed = pack_source(scan(image), "app", _KEY, lambda cid, data: package.add(CHUNK + cid, data))
        size = package.size_bytes
    packed.artifact.model_dump_json()
    return size


def _pieces(source: Source) -> tuple[list[bytes], list[bytes]]:
    stream = SourceStream(source)
    chunks = [bytes(chunk.data) for chunk in chunker().cut_stream(stream)]
    return chunks, [make_body(chunk, LEVEL)[1] for chunk in chunks]


def _walk(folder: str) -> Iterator[str]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from _walk(entry.path)
            else:
                entry.stat(follow_symlinks=False)
                yield entry.path


def _read(image: Path) -> int:
    buffer = memoryview(bytearray(2**19))
    total = 0
    for path in _walk(str(image)):
        descriptor = os.open(path, os.O_RDONLY)
        os.fstat(descriptor)
        while count := os.readv(descriptor, [buffer]):
            total += count
        os.close(descriptor)
    return total


def _write(bodies: list[bytes], path: Path) -> int:
    path.unlink(missing_ok=True)
    with path.open("wb", buffering=2**20) as out:
        for body in bodies:
            out.write(body)
        out.flush()
        os.fsync(out.fileno())
    return 0


def _cut(chunks: list[bytes]) -> int:
    parts = iter(chunks)
    left = b""

    def readinto(view: memoryview) -> int:
        nonlocal left
        left = left or next(parts, b"")
        count = min(len(view), len(left))
        view[:count] = left[:count]
        left = left[count:]
        return count

    stream = _Readable(readinto)
    return sum(1 for _ in chunker().cut_stream(stream))


@dataclass(frozen=True, slots=True)
class _Readable:
    readinto: Callable[[memoryview], int]


def _hash(source: Source, chunks: list[bytes], bodies: list[bytes]) -> int:
    whole = hashlib.sha256()
    for file in source.files:  # the same lengths as the files; which bytes does not matter to a hash's speed
        left, part = file.length, hashlib.sha256()
        while left > 0:
            block = chunks[0][:left] if left < len(chunks[0]) else chunks[0]
            part.update(block)
            left -= len(block)
        part.hexdigest()
    for chunk in chunks:
        whole.update(chunk)
        hashlib.sha256(chunk).digest()
    for body in bodies:
        hashlib.sha256(body).digest()  # of the body, for its key
        hashlib.sha256(body).digest()  # of the ciphertext, for its id
    return 0


def _compress(chunks: list[bytes]) -> int:
    return sum(len(make_body(chunk, LEVEL)[1]) for chunk in chunks)


def _encrypt(bodies: list[bytes]) -> int:
    total = 0
    for body in bodies:
        key = hmac.digest(_KEY, body[:60], "sha256")
        total += len(AESGCM(key).encrypt(b"\0" * 12, body, None))
    return total


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


if __name__ == "__main__":
    sys.exit(main())
