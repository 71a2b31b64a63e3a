"""Shorter ways to the chunks that a former version lacks: each as a delta against a range of that version.

    new chunk, not in the old stream -> place predicted -> range of the old stream -> zstd delta -> encrypt -> sink

A device checks the range by its hash before it asks for a delta and the chunk by its plain hash afterwards, so a delta
decides nothing but how many bytes are fetched. zstd lets go of the interpreter's lock, so threads use all cores.
"""

import base64
import hashlib
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from orchestrator.errors import OperationError
from orchestrator.publisher.old_streams import OldStream, RangeReader, anchors
from orchestrator.publisher.packing import LEVEL, Packed, Sink, pack_source
from orchestrator.publisher.sources import Source, scan
from protocol.chunks import MAX_BASES, MIN_BASE_BYTES, ChunkRef, Codec
from protocol.encryption import encrypt_body, make_delta
from protocol.manifest import DeltaSet

DELTA_LEVEL = 19
"""zstd level of deltas: 0.5 to 0.9 MB/s of changed data on one core; 12 is five times as fast and 13 % larger."""
ROW_BYTES = 105
"""What a delta costs in the sealed manifest: three hashes and some numbers."""
_AHEAD = 4
"""Deltas in the making or waiting to be written, for each core."""

_Row = tuple[int, str, str, int, int, int, str]
Progress = Callable[[int, int], None]
"""Told of the plain bytes that were tried, and of all that there are to try."""


def tell_nobody(_done: int, _total: int) -> None:
    """For callers who show nothing."""


@dataclass(frozen=True, slots=True)
class _Job:
    index: int
    ref: ChunkRef
    old: OldStream
    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class _Made:
    body: bytes
    base_sha256: bytes


def pack_with_deltas(
    path: Path,
    olds: Sequence[Path],
    component: str,
    secret: bytes,
    sink: Sink,
    *,
    level: int = LEVEL,
    delta_level: int = DELTA_LEVEL,
    progress: Progress = tell_nobody,
) -> Packed:
    """Pack what lies at ``path`` with deltas against former versions; see ``packing.pack`` and ``add_deltas``."""
    source = scan(path)
    packed = pack_source(source, component, secret, sink, level)
    return add_deltas(packed, source, olds, secret, sink, level=delta_level, progress=progress)


def add_deltas(
    packed: Packed,
    source: Source,
    olds: Sequence[Path],
    secret: bytes,
    sink: Sink,
    *,
    level: int = DELTA_LEVEL,
    progress: Progress = tell_nobody,
) -> Packed:
    """Make deltas against each of ``olds`` and keep those that are shorter than the chunk, row included.

    The same versions make the same deltas, whatever the machine.

    Args:
        packed: What was made of ``source``.
        source: Read again, only where a former version lacks a chunk.
        olds: Former versions as they were released, directories or files; at most ``MAX_BASES``.
        secret: The publisher's DK.
        sink: Where ciphertexts go.
        level: zstd level.
        progress: Told after each delta that was tried.

    Raises:
        OperationError: A former version cannot be read, or the source changed meanwhile.
        ValueError: Too many former versions.
    """
    if len(olds) > MAX_BASES:
        raise ValueError(f"deltas: expected at most {MAX_BASES} former versions, found {len(olds)}")
    refs = _distinct(packed)
    digests = {ref.sha256 for _, ref in refs}
    streams = {old.sha256: old for old in (OldStream(path, digests) for path in olds) if old.length >= MIN_BASE_BYTES}
    collected = _Collected(secret, sink, {sha256: [] for sha256 in streams})
    total, done = _bytes_to_try(refs, streams.values()), 0
    reader = RangeReader(source)
    for job, made in _in_order(_jobs(refs, list(streams.values()), reader), level):
        collected.add(job, made)
        done += job.ref.length
        progress(done, total)
    sets = [
        DeltaSet(sha256=sha256, length=streams[sha256].length, rows=rows)
        for sha256, rows in collected.rows.items()
        if rows
    ]
    artifact = packed.artifact.model_copy(update={"deltas": sets})
    return replace(packed, artifact=artifact, delta_chunks=len(collected.cids), delta_bytes=collected.size_bytes)


class _Collected:
    """The deltas that were worth it."""

    def __init__(self, secret: bytes, sink: Sink, rows: dict[str, list[_Row]]) -> None:
        self.rows = rows
        self.cids: set[bytes] = set()
        self.size_bytes = 0
        self._secret = secret
        self._sink = sink

    def add(self, job: _Job, made: _Made) -> None:
        if len(made.body) + ROW_BYTES >= job.ref.body_length:
            return
        cid, key, ciphertext = encrypt_body(self._secret, Codec.DELTA, made.body)
        if cid not in self.cids:  # two chunks may differ from their bases in the same way
            self.cids.add(cid)
            self.size_bytes += len(ciphertext)
            self._sink(cid.hex(), ciphertext)
        base = (job.offset, job.length, _b64(made.base_sha256))
        self.rows[job.old.sha256].append((job.index, _b64(cid), _b64(key), len(made.body), *base))


def _distinct(packed: Packed) -> list[tuple[int, ChunkRef]]:
    first: dict[bytes, tuple[int, ChunkRef]] = {}
    for index, ref in enumerate(packed.artifact.chunk_refs()):
        first.setdefault(ref.sha256, (index, ref))
    return list(first.values())


def _bytes_to_try(refs: Sequence[tuple[int, ChunkRef]], streams: Iterable[OldStream]) -> int:
    return sum(ref.length for old in streams for _, ref in refs if old.place(ref.sha256) is None)


def _jobs(
    refs: Sequence[tuple[int, ChunkRef]], streams: Sequence[OldStream], reader: RangeReader
) -> Iterator[tuple[_Job, bytes]]:
    """What to try, in stream order, with the plain chunk: read once for all bases that lack it."""
    shifts = [0] * len(streams)
    for index, ref in refs:
        plain, found = b"", []
        for number, old in enumerate(streams):
            place = old.place(ref.sha256)
            if place is not None:
                shifts[number] = place - ref.offset
                continue
            if not plain:
                plain = _read_again(reader, ref)
                found = list(anchors(plain))
            shift = old.shift(ref.offset, found)
            if shift is not None:
                shifts[number] = shift
            yield _Job(index, ref, old, *old.window(ref.offset + shifts[number] + ref.length // 2)), plain


def _in_order(jobs: Iterator[tuple[_Job, bytes]], level: int) -> Iterator[tuple[_Job, _Made]]:
    workers = len(os.sched_getaffinity(0))
    waiting: deque[tuple[_Job, Future[_Made]]] = deque()
    pool = ThreadPoolExecutor(workers, thread_name_prefix="delta")
    try:
        for job, plain in jobs:
            waiting.append((job, pool.submit(_make, job, plain, level)))
            if len(waiting) > _AHEAD * workers:
                first, made = waiting.popleft()
                yield first, made.result()
        for job, made in waiting:
            yield job, made.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _make(job: _Job, plain: bytes, level: int) -> _Made:
    base = job.old.read(job.offset, job.length)
    return _Made(make_delta(plain, base, level), hashlib.sha256(base).digest())


def _read_again(reader: RangeReader, ref: ChunkRef) -> bytes:
    plain = reader.read(ref.offset, ref.length)
    if hashlib.sha256(plain).digest() != ref.sha256:
        raise OperationError("source: changed while it was being read; release a copy that nobody writes to")
    return plain


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode()
