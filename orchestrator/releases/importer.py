"""Taking in a package: checked as a device would check it, then kept. All of it, or nothing that counts.

    frame -> fleet -> trust metadata -> sealed manifest (opened by the signer) -> every chunk -> every file -> keep

Chunks are kept first, the metadata next, the database row last; whatever is cut off before is found again by the next
import of the same package, and no device is told of it.
"""

import asyncio
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol
from weakref import WeakKeyDictionary

import structlog

from orchestrator.config import Home
from orchestrator.errors import ConflictError, NotAllowedError, OperationError
from orchestrator.package import CEK, CHUNK, PIECE, PackageHeader, PackageReader
from orchestrator.releases.artifact import check_artifact
from orchestrator.releases.package_trust import CheckedTrust, Timestamps, check_trust, store_trust
from orchestrator.storage import events, releases
from orchestrator.storage.chunk_store import ChunkStore
from orchestrator.storage.database import Database
from orchestrator.storage.releases import IMPORTING, ReleaseRecord
from protocol.chunks import PIECE_BYTES
from protocol.encryption import unpack_manifest
from protocol.errors import ContentError, ProtocolError
from protocol.identifiers import ReleaseName
from protocol.manifest import Artifact, Manifest
from protocol.trust.trusted import ReleaseTarget

log = structlog.get_logger(__name__)

_MAX_CEK_BYTES = 4096
_LOCKS: WeakKeyDictionary[Database, asyncio.Lock] = WeakKeyDictionary()
"""One at a time per database: each builds on the metadata that the one before it stored."""


def intake(db: Database) -> asyncio.Lock:
    """Held by whoever adds to the published metadata."""
    return _LOCKS.setdefault(db, asyncio.Lock())


class ImportSigner(Timestamps, Protocol):
    """What an import needs of the signer."""

    def unseal(self, sealed_key: bytes, sealed: bytes) -> bytes:
        """The packed manifest of a package that was made for this signer; its key stays there."""
        ...


@dataclass(frozen=True, slots=True)
class _Checked:
    target: ReleaseTarget
    trust: CheckedTrust
    wrapped_key: bytes
    image_bytes: int
    chunks: dict[str, int]
    """Ciphertext bytes by id, pieces of the sealed manifest included."""


async def import_package(
    path: Path,
    home: Home,
    db: Database,
    chunk_store: ChunkStore,
    signer: ImportSigner,
    now: datetime,
    *,
    actor: str = "operator",
) -> ReleaseRecord:
    """Take a package in; the very same release again restores chunks that were lost, and returns what is there.

    Args:
        path: The package file.
        now: By which metadata must not have expired.

    Raises:
        OperationError: Why it is refused, in one sentence; nothing changed.
    """
    settings = home.load()
    async with intake(db):
        with await asyncio.to_thread(PackageReader, path) as package:
            name = _check_header(package.header, settings.fleet)
            async with db.read() as conn:
                known = await releases.get(conn, str(name))
            if known is not None:
                return await _take_again(known, package, db, chunk_store)
            with _refused(name, path):
                checked = await asyncio.to_thread(_check, package, home.trust, signer, now)
            added = await asyncio.to_thread(_keep_chunks, package, chunk_store, checked.chunks)
        try:
            await asyncio.to_thread(store_trust, home.trust, checked.trust.files)
            record = _record(name, checked, now)
            async with db.begin() as conn:
                await releases.insert_release(conn, record, checked.chunks)
                await events.add_order(conn, "release_imported", f"release {name} was imported", now, actor=actor)
        except OperationError:
            await asyncio.to_thread(chunk_store.remove, added)
            raise
    log.info("release imported", release=record.id, chunks=len(checked.chunks), chunk_bytes=record.chunk_bytes)
    return record


@contextmanager
def _refused(name: ReleaseName, path: Path) -> Iterator[None]:
    """Name the release in whatever is wrong with its package; ``path``, our own copy, would say nothing to anyone."""
    try:
        yield
    except ContentError as error:
        raise OperationError(f"package of {name}: {error.code}: {error.detail}; fetch or create it again") from error
    except ProtocolError as error:
        raise OperationError(f"package of {name}: {error.code}: {error.detail}") from error
    except OperationError as error:
        said = str(error).replace(f"package {path}", f"package of {name}", 1)
        if said.startswith("package"):
            raise type(error)(said) from error
        raise type(error)(f"package of {name}: {error}; fetch or create it again") from error


def _check_header(header: PackageHeader, fleet: str) -> ReleaseName:
    if header.fleet != fleet:
        raise NotAllowedError(
            f"package: made for fleet {header.fleet}, this is {fleet}; create it with this fleet's keys"
        )
    return ReleaseName(header.product, header.version)


async def _take_again(
    known: ReleaseRecord, package: PackageReader, db: Database, chunk_store: ChunkStore
) -> ReleaseRecord:
    if known.sha256 != package.header.manifest_sha256:
        raise ConflictError(
            f"release {known.id}: imported already with other content; a version never changes, give it a new one"
        )
    async with db.read() as conn:
        chunks = await releases.chunks(conn, known.id)
    restored = await asyncio.to_thread(_keep_chunks, package, chunk_store, chunks)
    if restored:
        log.warning("chunks restored", release=known.id, chunks=len(restored))
    return known


def _check(package: PackageReader, trust: Path, signer: ImportSigner, now: datetime) -> _Checked:
    checked = check_trust(package, trust, signer, now)
    target, wrapped = checked.target, package.read(CEK, _MAX_CEK_BYTES)
    sealed = b"".join(package.read(PIECE + piece, PIECE_BYTES) for piece in target.info.pieces)
    if (len(sealed), hashlib.sha256(sealed).hexdigest()) != (target.length, target.sha256):
        raise OperationError("its sealed manifest is not what was signed")
    manifest = Manifest.from_json(unpack_manifest(signer.unseal(wrapped, sealed)))
    artifact = _only_artifact(manifest, target)
    chunks = {piece: package.length(PIECE + piece) for piece in target.info.pieces}
    chunks |= check_artifact(package, artifact, target.info, checked.codesign(artifact.component))
    return _Checked(target, checked, wrapped, artifact.length, chunks)


def _only_artifact(manifest: Manifest, target: ReleaseTarget) -> Artifact:
    info = target.info
    if (manifest.product, manifest.version) != (info.product, info.version):
        raise OperationError(f"its manifest is of {manifest.product}/{manifest.version}")
    if len(manifest.artifacts) != 1 or manifest.artifacts[0].component != info.component:
        found = ", ".join(artifact.component for artifact in manifest.artifacts)
        raise OperationError(f"expected one artifact for component {info.component}, found {found}")
    return manifest.artifacts[0]


def _keep_chunks(package: PackageReader, store: ChunkStore, chunks: dict[str, int]) -> list[str]:
    """Copy what the store lacks; returns what was new. What was copied before a failure is removed again."""
    pieces = {name.removeprefix(PIECE) for name in package.names(PIECE)}
    added: list[str] = []
    try:
        for cid in store.missing(chunks):
            store.put(cid, package.read((PIECE if cid in pieces else CHUNK) + cid))
            added.append(cid)  # at once: what is listed is removed when the next one fails
        store.sync()
    except OperationError:
        store.remove(added)
        raise
    return added


def _record(name: ReleaseName, checked: _Checked, now: datetime) -> ReleaseRecord:
    target = checked.target
    return ReleaseRecord(
        id=str(name),
        product=name.product,
        version=name.version,
        component=target.info.component,
        path=target.path,
        length=target.length,
        sha256=target.sha256,
        counter=target.info.counter,
        info=target.info.model_dump(mode="json"),
        wrapped_key=checked.wrapped_key,
        image_bytes=checked.image_bytes,
        chunk_bytes=sum(checked.chunks.values()),
        state=IMPORTING,
        imported_at=now,
    )
