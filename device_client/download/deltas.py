"""Which chunks come shorter, as deltas against what the device has. A delta that fails costs one more fetch, no more.

The base is read and verified before a delta is asked for, and again when it came: nothing of it stays in memory in
between, and the file may have changed.
"""

import base64
import hashlib

from device_client.download.base_stream import Base
from protocol.chunks import TAG_BYTES, ChunkRef, DeltaRef
from protocol.encryption import apply_delta, open_delta_body
from protocol.errors import ContentError, ErrorCode
from protocol.manifest import Artifact


class Deltas:
    """The deltas of one artifact that this device can use."""

    def __init__(self, artifact: Artifact, base: Base | None) -> None:
        """Find them.

        Raises:
            ContentError: E_FORMAT: a row is not base64.
        """
        self._base = base
        self._usable: dict[str, tuple[str, DeltaRef]] = {}
        self._asked: dict[str, list[str]] = {}
        self._failed: set[str] = set()
        if base is None:
            return
        try:
            for found in artifact.deltas:
                if base.has(found.sha256):
                    for index, delta in found.delta_refs():
                        self._offer(_hex(artifact.chunks[index][1]), found.sha256, delta)
        except ValueError as error:
            raise ContentError(ErrorCode.FORMAT, "manifest: a delta's hash or key is not base64") from error

    def __contains__(self, cid: str) -> bool:
        """Whether this is a delta that was asked for."""
        return cid in self._asked

    def begin(self) -> None:
        """Nothing is asked for yet."""
        self._asked.clear()

    def instead_of(self, cid: str, ref: ChunkRef) -> tuple[str, int] | None:
        """Id and ciphertext bytes of the delta to ask for in place of a chunk; None where the chunk is as good."""
        sha256, delta = self._usable.get(cid, ("", None))
        if (
            delta is None
            or cid in self._failed
            or delta.body_length >= ref.body_length
            or self._read(sha256, delta) is None
        ):
            return None
        self._asked.setdefault(delta.cid.hex(), []).append(cid)
        return delta.cid.hex(), delta.body_length + TAG_BYTES

    def body(self, cid: str, ciphertext: bytes) -> bytes:
        """The body of a delta that was asked for.

        Raises:
            ContentError: E_CHUNK: what came is not what was signed.
        """
        _, delta = self._usable[self._asked[cid][0]]
        return open_delta_body(delta, ciphertext)

    def chunks_of(self, cid: str) -> tuple[str, ...]:
        """The chunks that a delta was asked for: mostly one, but two may differ from their bases in the same way."""
        return tuple(self._asked[cid])

    def apply(self, cid: str, ref: ChunkRef, body: bytes) -> bytes | None:
        """The plain bytes of a chunk; None where the delta does not make it, or its base is gone."""
        sha256, delta = self._usable[cid]
        base = self._read(sha256, delta)
        if base is None:
            return None
        try:
            return apply_delta(ref, delta, body, base)
        except ContentError:
            return None

    def failed(self, cid: str) -> None:
        """Do not ask for the delta of this chunk again."""
        self._failed.add(cid)

    def _offer(self, cid: str, sha256: str, delta: DeltaRef) -> None:
        known = self._usable.get(cid)
        if known is None or delta.body_length < known[1].body_length:
            self._usable[cid] = (sha256, delta)

    def _read(self, sha256: str, delta: DeltaRef) -> bytes | None:
        assert self._base is not None
        base = self._base.read(sha256, delta.base_offset, delta.base_length)
        return base if base is not None and hashlib.sha256(base).digest() == delta.base_sha256 else None


def _hex(text: str) -> str:
    return base64.b64decode(text, validate=True).hex()
