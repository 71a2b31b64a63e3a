"""New files that only their owner may read, from the first byte on. Blocking."""

import os
from pathlib import Path

from orchestrator.errors import ConflictError, OperationError


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
