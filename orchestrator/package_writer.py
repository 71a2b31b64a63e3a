"""Writing a package; what stands where is told in ``package.py``."""

import contextlib
import hashlib
import json
import os
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Final, Self

from orchestrator.errors import OperationError
from orchestrator.package import FOOTER, MAGIC, MAX_BLOB_BYTES, MAX_INDEX_BYTES, NAMED_BY_DIGEST, explained

_BUFFER_BYTES: Final = 2**20


class PackageWriter:
    """Writes a package blob by blob; it appears under its name only when it is whole.

    A context manager: leaving it by an error removes what was written.
    """

    def __init__(self, path: Path) -> None:
        """Start a package.

        Raises:
            OperationError: The file cannot be made.
        """
        self._path = path
        self._partial = path.with_name(path.name + ".partial")
        self._rows: dict[str, tuple[int, str]] = {}
        self._finished = False
        with explained(path, "written"):
            self._file: BinaryIO = self._partial.open("wb", buffering=_BUFFER_BYTES)
            self._file.write(MAGIC)
        self._offset = len(MAGIC)

    def __enter__(self) -> Self:
        """The writer."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _t: TracebackType | None) -> None:
        """Close when all went well; else leave nothing behind."""
        if kind is None:
            self.close()
        else:
            self.discard()

    def __contains__(self, name: str) -> bool:
        """Whether a blob of this name was added."""
        return name in self._rows

    @property
    def size_bytes(self) -> int:
        """Bytes of blobs so far."""
        return self._offset - len(MAGIC)

    def add(self, name: str, data: bytes) -> None:
        """Append a blob.

        Raises:
            ValueError: The name is taken, or the blob is larger than any part of a package.
            OperationError: The disk does not take it.
        """
        if name in self._rows or len(data) > MAX_BLOB_BYTES:
            raise ValueError(f"blob {name}: is there already, or is larger than {MAX_BLOB_BYTES} B")
        digest = "" if name.startswith(NAMED_BY_DIGEST) else hashlib.sha256(data).hexdigest()
        with explained(self._path, "written"):
            self._file.write(data)
        self._rows[name] = (len(data), digest)
        self._offset += len(data)

    def finish(self) -> None:
        """Write the index; everything is durable when it returns, but the file does not have its name yet.

        Raises:
            OperationError: The disk does not take it, or the release has too many chunks for one package.
        """
        if self._finished:
            return
        rows = [[name, length, digest] for name, (length, digest) in self._rows.items()]
        index = json.dumps({"v": 1, "blobs": rows}, separators=(",", ":")).encode()
        if len(index) > MAX_INDEX_BYTES:
            raise OperationError(f"package {self._path}: {len(rows)} parts are too many; split the release")
        with explained(self._path, "written"):
            self._file.write(index)
            self._file.write(FOOTER.pack(self._offset, len(index), hashlib.sha256(index).digest()))
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
        self._finished = True

    def close(self) -> None:
        """Finish, and give the file its name; durable when it returns.

        Raises:
            OperationError: As ``finish``.
        """
        try:
            self.finish()
        except OperationError:
            self.discard()
            raise
        with explained(self._path, "written"):
            self._partial.replace(self._path)
            _sync_directory(self._path.parent)

    def discard(self) -> None:
        """Remove what was written."""
        with contextlib.suppress(OSError):  # a full disk refuses the buffer's rest; the file goes anyway
            self._file.close()
        self._partial.unlink(missing_ok=True)


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
