"""Replacing a small file so that after a power cut either the old or the new one is there. Blocking."""

import os
from pathlib import Path

from orchestrator.errors import OperationError


def replace_durably(path: Path, data: bytes) -> None:
    """Replace the file; readable by its owner alone, durable when this returns.

    Raises:
        OperationError: It cannot be written; the former one stays.
    """
    temporary = path.with_suffix(".new")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as out:
            out.write(data)
            out.flush()
            os.fsync(out.fileno())
        temporary.replace(path)
        directory = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    except OSError as error:
        raise OperationError(f"{path}: {error.strerror}; nothing is signed until it can be written") from error
