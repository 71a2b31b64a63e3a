"""Making a release: pack, seal, sign, and one package file that holds it all. Works offline and needs no orchestrator.

What is durable when, and why in this order: the package's content, then the working copy's new metadata, then the
package's name. A cut before the second leaves nothing; a version that is listed always has its package on the disk.
"""

import os
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from orchestrator.errors import ConflictError
from orchestrator.package import CEK, CHUNK, PIECE, RELEASE, TRUST, PackageHeader
from orchestrator.package_writer import PackageWriter
from orchestrator.publisher.deltas import DELTA_LEVEL, Progress, add_deltas, tell_nobody
from orchestrator.publisher.executables import list_executables, sign_executables
from orchestrator.publisher.packing import LEVEL, Packed, Sink, pack_source
from orchestrator.publisher.sealing import Sealed, seal
from orchestrator.publisher.signing import check_keys, check_new, load_repository, sign_release
from orchestrator.publisher.sources import scan
from orchestrator.publisher.working_copy import current_files
from orchestrator.publisher.workspace import Workspace
from protocol.identifiers import ReleaseName
from protocol.manifest import Manifest, Policy, ReleaseInfo


@dataclass(frozen=True, slots=True)
class ReleaseSpec:
    """What a person says about a release.

    Attributes:
        counter: Security counter; None keeps the component's highest so far.
        dedup: Whether chunks may be recognised as those of other releases.
        delta_from: Former versions as they were released, to make deltas against.
    """

    name: ReleaseName
    component: str
    hardware: tuple[str, ...]
    requires: dict[str, str]
    conflicts: dict[str, str]
    policy: Policy
    counter: int | None = None
    must_pass_through: bool = False
    dedup: bool = True
    level: int = LEVEL
    delta_from: tuple[Path, ...] = ()
    delta_level: int = DELTA_LEVEL


@dataclass(frozen=True, slots=True)
class Created:
    """A package that was made."""

    path: Path
    package_bytes: int
    packed: Packed
    info: ReleaseInfo
    sha256: str
    length: int


def create_release(
    source: Path,
    output: Path,
    spec: ReleaseSpec,
    workspace: Workspace,
    now: datetime,
    progress: Progress = tell_nobody,
) -> Created:
    """Make the package of a release and list it in the working copy's metadata. Blocking.

    Args:
        progress: Told how far the deltas are.

    Raises:
        OperationError: What stands in the way; neither the package nor the metadata changed.
    """
    if not workspace.secret.exists():
        workspace.load()  # says what is missing; in a folder of something else not even a lock is left
    with workspace.locked():
        keys = workspace.load()
        repository = load_repository(keys.metadata, now)
        check_new(repository, spec.name)
        check_keys(repository, spec.name.product, keys.signers)
        codesigners = repository.codesigners(spec.component, keys.signers)
        if output.exists():
            raise ConflictError(f"{output}: is there already; remove it or name another with -o")
        found = scan(source)
        with PackageWriter(output) as package:
            secret = keys.secret if spec.dedup else os.urandom(len(keys.secret))
            sink = _chunks_into(package)
            packed = pack_source(found, spec.component, secret, sink, spec.level)
            if spec.delta_from:
                packed = add_deltas(
                    packed, found, spec.delta_from, secret, sink, level=spec.delta_level, progress=progress
                )
            if codesigners is not None:
                listed = sign_executables(list_executables(found, packed.artifact, spec.name), codesigners)
                packed = replace(packed, artifact=packed.artifact.model_copy(update={"executables": listed}))
            artifacts = [packed.artifact]
            manifest = Manifest(
                product=spec.name.product, version=spec.name.version, artifacts=artifacts, policy=spec.policy
            )
            sealed = seal(manifest, keys.package_key)
            counter = spec.counter
            if counter is None:
                counter = repository.counter(spec.name.product, spec.component)
            info = _info(spec, packed, sealed, counter)
            changed = sign_release(repository, sealed, info, keys.signers, now)
            _add_release(package, repository.fleet, spec.name, sealed, current_files({**keys.metadata, **changed}))
            package.finish()
            workspace.store(changed)
    return Created(output, output.stat().st_size, packed, info, sealed.sha256, len(sealed.data))


def _chunks_into(package: PackageWriter) -> Sink:
    def sink(cid: str, ciphertext: bytes) -> None:
        package.add(CHUNK + cid, ciphertext)

    return sink


def _info(spec: ReleaseSpec, packed: Packed, sealed: Sealed, counter: int) -> ReleaseInfo:
    return ReleaseInfo(
        product=spec.name.product,
        version=spec.name.version,
        component=spec.component,
        hardware=list(spec.hardware),
        requires=spec.requires,
        conflicts=spec.conflicts,
        must_pass_through=spec.must_pass_through,
        counter=counter,
        space_bytes=packed.space_bytes + len(sealed.data),
        pieces=[name for name, _ in sealed.pieces],
        chunk_count=packed.distinct_chunks + packed.delta_chunks,
        policy=spec.policy,
    )


def _add_release(
    package: PackageWriter, fleet: str, name: ReleaseName, sealed: Sealed, metadata: dict[str, bytes]
) -> None:
    for piece, data in sealed.pieces:
        package.add(PIECE + piece, data)
    for file in sorted(metadata):
        package.add(TRUST + file, metadata[file])
    package.add(CEK, sealed.wrapped_key)
    header = PackageHeader(fleet=fleet, product=name.product, version=name.version, manifest_sha256=sealed.sha256)
    package.add(RELEASE, header.model_dump_json().encode())
