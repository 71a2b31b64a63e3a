"""What the device has already: ranges of the streams of versions in place, read back from their files.

The files may have changed since they were installed. What was changed, shortened, removed or replaced by something else
is as good as absent: the answer is None, and the bytes are fetched. Blocking; for several threads at once.
"""

import bisect
import contextlib
import hashlib
import os
import stat
from collections.abc import Iterator, Sequence
from itertools import accumulate
from pathlib import Path

from device_client.installed_stream import InstalledStream
from protocol.chunks import ChunkRef
from protocol.manifest import FileEntry


class Base:
    """The versions in place; of what two of them have, the first one's is read."""

    def __init__(self, streams: Sequence[InstalledStream]) -> None:
        self._streams = [_Stream(stream) for stream in streams]
        self._chunks: dict[bytes, tuple[_Stream, int]] = {}
        self._files: dict[str, tuple[_Stream, int]] = {}
        for stream in self._streams:
            for digest, offset in stream.chunks():
                self._chunks.setdefault(digest, (stream, offset))
            for sha256, offset in stream.files():
                self._files.setdefault(sha256, (stream, offset))

    def has(self, sha256: str) -> bool:
        """Whether one of the streams has this hash, or had it when it was installed."""
        return any(stream.sha256 and stream.sha256 == sha256 for stream in self._streams)

    def read(self, sha256: str, offset: int, length: int) -> bytes | None:
        """A range of the stream with this hash, not verified; None where it cannot be read."""
        found = next((stream for stream in self._streams if stream.sha256 == sha256), None)
        return found.read(offset, length) if found else None

    def copies_of(self, files: Sequence[FileEntry]) -> "Copies":
        """Chunks of a new stream with these files."""
        return Copies(self._chunks, self._files, files)


class Copies:
    """Chunks of one new stream, made of what is in place: by their own hash, or of files that are in place whole."""

    def __init__(
        self,
        chunks: dict[bytes, tuple["_Stream", int]],
        places: dict[str, tuple["_Stream", int]],
        files: Sequence[FileEntry],
    ) -> None:
        self._chunks = chunks
        self._places = places
        self._files = [entry for entry in files if entry.length]
        self._ends = [entry.offset + entry.length for entry in self._files]

    def read(self, ref: ChunkRef) -> bytes | None:
        """The plain bytes of a chunk, verified by its hash; None where they are not there."""
        known = self._chunks.get(ref.sha256)
        if known is not None and (plain := known[0].read(known[1], ref.length)) and _is(plain, ref):
            return plain
        plain = self._of_files(ref)
        return plain if plain is not None and _is(plain, ref) else None

    def _of_files(self, ref: ChunkRef) -> bytes | None:
        wanted = list(self._parts(ref))
        if not wanted or any(place is None for place, _, _ in wanted):
            return None
        parts: list[bytes] = []
        for place, inside, length in wanted:
            assert place is not None
            part = place[0].read(place[1] + inside, length)
            if part is None:
                return None
            parts.append(part)
        return b"".join(parts)

    def _parts(self, ref: ChunkRef) -> Iterator[tuple["tuple[_Stream, int] | None", int, int]]:
        """Per file that the chunk has bytes of: where that file is in place, and which part of it."""
        offset, end = ref.offset, ref.offset + ref.length
        for entry in self._files[bisect.bisect_right(self._ends, offset) :]:
            if offset >= end:
                return
            length = min(end, entry.offset + entry.length) - offset
            yield self._places.get(entry.sha256), offset - entry.offset, length
            offset += length


class _Stream:
    def __init__(self, installed: InstalledStream) -> None:
        self.sha256 = installed.sha256
        self._installed = installed
        self._files = [file for file in installed.files if file[1]]
        self._ends = list(accumulate(length for _, length, _ in self._files))

    def chunks(self) -> Iterator[tuple[bytes, int]]:
        offset = 0
        for sha256, length in self._installed.chunks:
            yield sha256, offset
            offset += length

    def files(self) -> Iterator[tuple[str, int]]:
        for (_, length, sha256), end in zip(self._files, self._ends, strict=True):
            yield sha256, end - length

    def read(self, offset: int, length: int) -> bytes | None:
        if offset < 0 or not self._ends or offset + length > self._ends[-1]:
            return None
        parts: list[bytes] = []
        at = bisect.bisect_right(self._ends, offset)
        while length:
            path, size, _ = self._files[at]
            inside = offset - (self._ends[at] - size)
            count = min(length, size - inside)
            part = _read(self._installed.root / path if path else self._installed.root, size, inside, count)
            if part is None:
                return None
            parts.append(part)
            offset, length, at = offset + count, length - count, at + 1
        return b"".join(parts)


def _is(plain: bytes, ref: ChunkRef) -> bool:
    return len(plain) == ref.length and hashlib.sha256(plain).digest() == ref.sha256


def _read(path: Path, size: int, offset: int, length: int) -> bytes | None:
    with contextlib.suppress(OSError):
        # O_NONBLOCK: should a pipe have taken the file's place, opening it must not wait.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            found = os.fstat(descriptor)
            if stat.S_ISREG(found.st_mode) and found.st_size == size:
                data = os.pread(descriptor, length, offset)
                return data if len(data) == length else None
        finally:
            os.close(descriptor)
    return None
