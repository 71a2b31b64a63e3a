"""Two versions of something with real bodies and real deltas between them, cut where a test wants it."""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from device_client.installed_stream import InstalledStream
from protocol.chunks import Codec
from protocol.encryption import encrypt_body, make_body, make_delta
from protocol.manifest import Artifact, DeltaSet, FileEntry

SECRET = b"d" * 32
Row = tuple[int, str, str, int, int, int, str]


@dataclass
class Release:
    """An artifact, its stream, and everything that the broker holds of it."""

    artifact: Artifact
    stream: bytes
    chunks: dict[str, bytes] = field(default_factory=dict)

    def cid(self, index: int) -> str:
        """The id of a chunk, hex."""
        return list(self.artifact.chunk_refs())[index].cid.hex()

    def delta_cid(self, row: int = 0) -> str:
        """The id of a delta, hex."""
        return base64.b64decode(self.artifact.deltas[0].rows[row][1]).hex()

    def add_deltas(
        self, old: bytes, ranges: Mapping[int, tuple[int, int]], bodies: Mapping[int, bytes] | None = None
    ) -> None:
        """Offer chunks as deltas against ranges (offset, length) of ``old``; a body may lie."""
        refs = list(self.artifact.chunk_refs())
        rows: list[Row] = []
        for index, (offset, length) in sorted(ranges.items()):
            ref, base = refs[index], old[offset : offset + length]
            plain = self.stream[ref.offset : ref.offset + ref.length]
            body = (bodies or {}).get(index) or make_delta(plain, base, 3)
            cid, key, ciphertext = encrypt_body(SECRET, Codec.DELTA, body)
            self.chunks[cid.hex()] = ciphertext
            digest = hashlib.sha256(base).digest()
            rows.append((index, b64(cid), b64(key), len(body), offset, length, b64(digest)))
        found = DeltaSet(sha256=hashlib.sha256(old).hexdigest(), length=len(old), rows=rows)
        self.artifact = self.artifact.model_copy(update={"deltas": [*self.artifact.deltas, found]})


def release(plains: Sequence[bytes], files: Mapping[str, bytes] | None = None) -> Release:
    """A release of these chunks: of one file, or of ``files`` whose contents together are the chunks."""
    stream = b"".join(plains)
    files = {"image": stream} if files is None else files
    assert b"".join(files.values()) == stream
    rows, chunks, entries, offset = [], {}, [], 0
    for plain in plains:
        codec, body = make_body(plain, 3)
        cid, key, ciphertext = encrypt_body(SECRET, codec, body)
        chunks[cid.hex()] = ciphertext
        rows.append((b64(hashlib.sha256(plain).digest()), b64(cid), b64(key), codec, len(plain), len(body)))
    for path, content in files.items():
        digest = hashlib.sha256(content).hexdigest()
        entries.append(FileEntry(path=path, mode=0o644, offset=offset, length=len(content), sha256=digest))
        offset += len(content)
    artifact = Artifact(
        component="app", kind="directory", length=len(stream), sha256=hashlib.sha256(stream).hexdigest(),
        files=entries, chunks=rows,
    )  # fmt: skip
    return Release(artifact, stream, chunks)


def place(
    root: Path, files: Mapping[str, bytes], plains: Sequence[bytes] = (), *, noted: bool = True
) -> InstalledStream:
    """Put files in place, and say what an installer would say of them; ``noted``: as a release and not by hand."""
    for path, content in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(content)
    rows = tuple((path, len(content), hashlib.sha256(content).hexdigest()) for path, content in files.items())
    if not noted:
        return InstalledStream(root, rows)
    chunks = tuple((hashlib.sha256(plain).digest(), len(plain)) for plain in plains)
    return InstalledStream(root, rows, hashlib.sha256(b"".join(files.values())).hexdigest(), chunks)


def b64(data: bytes) -> str:
    """Standard base64 as text."""
    return base64.b64encode(data).decode()
