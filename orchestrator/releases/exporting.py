"""A release as files that any web server, cache or USB stick can hold: ``chunks/{cid}`` and ``trust/{file name}``.

Blocking. A chunk gets its name only when its bytes are proven and on the disk, so that a tree that was cut off in the
middle holds nothing half; the next export goes on from there.
"""

import contextlib
import errno
import hashlib
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, Snapshot, Timestamp

from orchestrator.durable import replace_durably, sync_folder
from orchestrator.errors import ConflictError, NotAllowedError, NotFoundError, OperationError
from orchestrator.storage.chunk_store import MAX_BYTES, ChunkStore

CHUNKS, TRUST = "chunks", "trust"
TIMESTAMP = "timestamp.json"
AT_ONCE = 64
"""Chunks that are written before the first of them is waited for: a disk is slow one by one."""
MAX_TRUST_FILE_BYTES = 1 << 20
_NAME = re.compile(r"^([1-9][0-9]{0,8})\.([A-Za-z0-9_-]+)\.json\Z")
_BESIDE = ".new"


@dataclass(frozen=True, slots=True)
class Exported:
    """What an export did.

    Attributes:
        kept: Chunks that were there already, whole.
    """

    written: int
    written_bytes: int
    kept: int


def export_chunks(
    store: ChunkStore, chunks: Mapping[str, int], directory: Path, on_progress: Callable[[int], None]
) -> Exported:
    """Write the chunks that ``directory/chunks`` lacks or holds damaged; each is proven while it is copied.

    Args:
        chunks: Ciphertext bytes by id.
        on_progress: Told the bytes that were dealt with since the last time.

    Raises:
        NotFoundError: A chunk is not in the store.
        OperationError: The disk is full, or a file cannot be read or written; what is there stays.
    """
    folder = directory / CHUNKS
    written = written_bytes = kept = 0
    with _explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
        _sweep(folder)
    missing: list[str] = []
    for cid, length in chunks.items():
        if _is_whole(folder / cid, cid, length):
            kept += 1
            on_progress(length)
        else:
            missing.append(cid)
    for start in range(0, len(missing), AT_ONCE):
        some = missing[start : start + AT_ONCE]
        _write(store, some, folder)
        size = sum(chunks[cid] for cid in some)
        written, written_bytes = written + len(some), written_bytes + size
        on_progress(size)
    with _explained(folder):
        sync_folder(folder)
        sync_folder(directory)
    return Exported(written, written_bytes, kept)


def export_trust(trust: Path, directory: Path) -> list[str]:
    """Write the metadata that a device needs to judge the releases: every root, and one consistent set of the rest.

    Files of an earlier export that the new set replaces are removed after it is there.

    Returns:
        The names of the files.

    Raises:
        OperationError: The home's metadata is incomplete, or the disk does not take it.
    """
    files = trust_set(trust)
    folder = directory / TRUST
    with _explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
        # The timestamp comes last: whoever finds it finds what it names.
        for name in sorted(files, key=lambda name: name == TIMESTAMP):
            replace_durably(folder / name, files[name])
        for path in folder.iterdir():
            if path.name not in files and _NAME.match(path.name):
                path.unlink()
        sync_folder(folder)
    return sorted(files)


def trust_set(trust: Path) -> dict[str, bytes]:
    """Every root, the timestamp, the snapshot that it names, and what that snapshot names.

    Raises:
        OperationError: Some of it is missing or is no metadata.
    """
    names = {TIMESTAMP} | {path.name for path in _listed(trust) if _role(path.name) == "root"}
    files = {name: _read(trust / name) for name in names}
    if len(files) == 1:
        raise NotFoundError(f"{trust}: holds no root metadata; restore it from a backup")
    try:
        named = Metadata[Timestamp].from_bytes(files[TIMESTAMP]).signed.snapshot_meta.version
        snapshot = f"{named}.snapshot.json"
        files[snapshot] = _read(trust / snapshot)
        meta = Metadata[Snapshot].from_bytes(files[snapshot]).signed.meta
    except (RepositoryError, ValueError) as error:
        raise OperationError(f"{trust}: expected TUF metadata; restore it from a backup") from error
    for name, info in meta.items():
        files[f"{info.version}.{name}"] = _read(trust / f"{info.version}.{name}")
    return files


def _write(store: ChunkStore, cids: list[str], folder: Path) -> None:
    """Put some chunks in place: all are written, then made durable, then named."""
    for cid in cids:
        data = store.get(cid)
        with _explained(folder):
            _beside(folder, cid).write_bytes(data)
    with _explained(folder):
        for cid in cids:
            descriptor = os.open(_beside(folder, cid), os.O_RDONLY | os.O_NOFOLLOW)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            with contextlib.suppress(OSError):  # FAT knows no modes
                _beside(folder, cid).chmod(0o644)
            _beside(folder, cid).replace(folder / cid)


def _beside(folder: Path, cid: str) -> Path:
    return folder / f".{cid}{_BESIDE}"


def _sweep(folder: Path) -> None:
    """Remove what an export that was cut off left."""
    for entry in os.scandir(folder):
        if entry.name.startswith(".") and entry.name.endswith(_BESIDE):
            Path(entry.path).unlink()


def _is_whole(path: Path, cid: str, length: int) -> bool:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
        with os.fdopen(descriptor, "rb") as file:
            data = file.read(MAX_BYTES + 1) if os.fstat(descriptor).st_size == length else b""
    except OSError:
        return False
    return hashlib.sha256(data).hexdigest() == cid


def _listed(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError as error:
        raise OperationError(f"{folder}: cannot be read: {error.strerror or error}") from error


def _role(name: str) -> str:
    found = _NAME.match(name)
    return found[2] if found else ""


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(MAX_TRUST_FILE_BYTES)
    except OSError as error:
        raise OperationError(f"{path}: cannot be read: {error.strerror or error}; restore it from a backup") from error


@contextlib.contextmanager
def _explained(folder: Path) -> Iterator[None]:
    try:
        yield
    except PermissionError as error:
        raise NotAllowedError(f"{folder}: this user may not write there; name another folder") from error
    except (NotADirectoryError, FileExistsError) as error:
        raise ConflictError(f"{folder}: expected a folder, found a file; name another") from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise OperationError(
                f"{folder}: the disk, or what a folder can hold on it (FAT32), is full with "
                f"{_free(folder)} B left; make room and export again, it goes on from here"
            ) from error
        raise OperationError(f"{folder}: cannot be written: {error.strerror or error}") from error


def _free(folder: Path) -> int:
    with contextlib.suppress(OSError):
        return shutil.disk_usage(folder).free
    return 0
