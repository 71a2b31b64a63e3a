"""From a directory or a file to an artifact: cut, compress, encrypt; one chunk in memory at a time.

    source -> stream -> content-defined chunks -> body (zstd | raw) -> encrypt -> sink(cid, ciphertext)

Equal chunks have equal keys and ids within one publisher's secret: what two releases share is sent and stored once.
"""

import base64
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError
from pyfastcdc import FastCDC

from orchestrator.errors import OperationError
from orchestrator.publisher.sources import Source, SourceStream, scan
from protocol.chunks import AVERAGE_CHUNK_BYTES, MAX_CHUNK_BYTES, MIN_CHUNK_BYTES, Codec
from protocol.encryption import encrypt_body, make_body
from protocol.manifest import Artifact

LEVEL = 3
"""zstd level: 3 packs several times faster than 9 and is a few percent larger."""
_BLOCK_BYTES = 4096
_Row = tuple[str, str, str, Codec, int, int]
Sink = Callable[[str, bytes], None]
"""Takes the id in hex and the ciphertext of each distinct chunk, once."""


@dataclass(frozen=True, slots=True)
class Packed:
    """An artifact whose chunks went to the sink.

    Attributes:
        chunk_bytes: Ciphertext of the distinct chunks.
        space_bytes: What a device needs: the stream, and the files in whole blocks.
        empty_folders: Folders that the release does not carry.
        delta_chunks: Distinct deltas, which went to the sink too; none before ``deltas.add_deltas``.
        delta_bytes: Ciphertext of these.
    """

    artifact: Artifact
    distinct_chunks: int
    chunk_bytes: int
    space_bytes: int
    empty_folders: tuple[str, ...]
    delta_chunks: int = 0
    delta_bytes: int = 0


def pack(path: Path, component: str, secret: bytes, sink: Sink, level: int = LEVEL) -> Packed:
    """Pack what lies at ``path``.

    Args:
        path: A directory or a regular file.
        component: What the artifact is for.
        secret: The publisher's DK, 32 B; another secret gives other ids for the same content.
        sink: Where ciphertexts go.
        level: zstd level.

    Raises:
        OperationError: The source cannot be released, or changed meanwhile.
    """
    return pack_source(scan(path), component, secret, sink, level)


def pack_source(source: Source, component: str, secret: bytes, sink: Sink, level: int = LEVEL) -> Packed:
    """Pack a source that was scanned; see ``pack``."""
    stream = SourceStream(source)
    packer = _Packer(secret, sink, level)
    try:
        for chunk in chunker().cut_stream(stream):
            packer.add(chunk.data)
    finally:
        stream.close()
    artifact = _artifact(source, component, stream, packer.rows)
    blocks = sum(-(-file.length // _BLOCK_BYTES) * _BLOCK_BYTES for file in source.files)
    return Packed(
        artifact,
        distinct_chunks=packer.distinct,
        chunk_bytes=packer.chunk_bytes,
        space_bytes=artifact.length + blocks + len(source.links) * _BLOCK_BYTES,
        empty_folders=source.empty_folders,
    )


def chunker() -> FastCDC:
    """FastCDC 2020 with our parameters; a golden vector pins its cuts."""
    return FastCDC(AVERAGE_CHUNK_BYTES, min_size=MIN_CHUNK_BYTES, max_size=MAX_CHUNK_BYTES)


class _Packer:
    """Turns plain chunks into rows of the manifest."""

    def __init__(self, secret: bytes, sink: Sink, level: int) -> None:
        if len(secret) != 32:
            raise ValueError("the publisher's secret has 32 bytes")
        self.rows: list[_Row] = []
        self.distinct = 0
        self.chunk_bytes = 0
        self._seen: dict[bytes, _Row] = {}
        self._secret = secret
        self._sink = sink
        self._level = level

    def add(self, plain: memoryview) -> None:
        digest = hashlib.sha256(plain).digest()
        row = self._seen.get(digest)
        if row is None:
            codec, body = make_body(plain, self._level)
            cid, key, ciphertext = encrypt_body(self._secret, codec, body)
            self._sink(cid.hex(), ciphertext)
            row = (_b64(digest), _b64(cid), _b64(key), codec, len(plain), len(body))
            self._seen[digest] = row
            self.distinct += 1
            self.chunk_bytes += len(ciphertext)
        self.rows.append(row)


def _artifact(source: Source, component: str, stream: SourceStream, rows: list[_Row]) -> Artifact:
    try:
        return Artifact.model_validate(
            {
                "component": component,
                "kind": source.kind,
                "name": source.files[0].path if source.kind == "file" else "",
                "length": source.length,
                "sha256": stream.sha256,
                "files": stream.entries,
                "links": source.links,
                "chunks": rows,
            }
        )
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise OperationError(f"source: cannot be released: {first['msg']}") from error


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode()
