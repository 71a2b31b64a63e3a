"""Is what a package carries what its manifest lists? Read once, in stream order, one chunk in memory."""

import hashlib

from orchestrator.errors import OperationError
from orchestrator.package import CHUNK, PackageReader
from protocol.chunks import TAG_BYTES, ChunkRef, DeltaRef
from protocol.encryption import open_chunk, open_delta_body
from protocol.envelopes import Verify
from protocol.executables import HEAD_BYTES, check_executables, is_executable, open_list
from protocol.manifest import Artifact, ReleaseInfo


def check_artifact(
    package: PackageReader, artifact: Artifact, info: ReleaseInfo, codesign: Verify | None
) -> dict[str, int]:
    """Open every chunk in stream order, hash the stream and each file of it, and judge what can be run.

    Args:
        codesign: Who signs the component's list of executables; None where no list is asked for.

    Returns:
        Ciphertext bytes by chunk id, deltas included.

    Raises:
        ContentError: A chunk or a delta is not what was signed, or a program is not in the signed list.
        OperationError: The chunks do not make the stream or the files that were signed.
    """
    listed = open_list(artifact, info, codesign) if codesign else None
    stream, chunks = hashlib.sha256(), {}
    files = _FileHashes(artifact)
    for ref in artifact.chunk_refs():
        plain = open_chunk(ref, package.read(CHUNK + ref.cid.hex(), ref.body_length + TAG_BYTES))
        stream.update(plain)
        files.update(plain)
        chunks[ref.cid.hex()] = _ciphertext_bytes(ref)
    for base in artifact.deltas:
        for _, delta in base.delta_refs():
            # Without the former stream it cannot be applied; a wrong one costs a device one more fetch, nothing else.
            open_delta_body(delta, package.read(CHUNK + delta.cid.hex(), _ciphertext_bytes(delta)))
            chunks[delta.cid.hex()] = _ciphertext_bytes(delta)
    if stream.hexdigest() != artifact.sha256:
        raise OperationError("its chunks do not make the stream that was signed")
    files.finish()
    if listed is not None:
        check_executables(files.programs, listed)
    return chunks


def _ciphertext_bytes(ref: ChunkRef | DeltaRef) -> int:
    return ref.body_length + TAG_BYTES


class _FileHashes:
    """Hashes the files of a stream as it goes by, and notes which of them can be run."""

    def __init__(self, artifact: Artifact) -> None:
        self.programs: list[tuple[str, str]] = []
        self._entries = iter(artifact.files)
        self._begin_next()
        self._settle_done()

    def update(self, plain: bytes) -> None:
        """Take the next bytes of the stream.

        Raises:
            OperationError: A file is not what was signed.
        """
        view = memoryview(plain)
        while view and self._entry is not None:
            part = view[: self._left]
            self._hash.update(part)
            if len(self._head) < HEAD_BYTES:
                self._head += part[: HEAD_BYTES - len(self._head)]
            self._left -= len(part)
            view = view[len(part) :]
            self._settle_done()

    def finish(self) -> None:
        """The stream is at its end.

        Raises:
            OperationError: A file is cut short.
        """
        if self._entry is not None:
            raise OperationError(f"file {self._entry.path}: its chunks end before it does")

    def _settle_done(self) -> None:
        while self._entry is not None and not self._left:
            if self._hash.hexdigest() != self._entry.sha256:
                raise OperationError(f"file {self._entry.path}: not what was signed")
            if is_executable(self._entry.path, self._entry.mode, bytes(self._head)):
                self.programs.append((self._entry.path, self._entry.sha256))
            self._begin_next()

    def _begin_next(self) -> None:
        self._entry = next(self._entries, None)
        self._left = self._entry.length if self._entry else 0
        self._hash = hashlib.sha256()
        self._head = bytearray()
