"""What has been fetched so far: a sparse file in ``staging/`` that is believed only as far as its hashes hold.

Nothing records which chunks are there. To resume is to hash what lies in the file; a damaged chunk is fetched again and
a cut at any instant costs no more than what was not yet on the disk. All functions block; call them in a thread.
"""

import hashlib
from array import array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from device_client.download.base_stream import Base
from device_client.download.deltas import Deltas
from device_client.download.staging import Stage
from protocol.chunks import TAG_BYTES, ChunkRef
from protocol.encryption import open_chunk
from protocol.errors import ContentError, ErrorCode
from protocol.manifest import Artifact


@dataclass(frozen=True, slots=True)
class Refusal:
    """A chunk that came and was not what was signed for.

    Attributes:
        instead: (cid, ciphertext bytes) to fetch in its place, where it is what was signed and yet of no use: a delta
            that does not fit what the device runs. Empty: the same again.
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

    def without(self, cid: str) -> tuple[tuple[str, int], ...]:
        """(cid, ciphertext bytes) to fetch in place of what does not come or not as signed; empty: there is nothing."""
        ...


class ArtifactStore:
    """The stream of one artifact, ``staging/<sha256>.stream``."""

    def __init__(self, staging: Path, artifact: Artifact, base: Base | None = None) -> None:
        """Open or make the file.

        Args:
            staging: The directory.
            artifact: Whose stream it is.
            base: What the device runs: copied from, and deltas are applied to it.

        Raises:
            ContentError: E_SPACE: no room; E_FORMAT: the manifest contradicts itself.
        """
        self._artifact = artifact
        self._places = _Places(artifact)
        self._deltas = Deltas(artifact, base)
        self._copies = base.copies_of(artifact.files) if base else None
        self._present = self._copied = self._delta_bytes = 0
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
        """Those of them that were copied from what the device runs, since ``resume``."""
        return self._copied

    @property
    def delta_bytes(self) -> int:
        """Ciphertext bytes of the deltas that made chunks, since ``resume``."""
        return self._delta_bytes

    def resume(self) -> dict[str, int]:
        """Hash what is there, copy what the device runs; ciphertext bytes by id of what is missing, in stream order.

        A chunk that stands in several places and is whole in one of them is copied from there. Where a delta is shorter
        and the device has what it was made against, its id stands for the chunk's.
        """
        missing: dict[str, int] = {}
        self._present = self._copied = self._delta_bytes = 0
        self._deltas.begin()
        for cid in self._places:
            refs = self._places[cid]
            whole: bytes | None = None
            torn: list[ChunkRef] = []
            for ref in refs:
                plain = None if self._stage.is_new else self._stage.read(ref.offset, ref.length)
                if plain is not None and hashlib.sha256(plain).digest() == ref.sha256:
                    whole = plain
                else:
                    torn.append(ref)
            if whole is None and self._copies is not None:
                whole = self._copies.read(refs[0])
                self._copied += sum(ref.length for ref in torn) if whole is not None else 0
            if whole is None:
                name, size = self._deltas.instead_of(cid, refs[0]) or (cid, refs[0].body_length + TAG_BYTES)
                missing[name] = size
                continue
            for ref in torn:
                self._stage.write(ref.offset, whole)
            self._present += sum(ref.length for ref in refs)
        self._stage.is_new = False
        return missing

    def write(self, chunks: Mapping[str, bytes]) -> list[Refusal]:
        """Open each chunk or delta, one at a time, and write the plain bytes to every place they have.

        Raises:
            ContentError: E_SPACE: the disk is full.
        """
        refusals: list[Refusal] = []
        for cid, ciphertext in chunks.items():
            write = self._write_delta if cid in self._deltas else self._write_chunk
            refusals += write(cid, ciphertext)
        return refusals

    def _write_chunk(self, cid: str, ciphertext: bytes) -> list[Refusal]:
        try:
            plain = open_chunk(self._places[cid][0], ciphertext)
        except ContentError as error:
            return [Refusal(cid, error.code, error.detail)]
        self._keep(cid, plain)
        return []

    def _write_delta(self, cid: str, ciphertext: bytes) -> list[Refusal]:
        try:
            body = self._deltas.body(cid, ciphertext)
        except ContentError as error:
            return [Refusal(cid, error.code, error.detail)]
        useless: list[tuple[str, int]] = []
        for chunk in self._deltas.chunks_of(cid):
            ref = self._places[chunk][0]
            plain = self._deltas.apply(chunk, ref, body)
            if plain is None:
                self._deltas.failed(chunk)
                useless.append((chunk, ref.body_length + TAG_BYTES))
            else:
                self._keep(chunk, plain)
        if useless:
            detail = f"delta {cid[:16]}: does not make its chunk of what runs here; fetching the chunk instead"
            return [Refusal(cid, ErrorCode.CHUNK, detail, tuple(useless))]
        self._delta_bytes += len(ciphertext)
        return []

    def without(self, cid: str) -> tuple[tuple[str, int], ...]:
        """The chunks that a delta was to make; see ``Store.without``."""
        if cid not in self._deltas:
            return ()
        chunks = self._deltas.chunks_of(cid)
        for chunk in chunks:
            self._deltas.failed(chunk)
        return tuple((chunk, self._places[chunk][0].body_length + TAG_BYTES) for chunk in chunks)

    def _keep(self, cid: str, plain: bytes) -> None:
        for ref in self._places[cid]:
            self._stage.write(ref.offset, plain)
        self._present += sum(ref.length for ref in self._places[cid])

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


def stream_path(staging: Path, artifact: Artifact) -> Path:
    """Where the stream of an artifact is staged."""
    return staging / f"{artifact.sha256}.stream"


def clear_staging(staging: Path, keep: frozenset[str] = frozenset()) -> None:
    """Remove what was staged, except the files whose sha256 (their name before the dot) is in ``keep``."""
    for path in staging.iterdir():
        if path.name.partition(".")[0] not in keep:
            path.unlink(missing_ok=True)


class _Places:
    """Where each chunk stands in the stream. An image has thousands: only indices are kept, the rest is looked up."""

    def __init__(self, artifact: Artifact) -> None:
        self._artifact = artifact
        self._offsets = array("Q")
        self._first: dict[str, int] = {}
        self._further: dict[str, list[int]] = {}
        try:
            for index, ref in enumerate(artifact.chunk_refs()):
                self._offsets.append(ref.offset)
                self._add(index, ref)
        except ValueError as error:
            raise ContentError(ErrorCode.FORMAT, "manifest: a chunk's hash or key is not base64") from error

    def __iter__(self) -> Iterator[str]:
        return iter(self._first)

    def __getitem__(self, cid: str) -> list[ChunkRef]:
        indices = (self._first[cid], *self._further.get(cid, ()))
        return [self._artifact.chunk_ref(index, self._offsets[index]) for index in indices]

    def _add(self, index: int, ref: ChunkRef) -> None:
        cid = ref.cid.hex()
        first = self._first.setdefault(cid, index)
        if first == index:
            return
        if self._artifact.chunks[first] != self._artifact.chunks[index]:
            raise ContentError(ErrorCode.FORMAT, f"manifest: chunk {cid[:16]} is described in two ways")
        self._further.setdefault(cid, []).append(index)
