"""The pieces of a sealed manifest that came so far, believed only as far as their hashes hold; see ``store``."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from device_client.download.staging import Stage
from device_client.download.store import Refusal
from protocol.chunks import piece_lengths
from protocol.errors import ContentError, ErrorCode

MAX_SEALED_BYTES = 64 * 2**20


class PieceStore:
    """The sealed manifest, ``staging/<sha256>.sealed``, in pieces of 64 KiB that are named by their hashes."""

    def __init__(self, staging: Path, pieces: Sequence[str], length: int, sha256: str) -> None:
        """Open or make the file.

        Args:
            staging: The directory.
            pieces: sha256 hex of each piece, in order: ``ReleaseInfo.pieces``.
            length: Of the sealed manifest, as the release reference says.
            sha256: Of the sealed manifest, likewise.

        Raises:
            ContentError: E_OVERSIZE or E_FORMAT: the release names something that cannot be.
        """
        if not 0 < length <= MAX_SEALED_BYTES:
            raise ContentError(ErrorCode.OVERSIZE, f"sealed manifest: at most {MAX_SEALED_BYTES} B, named as {length}")
        lengths = piece_lengths(length)
        if len(lengths) != len(pieces):
            raise ContentError(
                ErrorCode.FORMAT, f"sealed manifest: expected {len(lengths)} pieces, found {len(pieces)}"
            )
        self._sha256 = sha256
        self._places: dict[str, list[tuple[int, int]]] = {}
        offset = 0
        for cid, piece_length in zip(pieces, lengths, strict=True):
            self._places.setdefault(cid, []).append((offset, piece_length))
            offset += piece_length
        self._present = 0
        self._stage = Stage(staging / f"{sha256}.sealed", length)

    @property
    def total_bytes(self) -> int:
        """Bytes of the sealed manifest."""
        return self._stage.length

    @property
    def present_bytes(self) -> int:
        """Bytes of it that are verified so far."""
        return self._present

    @property
    def copied_bytes(self) -> int:
        """None: no release has the sealed manifest of another."""
        return 0

    @property
    def delta_bytes(self) -> int:
        """None, likewise."""
        return 0

    def without(self, cid: str) -> tuple[tuple[str, int], ...]:  # noqa: ARG002
        """Nothing: every piece is needed."""
        return ()

    def resume(self) -> dict[str, int]:
        """Hash what is there; bytes by id of what is missing, in order."""
        missing: dict[str, int] = {}
        self._present = 0
        for cid, places in self._places.items():
            if all(_sha256(self._stage.read(*place)) == cid for place in places):
                self._present += sum(length for _, length in places)
            else:
                missing[cid] = max(length for _, length in places)
        return missing

    def write(self, chunks: Mapping[str, bytes]) -> list[Refusal]:
        """Check each piece by its name and keep it.

        Raises:
            ContentError: E_SPACE: the disk is full.
        """
        refusals: list[Refusal] = []
        for cid, piece in chunks.items():
            places = self._places[cid]
            if _sha256(piece) != cid or any(length != len(piece) for _, length in places):
                refusals.append(Refusal(cid, ErrorCode.CHUNK, f"piece {cid[:16]}: its hash is not its name"))
                continue
            for offset, _ in places:
                self._stage.write(offset, piece)
            self._present += sum(length for _, length in places)
        return refusals

    def complete(self) -> bytes:
        """The sealed manifest, once it is durable and its hash is the one that was signed.

        Raises:
            ContentError: E_CHUNK: it is not; E_SPACE: it could not be kept.
        """
        self._stage.sync()
        sealed = self._stage.read(0, self._stage.length)
        if len(sealed) != self._stage.length or _sha256(sealed) != self._sha256:
            raise ContentError(ErrorCode.CHUNK, f"sealed manifest: its sha256 is not {self._sha256[:16]}")
        return sealed

    def close(self) -> None:
        """Close the file; what is in it stays."""
        self._stage.close()


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
