"""What a release consists of: the sealed manifest, and the ``custom`` part of its TUF target.

The manifest is encrypted; ``ReleaseInfo`` is what is judged before any key is used. Both come from the publisher's
offline keys: the target's length and hash bind the sealed manifest, the manifest binds every chunk and file.
"""

import base64
import json
import operator
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from protocol.chunks import (
    ALGORITHM,
    MAX_BASE_BYTES,
    MAX_BASES,
    MAX_CHUNK_BYTES,
    MIN_BASE_BYTES,
    ChunkRef,
    Codec,
    DeltaRef,
)
from protocol.errors import ContentError, ErrorCode
from protocol.identifiers import DigestText, IdText, VersionText
from protocol.numbers import Count, Counter
from protocol.windows import MAX_WINDOWS, PolicyWindow

MAX_MANIFEST_BYTES = 64 * 2**20
"""Of the JSON text, after decompression."""
MAX_FILES = 200_000


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class Policy(_Model):
    """What must hold before a device acts; ``None`` means "no demand". The strictest of three wins.

    Attributes:
        min_battery_percent: Least charge when not on external power.
        require_approval: A person at the device must agree before installing.
        allow_in_use: Whether installing may interrupt use.
        require_way_back: The former version must be present and intact.
        min_interval_s: Least seconds between two updates of one device.
        windows: One of them must be open, in the device's own time zone, to install and to activate.
    """

    min_battery_percent: Annotated[int, Field(ge=0, le=100)] | None = None
    require_approval: bool | None = None
    allow_in_use: bool | None = None
    require_way_back: bool | None = None
    min_interval_s: Count | None = None
    windows: Annotated[
        tuple[PolicyWindow, ...] | None, Field(min_length=1, max_length=MAX_WINDOWS, exclude_if=lambda v: v is None)
    ] = None


class ReleaseInfo(_Model):
    """``custom`` of the TUF target: judged before any key is used."""

    v: Literal[1] = 1
    product: IdText
    version: VersionText
    component: IdText
    hardware: Annotated[list[IdText], Field(min_length=1, max_length=256)]
    requires: dict[IdText, str] = {}
    conflicts: dict[IdText, str] = {}
    must_pass_through: bool = False
    counter: Counter
    space_bytes: Count
    profile: Literal["linux"] = "linux"
    pieces: Annotated[list[DigestText], Field(min_length=1, max_length=1024)]
    chunk_count: Count
    policy: Policy = Policy()


class FileEntry(_Model):
    """A regular file: a slice of the artifact's stream."""

    path: str
    mode: Annotated[int, Field(ge=0, le=0o777)]
    offset: Count
    length: Count
    sha256: DigestText


class LinkEntry(_Model):
    """A symbolic link that stays inside the tree."""

    path: str
    target: str


class DeltaSet(_Model):
    """Chunks of an artifact as deltas against one former stream.

    Attributes:
        sha256: Of the former stream.
        length: Of the former stream.
        rows: (index of the chunk; cid, key: base64; body length; offset and length of the range of the former stream;
            the range's sha256: base64), by index.
    """

    sha256: DigestText
    length: Count
    rows: list[tuple[int, str, str, int, int, int, str]]

    @model_validator(mode="after")
    def _within_bounds(self) -> "DeltaSet":
        before = -1
        for index, _, _, body_length, offset, length, _ in self.rows:
            if index <= before:
                raise ValueError("deltas are not in the order of their chunks, each at most once")
            if not 0 < body_length <= MAX_CHUNK_BYTES:
                raise ValueError("a delta's length is out of bounds")
            if offset < 0 or not MIN_BASE_BYTES <= length <= MAX_BASE_BYTES or offset + length > self.length:
                raise ValueError("a delta's base is out of bounds")
            before = index
        return self

    def delta_refs(self) -> Iterator[tuple[int, DeltaRef]]:
        """The deltas, each with the index of its chunk."""
        for index, cid, key, body_length, offset, length, sha256 in self.rows:
            yield index, DeltaRef(_raw(cid), _raw(key), body_length, offset, length, _raw(sha256))


class Artifact(_Model):
    """One payload for one component.

    Attributes:
        kind: ``directory``: files are slices of the stream; ``file``: the stream is the file ``name``.
        executables: DSSE envelope of the component's signed list of executables; empty where there is none.
        chunks: Rows of (plain sha256, cid, key: base64; codec; plain length; body length), in stream order.
        deltas: Shorter ways to some of the chunks, for devices that have one of these former streams.
    """

    component: IdText
    kind: Literal["directory", "file"]
    name: str = ""
    length: Count
    sha256: DigestText
    chunking: str = ALGORITHM
    files: Annotated[list[FileEntry], Field(max_length=MAX_FILES)] = []
    links: Annotated[list[LinkEntry], Field(max_length=MAX_FILES)] = []
    executables: Annotated[str, Field(exclude_if=operator.not_)] = ""
    chunks: list[tuple[str, str, str, Codec, int, int]]
    deltas: Annotated[list[DeltaSet], Field(max_length=MAX_BASES, exclude_if=operator.not_)] = []

    @model_validator(mode="after")
    def _adds_up(self) -> "Artifact":
        if sum(row[4] for row in self.chunks) != self.length:
            raise ValueError("chunks do not add up to the artifact's length")
        if any(not 0 < row[4] <= MAX_CHUNK_BYTES or not 0 < row[5] <= MAX_CHUNK_BYTES for row in self.chunks):
            raise ValueError("a chunk's length is out of bounds")
        if any(row[3] is Codec.DELTA for row in self.chunks):
            raise ValueError("a chunk is a delta only")
        self._check_deltas()
        offset = 0
        for entry in self.files:
            if entry.offset != offset:
                raise ValueError(f"file {entry.path!r} does not follow the one before it")
            offset += entry.length
        if self.kind == "directory" and offset != self.length:
            raise ValueError("files do not add up to the artifact's length")
        _check_tree([e.path for e in self.files], {e.path: e.target for e in self.links})
        if self.kind == "file":
            check_member(self.name)
        return self

    def _check_deltas(self) -> None:
        if len({base.sha256 for base in self.deltas}) != len(self.deltas):
            raise ValueError("two sets of deltas have one base")
        if any(base.rows and base.rows[-1][0] >= len(self.chunks) for base in self.deltas):
            raise ValueError("a delta is of a chunk that there is not")
        cids = {row[1] for row in self.chunks} if self.deltas else set()
        if any(row[1] in cids for base in self.deltas for row in base.rows):
            raise ValueError("a delta has the id of a chunk")

    def chunk_refs(self) -> Iterator[ChunkRef]:
        """The chunks with their places in the stream, in order."""
        offset = 0
        for index, row in enumerate(self.chunks):
            yield self.chunk_ref(index, offset)
            offset += row[4]

    def chunk_ref(self, index: int, offset: int) -> ChunkRef:
        """One chunk, where the caller knows its place in the stream."""
        plain, cid, key, codec, length, body_length = self.chunks[index]
        return ChunkRef(offset, length, _raw(plain), _raw(cid), _raw(key), codec, body_length)


class Manifest(_Model):
    """The list of artifacts, files, chunks and chunk keys of a release."""

    v: Literal[1] = 1
    product: IdText
    version: VersionText
    artifacts: Annotated[list[Artifact], Field(min_length=1, max_length=64)]
    policy: Policy = Policy()

    def to_json(self) -> bytes:
        """Compact JSON, the bytes that are sealed."""
        return json.dumps(self.model_dump(mode="json"), separators=(",", ":")).encode()

    @classmethod
    def from_json(cls, data: bytes) -> "Manifest":
        """Parse and check.

        Raises:
            ContentError: E_OVERSIZE or E_FORMAT.
        """
        if len(data) > MAX_MANIFEST_BYTES:
            raise ContentError(ErrorCode.OVERSIZE, f"manifest: at most {MAX_MANIFEST_BYTES} B, found {len(data)}")
        try:
            return cls.model_validate_json(data)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            place = ".".join(str(p) for p in first["loc"])
            raise ContentError(ErrorCode.FORMAT, f"manifest {place}: {first['msg']}") from error


def check_member(path: str) -> str:
    """Return ``path`` if it names a place inside a tree: relative, normal, no ``..``.

    Raises:
        ValueError: It leaves the tree, or is not in its one normal form.
    """
    # Not pathlib: a manifest has up to MAX_FILES paths, and devices are slow.
    if len(path) > 1024 or "\0" in path or any(part in ("", ".", "..") for part in path.split("/")):
        raise ValueError(f"path {path[:120]!r}: expected a relative path inside the tree")
    return path


def check_link(path: str, target: str) -> str:
    """Return ``target`` if a link at ``path`` with this target stays inside the tree.

    Raises:
        ValueError: The target is absolute or climbs out.
    """
    if not target or len(target) > 1024 or "\0" in target or target.startswith("/"):
        raise ValueError(f"link {path[:120]!r}: target {target[:120]!r} is not relative")
    depth = len(PurePosixPath(path).parts) - 1
    for part in target.split("/"):
        if part == "..":
            depth -= 1
        elif part not in ("", "."):
            depth += 1
        if depth < 0:
            raise ValueError(f"link {path[:120]!r}: target {target[:120]!r} leaves the tree")
    return target


def _check_tree(paths: list[str], links: dict[str, str]) -> None:
    seen = set(paths)
    if len(seen) != len(paths) or seen & set(links):
        raise ValueError("two entries have one path")
    for path in seen:
        check_member(path)
    for path, target in links.items():
        check_member(path)
        check_link(path, target)
    leaves = seen | set(links)
    folders: set[str] = set()
    for path in leaves:
        # An entry below a file or a link would be written through it, out of the tree.
        parent = path.rpartition("/")[0]
        while parent and parent not in folders:
            if parent in leaves:
                raise ValueError(f"path {path[:120]!r}: a parent of it is a file or a link")
            folders.add(parent)
            parent = parent.rpartition("/")[0]


def _raw(text: str) -> bytes:
    data = base64.b64decode(text, validate=True)
    if len(data) != 32:
        raise ContentError(ErrorCode.FORMAT, "manifest: expected 32 bytes in base64")
    return data
