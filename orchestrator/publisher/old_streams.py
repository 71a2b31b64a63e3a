"""A former version as it was released: its stream, its chunks, and where something like a new chunk stands in it.

A chunk that is new consists mostly of what the former version had, somewhere near. Where is found by anchors: pieces of
about 1 KiB, cut by content, a quarter of which are remembered by hash. Of the anchors that a new chunk shares with the
former stream the median says how far its content has moved; without any it stands where its neighbour would put it.
"""

import bisect
import hashlib
import os
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from itertools import accumulate
from pathlib import Path

from pyfastcdc import FastCDC

from orchestrator.errors import OperationError
from orchestrator.publisher.packing import chunker
from orchestrator.publisher.sources import Source, SourceStream, scan

BASE_BYTES = 768 * 1024
"""Of the former stream around the place of a chunk. Measured: half as much costs 5 to 10 %, more gains nothing."""
_ANCHOR_BYTES = 1024
_KEPT_OF_ANCHORS = 4


class RangeReader:
    """Reads ranges of a source's stream; from several threads at once."""

    def __init__(self, source: Source) -> None:
        self._files = [file for file in source.files if file.length]
        self._ends = list(accumulate(file.length for file in self._files))

    def read(self, offset: int, length: int) -> bytes:
        """``length`` bytes of the stream from ``offset`` on.

        Raises:
            OperationError: A file became shorter, or cannot be read.
        """
        parts = []
        at = bisect.bisect_right(self._ends, offset)
        while length:
            file = self._files[at]
            inside = offset - (self._ends[at] - file.length)
            count = min(length, file.length - inside)
            parts.append(_read(file.real, inside, count))
            offset, length, at = offset + count, length - count, at + 1
        return b"".join(parts)


class OldStream:
    """What is known of one former version."""

    def __init__(self, path: Path, new_chunks: AbstractSet[bytes]) -> None:
        """Read the former version once.

        Args:
            path: The directory or file, as it was released.
            new_chunks: sha256 of the plain chunks of the new version: what both have needs no anchors.

        Raises:
            OperationError: It is not there, or is nothing that could have been released.
        """
        source = scan(path)
        self.length = source.length
        self._reader = RangeReader(source)
        self._chunks: dict[bytes, int] = {}
        self._anchors: dict[bytes, int] = {}
        stream = SourceStream(source)
        try:
            for chunk in chunker().cut_stream(stream):
                digest = hashlib.sha256(chunk.data).digest()
                self._chunks.setdefault(digest, chunk.offset)
                if digest not in new_chunks:
                    for inside, anchor in anchors(chunk.data):
                        self._anchors.setdefault(anchor, chunk.offset + inside)
        finally:
            stream.close()
        self.sha256 = stream.sha256

    def place(self, sha256: bytes) -> int | None:
        """Where this very chunk stands in the stream; None where it does not."""
        return self._chunks.get(sha256)

    def shift(self, offset: int, anchors: list[tuple[int, bytes]]) -> int | None:
        """How far the content of a new chunk at ``offset`` has moved; None where nothing of it is known."""
        found = [self._anchors[anchor] - offset - inside for inside, anchor in anchors if anchor in self._anchors]
        return sorted(found)[len(found) // 2] if found else None

    def window(self, centre: int) -> tuple[int, int]:
        """Offset and length of the range around ``centre`` that a delta is made against."""
        length = min(BASE_BYTES, self.length)
        return max(0, min(centre - length // 2, self.length - length)), length

    def read(self, offset: int, length: int) -> bytes:
        """A range of the stream; see ``RangeReader.read``."""
        return self._reader.read(offset, length)


def anchors(plain: bytes | memoryview) -> Iterator[tuple[int, bytes]]:
    """The anchors of one chunk: place inside it, and hash."""
    cutter = FastCDC(_ANCHOR_BYTES, min_size=_ANCHOR_BYTES // 4, max_size=_ANCHOR_BYTES * 4)
    for piece in cutter.cut_buf(plain):
        anchor = hashlib.blake2b(piece.data, digest_size=8).digest()
        if anchor[0] % _KEPT_OF_ANCHORS == 0:
            yield piece.offset, anchor


def _read(real: str, offset: int, length: int) -> bytes:
    try:
        descriptor = os.open(real, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            data = os.pread(descriptor, length, offset)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise OperationError(f"{real}: cannot be read: {error.strerror or error}") from error
    if len(data) != length:
        raise OperationError(f"{real}: became shorter while it was being read; use a copy that nobody writes to")
    return data
