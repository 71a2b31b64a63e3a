"""A file in ``staging/`` that is filled in any order, and what may be wrong with the disk below it."""

import errno
import hashlib
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from device_client.durable import sync_directory
from protocol.errors import ContentError, ErrorCode

_BLOCK = 2**20


class Stage:
    """A sparse file of a known length.

    A cancelled download leaves its thread running for a moment; the lock keeps it from writing to a descriptor that was
    closed and is someone else's by now.
    """

    def __init__(self, path: Path, length: int) -> None:
        self.path = path
        self.length = length
        self._lock = threading.Lock()
        self._descriptor = -1
        with explained(path):
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            found = os.fstat(self._descriptor).st_size
            self.is_new = found == 0
            if found != length:
                os.ftruncate(self._descriptor, length)

    def read(self, offset: int, length: int) -> bytes:
        """``length`` bytes; zeros where nothing was written yet."""
        with explained(self.path), self._lock:
            return os.pread(self._opened(), length, offset)

    def write(self, offset: int, data: bytes) -> None:
        """Put bytes at their place; not durable before ``sync``."""
        with explained(self.path), self._lock:
            view = memoryview(data)
            while view:
                written = os.pwrite(self._opened(), view, offset)
                view, offset = view[written:], offset + written

    def sync(self) -> None:
        """Make the content and the name durable."""
        with explained(self.path), self._lock:
            os.fsync(self._opened())
            sync_directory(self.path.parent)

    def sha256(self) -> str:
        """Hash of the whole, in hex, read in blocks."""
        digest = hashlib.sha256()
        for offset in range(0, self.length, _BLOCK):
            digest.update(self.read(offset, min(_BLOCK, self.length - offset)))
        return digest.hexdigest()

    def close(self) -> None:
        """Close the file; what is in it stays."""
        with self._lock:
            if self._descriptor >= 0:
                os.close(self._descriptor)
                self._descriptor = -1

    def __del__(self) -> None:
        # A download that is cancelled while a thread opens its stage leaves it to nobody.
        self.close()

    def _opened(self) -> int:
        if self._descriptor < 0:
            raise ValueError(f"{self.path} is closed")
        return self._descriptor


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn an OSError into E_SPACE with one sentence."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise ContentError(
                ErrorCode.SPACE, f"{path.parent}: the disk is full; free some space and retry the device"
            ) from error
        raise ContentError(ErrorCode.SPACE, f"{path}: cannot be read or written: {error.strerror or error}") from error
