"""Files that only their owner may read, from the first byte on: new ones, replaced ones, locks. Blocking."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from orchestrator.durable import replace_durably
from orchestrator.errors import ConflictError, NotAllowedError, OperationError


def write_private(path: Path, data: bytes) -> None:
    """Write a new file; durable when it returns.

    Raises:
        ConflictError: The file exists; a secret is never overwritten.
        OperationError: It cannot be written.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "wb") as out:
            out.write(data)
            out.flush()
            os.fsync(out.fileno())
    except FileExistsError as error:
        raise ConflictError(f"{path}: exists already; a secret is never overwritten") from error
    except OSError as error:
        raise OperationError(f"{path}: cannot be written: {error.strerror or error}") from error


def replace_private(path: Path, data: bytes) -> None:
    """Replace a file; after a power cut either the old or the new one is there, durable when this returns.

    Raises:
        OperationError: It cannot be written; the former one stays.
    """
    try:
        replace_durably(path, data, 0o600)
    except OSError as error:
        raise OperationError(f"{path}: {error.strerror}; it stays as it was until it can be written") from error


@contextlib.contextmanager
def hold_lock(path: Path, taken: str) -> Iterator[None]:
    """Hold a lock for the length of the block; the kernel lets go when the process ends, however it ends.

    Args:
        taken: The sentence for whoever comes second.

    Raises:
        ConflictError: Another process holds it.
        NotAllowedError: The file cannot be opened.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise NotAllowedError(f"{path}: cannot be opened: {error.strerror}") from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConflictError(taken) from error
        yield
    finally:
        os.close(descriptor)
