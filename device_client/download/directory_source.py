"""Chunks from a directory that may appear and vanish: a USB stick that holds what ``flagship release export`` wrote.

Who wrote it is unknown: links are not followed, what is no regular file is not opened for long, sizes are looked at
before a byte is read. What a chunk must be, the store judges.
"""

import asyncio
import errno
import os
import stat
import threading
from collections.abc import Sequence
from pathlib import Path

import structlog

from device_client.download.sources import Collected
from protocol.chunks import MAX_CIPHERTEXT_BYTES
from protocol.identifiers import check_digest

log = structlog.get_logger(__name__)

CHUNKS = "chunks"
MAX_AT_WORK = 2
"""Windows that are read at the same time; a medium that hangs holds no more threads than these."""
_ABSENT = {errno.ENOENT, errno.ELOOP, errno.EACCES, errno.EPERM, errno.ENXIO, errno.EISDIR, errno.ENAMETOOLONG}
"""What is wrong with one file, not with the medium; ELOOP: it is a symbolic link."""


class _Window:
    """What one thread has read so far; it stops at the next chunk when nobody waits any more."""

    def __init__(self) -> None:
        self.chunks: dict[str, bytes] = {}
        self.looked_at = 0
        self.gone = ""
        self.over = threading.Event()


class DirectorySource:
    """``{path}/chunks/{cid}``; ``path`` may itself be a link of the device's owner."""

    def __init__(self, path: Path, look_again_s: float = 2.0) -> None:
        """Name the place; ``look_again_s`` is how often it is looked for while it is absent."""
        self._path = path
        self._look_again_s = look_again_s
        self._at_work = 0

    @property
    def name(self) -> str:
        """The directory."""
        return str(self._path)

    @property
    def is_ready(self) -> bool:
        """Whether the medium is there and answers."""
        return not self.trouble

    @property
    def trouble(self) -> str:
        """Why it is not ready."""
        if self._at_work >= MAX_AT_WORK:
            return f"{self._path}: does not answer"
        try:
            found = os.lstat(self._path / CHUNKS)
        except OSError:
            return f"{self._path / CHUNKS}: not there"
        return "" if stat.S_ISDIR(found.st_mode) else f"{self._path / CHUNKS}: expected a directory"

    async def ready(self) -> None:
        """Wait until it appears."""
        while True:
            if self.is_ready:
                return
            await asyncio.sleep(self._look_again_s)

    async def collect(self, cids: Sequence[str], silence_s: float) -> Collected:
        """Read the chunks in a thread; see ``ChunkSource.collect``."""
        if not self.is_ready:
            return Collected({}, gone=True)
        window = _Window()
        reading = asyncio.ensure_future(asyncio.to_thread(self._read_all, list(cids), window))
        self._at_work += 1
        reading.add_done_callback(self._ended)
        try:
            looked_at = -1
            while not reading.done() and looked_at != window.looked_at:
                looked_at = window.looked_at
                await asyncio.wait({reading}, timeout=silence_s)
        finally:
            window.over.set()
        if window.gone:
            log.info("medium gone", source=self.name, why=window.gone)
        # A copy: a thread that hangs may still add one.
        return Collected(dict(window.chunks), gone=bool(window.gone))

    async def release(self) -> None:
        """Nothing is held."""

    def _ended(self, reading: "asyncio.Future[None]") -> None:
        self._at_work -= 1
        if not reading.cancelled() and (error := reading.exception()):
            log.error("medium not read", source=self.name, why=type(error).__name__)

    def _read_all(self, cids: Sequence[str], window: _Window) -> None:
        try:
            folder = os.open(self._path / CHUNKS, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError as error:
            window.gone = os.strerror(error.errno or 0)
            return
        try:
            for cid in cids:
                if window.over.is_set():
                    return
                data = _read(folder, check_digest(cid))
                if data:
                    window.chunks[cid] = data
                window.looked_at += 1
            if len(window.chunks) < len(cids) and not _is_still(self._path / CHUNKS, folder):
                window.gone = "it was taken away"
        except OSError as error:
            window.gone = os.strerror(error.errno or 0)
        finally:
            os.close(folder)


def _read(folder: int, cid: str) -> bytes:
    """One chunk; empty where it is not there or is nothing that a chunk can be. OSError: the medium is gone."""
    try:
        # Without O_NONBLOCK a FIFO under a chunk's name would hold this thread for ever.
        descriptor = os.open(cid, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    except OSError as error:
        if error.errno in _ABSENT:
            return b""
        raise
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or not 0 < found.st_size <= MAX_CIPHERTEXT_BYTES:
            return b""
        blocks, left = [], found.st_size
        while left and (block := os.read(descriptor, left)):
            blocks.append(block)
            left -= len(block)
        return b"".join(blocks)
    finally:
        os.close(descriptor)


def _is_still(path: Path, folder: int) -> bool:
    """Whether a path still leads to the directory that was opened."""
    try:
        return os.path.samestat(os.lstat(path), os.fstat(folder))
    except OSError:
        return False
