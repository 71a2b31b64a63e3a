"""How the stream of a version in place was cut into chunks: what the next download may copy instead of fetching.

It lies beside the version's record and bears its own hash. Nothing depends on it: where it is missing or damaged more
is fetched, and what is copied by it is verified as if it had been fetched.
"""

import base64
import hashlib
import json
import os
from pathlib import Path
from typing import Annotated, Literal

import structlog
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from device_client.durable import read_capped, write_durably
from device_client.errors import DeviceError
from device_client.installed_stream import InstalledStream
from device_client.installers import records
from device_client.installers.records import DIRECTORY, Record
from protocol.chunks import MAX_CHUNK_BYTES
from protocol.identifiers import DigestText
from protocol.manifest import Artifact
from protocol.numbers import Count

log = structlog.get_logger(__name__)

MAX_INDEX_BYTES = 16 * 2**20
"""Enough for an image of some 18 GB; a larger one is fetched whole."""
_BLOCK_BYTES = 2**20
_Length = Annotated[int, Field(gt=0, le=MAX_CHUNK_BYTES)]


class ChunkIndex(BaseModel):
    """The stream's hash and length, and its chunks: (sha256 of the plain bytes: base64; length), in stream order."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    v: Literal[1] = 1
    sha256: DigestText
    length: Count
    chunks: list[tuple[str, _Length]] = []

    def plain_chunks(self) -> tuple[tuple[bytes, int], ...]:
        """The chunks; none where they do not add up or are not base64."""
        if sum(length for _, length in self.chunks) != self.length:
            return ()
        try:
            return tuple((base64.b64decode(sha256, validate=True), length) for sha256, length in self.chunks)
        except ValueError:
            return ()


def index_artifact(artifact: Artifact) -> ChunkIndex:
    """The index of a release that is written from a manifest."""
    chunks = [(row[0], row[4]) for row in artifact.chunks]
    return ChunkIndex(sha256=artifact.sha256, length=artifact.length, chunks=chunks)


def index_tree(root: Path, record: Record) -> ChunkIndex:
    """The index of what no manifest describes: deltas can be made against its stream, chunks are not known. Reads it.

    Raises:
        OSError: It cannot be read.
    """
    digest, total = hashlib.sha256(), 0
    for path, _, length, _ in record.files:
        descriptor = os.open(root / path if path else root, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            while block := os.read(descriptor, _BLOCK_BYTES):
                digest.update(block)
        finally:
            os.close(descriptor)
        total += length
    return ChunkIndex(sha256=digest.hexdigest(), length=total)


def keep(releases: Path, name: str, index: ChunkIndex) -> None:
    """Write the index of the release ``name``, durably; one that cannot be written is done without."""
    path = _path(releases, name)
    data = json.dumps(index.model_dump(mode="json"), separators=(",", ":")).encode()
    try:
        path.unlink(missing_ok=True)
        if len(data) < MAX_INDEX_BYTES - 65:
            write_durably(path, hashlib.sha256(data).hexdigest().encode() + b"\n" + data)
    except (DeviceError, OSError) as error:
        log.warning("chunk index not kept", release=name, why=str(error)[:500])


def look_up(releases: Path, name: str) -> ChunkIndex | None:
    """The index of a release; None where there is none, or it is damaged."""
    path = _path(releases, name)
    if not path.exists():
        return None
    try:
        digest, _, data = read_capped(path, MAX_INDEX_BYTES).partition(b"\n")
        if hashlib.sha256(data).hexdigest().encode() == digest:
            return ChunkIndex.model_validate_json(data)
    except (DeviceError, ValidationError):
        pass
    log.warning("chunk index damaged", release=name)
    return None


def stream_of(releases: Path, name: str) -> InstalledStream | None:
    """What is known of the stream of a release in place: its files by its record, the rest by its index."""
    record = records.look_up(releases, name)
    if record is None:
        return None
    files = tuple((path, length, sha256) for path, _, length, sha256 in record.files)
    index = look_up(releases, name)
    if index is None or index.length != sum(length for _, length, _ in files):
        return InstalledStream(releases / name, files)
    return InstalledStream(releases / name, files, index.sha256, index.plain_chunks())


def forget(releases: Path, name: str) -> None:
    """Remove the index of a release."""
    _path(releases, name).unlink(missing_ok=True)


def _path(releases: Path, name: str) -> Path:
    return releases / DIRECTORY / f"{name}.chunks"
