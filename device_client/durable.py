"""Files that survive a power cut: write beside, fsync, rename, fsync the directory.

Measured on ext4 with cuts at every system call: without the fsync of the directory a rename that was reported as done
is lost; without the fsync of the file an empty one takes the place of the old.
All functions block; call them in a thread.
"""

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from device_client.errors import NotAllowedError, NotFoundError, StorageError

_BLOCK_BYTES = 2**20
_LIBC = ctypes.CDLL(None, use_errno=True)


def write_durably(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Replace ``path`` by ``data``; afterwards it is on the disk, and before that the old content was whole.

    Raises:
        NotAllowedError: This user may not write there.
        StorageError: The disk is full or broken.
    """
    beside = path.with_name(f".{path.name}.new")
    with explained(path, "written"):
        beside.unlink(missing_ok=True)
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
        try:
            write_all(descriptor, data)
            os.fchmod(descriptor, mode)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        beside.rename(path)
        sync_directory(path.parent)


def read_capped(path: Path, max_bytes: int) -> bytes:
    """The content of a file that is at most ``max_bytes`` long.

    Raises:
        NotFoundError: It does not exist.
        NotAllowedError: This user may not read it.
        StorageError: It is too long or unreadable.
    """
    blocks, left = [], max_bytes + 1
    with explained(path, "read"), path.open("rb") as file:
        # Block by block: asked for all that is allowed, Python makes room for it before it knows how much is there.
        while left and (block := file.read(min(_BLOCK_BYTES, left))):
            blocks.append(block)
            left -= len(block)
    data = b"".join(blocks)
    if len(data) > max_bytes:
        raise StorageError(f"{path}: expected at most {max_bytes} B, found more")
    return data


def make_directory(path: Path, mode: int = 0o755) -> None:
    """Create a directory and its parents, and make the entry durable; an existing one stays as it is."""
    if path.is_dir():
        return
    with explained(path, "made"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir(mode=mode, exist_ok=True)
        sync_directory(path.parent)


def switch_link(link: Path, target: str) -> None:
    """Point the symbolic link ``link`` at ``target`` in one step; afterwards it is on the disk.

    Raises:
        StorageError: The link cannot be made.
    """
    beside = link.with_name(f".{link.name}.new")
    with explained(link, "switched"):
        beside.unlink(missing_ok=True)
        beside.symlink_to(target)
        beside.rename(link)
        sync_directory(link.parent)


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(path: Path) -> None:
    """Make everything below ``path``, a file or a directory, durable: syncfs, else fsync one by one."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        if _LIBC.syncfs(descriptor) == 0:
            return
    except AttributeError:  # a libc without syncfs
        pass
    finally:
        os.close(descriptor)
    sync_each(path)


def sync_each(path: Path) -> None:
    """Fsync every file and directory below ``path``, leaves first."""
    if not path.is_dir():
        _sync_file(path)
        return
    for folder, _folders, files in os.walk(path, topdown=False):
        for file in (Path(folder, name) for name in files):
            if not file.is_symlink():
                _sync_file(file)
        sync_directory(Path(folder))


def write_all(descriptor: int, data: bytes | memoryview) -> None:
    """Write every byte; ``os.write`` may take fewer."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


@contextmanager
def explained(path: Path, verb: str) -> Iterator[None]:
    """Turn an OSError into one sentence that names the file: "cannot be <verb>"."""
    try:
        yield
    except FileNotFoundError as error:
        raise NotFoundError(f"{path}: cannot be {verb}: it does not exist") from error
    except PermissionError as error:
        raise NotAllowedError(f"{path}: cannot be {verb} by this user; check its owner and mode") from error
    except OSError as error:
        raise StorageError(f"{path}: cannot be {verb}: {error.strerror or error}") from error


def _sync_file(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
