"""One agent on one home. The kernel lets go of the lock when the process ends, however it ends."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from device_client.durable import explained
from device_client.errors import ConflictError


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Hold the lock file ``path`` during the block: two agents would install over one another. Does not wait.

    Raises:
        ConflictError: Another agent holds it.
        StorageError: The file cannot be made.
    """
    with explained(path, "locked"):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConflictError(f"{path.parent.parent}: another agent runs on this home; stop it first") from error
        yield
    finally:
        os.close(descriptor)
