"""Replacing files so that a power cut leaves the old one or the new one: write beside, fsync, rename, fsync the folder.

Blocking. What goes wrong is raised as OSError: only the caller knows what it means.
"""

import contextlib
import os
from pathlib import Path


def replace_durably(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Put ``data`` in the place of a file; durable when this returns.

    Raises:
        OSError: It cannot be written; the former one stays, and nothing is left beside it.
    """
    beside = path.with_name(f".{path.name}.new")
    try:
        with contextlib.suppress(FileNotFoundError):
            beside.unlink()  # of a run that was cut off; its mode may be another
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
        with os.fdopen(descriptor, "wb") as out:
            out.write(data)
            out.flush()
            os.fsync(out.fileno())
        beside.replace(path)
        sync_folder(path.parent)
    except OSError:
        with contextlib.suppress(OSError):
            beside.unlink()
        raise


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable.

    Raises:
        OSError: It cannot be.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
