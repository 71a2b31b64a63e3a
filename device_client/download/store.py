"""What has been fetched so far: a sparse file in ``staging/`` that is believed only as far as its hashes hold.

Nothing records which chunks are there. To resume is to hash what lies in the file; a damaged chunk is fetched again and
a cut at any instant costs no more than what was not yet on the disk. All functions block; call them in a thread.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from device_client.download.staging import Stage
from protocol.chunks import TAG_BYTES, ChunkRef, piece_lengths
from protocol.encryption import open_chunk
from protocol.errors import ContentError, ErrorCode
from protocol.manifest import Artifact

MAX_SEALED_BYTES = 64 * 2**20


@dataclass(frozen=True, slots=True)
class Refusal:
    """A chunk that came and was not what was signed for.

    Attributes:
        instead: (cid, ciphertext bytes) to fetch in its place; empty: the same again.
    """

    cid: str
    code: ErrorCode
    detail: str
    instead: tuple[tuple[str, int], ...] = ()


class Store(Protocol):
    """Where verified chunks go."""

    def resume(self) -> dict[str, int]:
        """Verify what is there; ciphertext bytes by id of what is missing, in order."""
        ...

    def write(self, chunks: Mapping[str, bytes]) -> list[Refusal]:
        """Verify and keep each; those that do not verify are left out and named."""
        ...

    @property
    def total_bytes(self) -> int:
        """Bytes of the whole."""
        ...

    @property
    def present_bytes(self) -> int:
        """Bytes that are verified so far."""
        ...

    @property
    def copied_bytes(self) -> int:
        """Those of them that were copied from what the device runs, in this run."""
        ...

    @property
    def delta_bytes(self) -> int:
        """Ciphertext bytes in this run that were deltas against what the device runs."""
        ...


class ArtifactStore:
    """The stream of one artifact, ``staging/<sha256>.stream``."""

    def __init__(self, staging: Path, artifact: Artifact) -> None:
        """Open or make the file.

        Raises:
            ContentError: E_SPACE: no room; E_FORMAT: the manifest contradicts itself.
        """
        self._artifact = artifact
        self._places = _places(artifact)
        self._present = 0
        self._stage = Stage(stream_path(staging, artifact), artifact.length)

    @property
    def total_bytes(self) -> int:
        """Bytes of the stream."""
        return self._artifact.length

    @property
    def present_bytes(self) -> int:
        """Bytes of the stream that are verified so far."""
        return self._present

    @property
    def copied_bytes(self) -> int:
        """None: nothing is copied yet."""
        return 0

    @property
    def delta_bytes(self) -> int:
        """None: there are no deltas yet."""
        return 0

    def resume(self) -> dict[str, int]:
        """Hash what is there; ciphertext bytes by id of what is missing, in stream order.

        A chunk that stands in several places and is whole in one of them is copied from there.
        """
        missing: dict[str, int] = {}
        self._present = 0
        for cid, refs in self._places.items():
            whole: bytes | None = None
            torn: list[ChunkRef] = []
            for ref in refs:
                plain = None if self._stage.is_new else self._stage.read(ref.offset, ref.length)
                if plain is not None and hashlib.sha256(plain).digest() == ref.sha256:
                    whole = plain
                else:
                    torn.append(ref)
            if whole is None:
                missing[cid] = refs[0].body_length + TAG_BYTES
                continue
            for ref in torn:
                self._stage.write(ref.offset, whole)
            self._present += sum(ref.length for ref in refs)
        self._stage.is_new = False
        return missing

    def write(self, chunks: Mapping[str, bytes]) -> list[Refusal]:
        """Open each chunk and write its plain bytes to every place it has.

        Raises:
            ContentError: E_SPACE: the disk is full.
        """
        refusals: list[Refusal] = []
        for cid, ciphertext in chunks.items():
            refs = self._places[cid]
            try:
                plain = open_chunk(refs[0], ciphertext)
            except ContentError as error:
                refusals.append(Refusal(cid, error.code, error.detail))
                continue
            for ref in refs:
                self._stage.write(ref.offset, plain)
            self._present += sum(ref.length for ref in refs)
        return refusals

    def complete(self) -> Path:
        """Make the stream durable and hash it as a whole.

        Returns:
            The file of the stream.

        Raises:
            ContentError: E_CHUNK: it is not the stream of the manifest; E_SPACE: it could not be kept.
        """
        self._stage.sync()
        found = self._stage.sha256()
        if found != self._artifact.sha256:
            raise ContentError(
                ErrorCode.CHUNK, f"stream: expected sha256 {self._artifact.sha256[:16]}, found {found[:16]}"
            )
        return self._stage.path

    def close(self) -> None:
        """Close the file; what is in it stays."""
        self._stage.close()


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


def stream_path(staging: Path, artifact: Artifact) -> Path:
    """Where the stream of an artifact is staged."""
    return staging / f"{artifact.sha256}.stream"


def clear_staging(staging: Path, keep: frozenset[str] = frozenset()) -> None:
    """Remove what was staged, except the files whose sha256 (their name before the dot) is in ``keep``."""
    for path in staging.iterdir():
        if path.name.partition(".")[0] not in keep:
            path.unlink(missing_ok=True)


def _places(artifact: Artifact) -> dict[str, list[ChunkRef]]:
    places: dict[str, list[ChunkRef]] = {}
    try:
        for ref in artifact.chunk_refs():
            places.setdefault(ref.cid.hex(), []).append(ref)
    except ValueError as error:
        raise ContentError(ErrorCode.FORMAT, "manifest: a chunk's hash or key is not base64") from error
    for cid, refs in places.items():
        if len({(ref.sha256, ref.length, ref.key, ref.codec, ref.body_length) for ref in refs}) != 1:
            raise ContentError(ErrorCode.FORMAT, f"manifest: chunk {cid[:16]} is described in two ways")
    return places


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
