"""Ciphertexts by their hashes, in files: chunks/ab/abcdef...  Blocking: call in threads.

The name is the proof: what is read is hashed, and damage is an error, never an answer.
"""

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

from orchestrator.errors import NotFoundError, OperationError
from protocol.identifiers import check_digest
from protocol.topics import RULES, Kind

MAX_BYTES = RULES[Kind.CHUNK].max_bytes
_PARTIAL = ".partial"


class ChunkStore:
    """One folder of chunks."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def put(self, cid_hex: str, data: bytes) -> bool:
        """Keep a chunk; whether it was new. Durable after ``sync``.

        Raises:
            ValueError: The name is not the hash of the data, or it is too large for its topic.
            OperationError: The disk does not take it.
        """
        if hashlib.sha256(data).hexdigest() != check_digest(cid_hex) or len(data) > MAX_BYTES:
            raise ValueError(f"chunk {cid_hex[:16]}: its name is not its hash, or it is larger than {MAX_BYTES} B")
        place = self._place(cid_hex)
        if place.exists() and place.stat().st_size == len(data):
            return False
        try:
            place.parent.mkdir(mode=0o700, exist_ok=True)
            partial = place.with_name(place.name + _PARTIAL)
            partial.write_bytes(data)
            partial.replace(place)
        except OSError as error:
            raise OperationError(f"{place}: cannot be written: {error.strerror or error}") from error
        return True

    def get(self, cid_hex: str) -> bytes:
        """One chunk's ciphertext, proven.

        Raises:
            NotFoundError: It is not here.
            OperationError: It is damaged or cannot be read.
        """
        place = self._place(cid_hex)
        try:
            with place.open("rb") as file:
                data = file.read(MAX_BYTES + 1)
        except FileNotFoundError as error:
            raise NotFoundError(f"chunk {cid_hex[:16]}: not in {self._path}; publish its release again") from error
        except OSError as error:
            raise OperationError(f"{place}: cannot be read: {error.strerror or error}") from error
        if hashlib.sha256(data).hexdigest() != cid_hex:
            raise OperationError(f"{place}: damaged; remove it and publish its release again")
        return data

    def has(self, cid_hex: str) -> bool:
        """Whether a chunk of this name is here; its content is proven when it is read."""
        return self._place(cid_hex).is_file()

    def missing(self, cids: Iterable[str]) -> list[str]:
        """Those of ``cids`` that are not here."""
        return [cid for cid in cids if not self.has(cid)]

    def remove(self, cids: Iterable[str]) -> None:
        """Drop chunks; those that are not here are passed over."""
        for cid in cids:
            self._place(cid).unlink(missing_ok=True)

    def sync(self) -> None:
        """Make what was put durable: one call for a whole release.

        Raises:
            OperationError: The disk does not take it.
        """
        try:
            descriptor = os.open(self._path, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            os.sync()
        except OSError as error:
            raise OperationError(f"{self._path}: cannot be made durable: {error.strerror or error}") from error

    def _place(self, cid_hex: str) -> Path:
        return self._path / check_digest(cid_hex)[:2] / cid_hex
