"""The first keys and the first metadata of a fleet (design, section 4). Blocking.

Offline keys and the secret of chunk keys go to the publisher's folder, online keys to the signer's; neither side
needs the other's private halves. What is public goes to both.
"""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import DelegatedRole, Delegations, Metadata, MetaFile, Root, Snapshot, Targets, Timestamp
from tuf.api.serialization.json import JSONSerializer

from orchestrator.errors import OperationError, UsageError
from orchestrator.expiry import RELEASES_LIFE, ROOT_LIFE, SNAPSHOT_LIFE, TARGETS_LIFE, TIMESTAMP_LIFE
from orchestrator.private_files import write_private
from orchestrator.publisher.keys import create_package_key, create_signing_key
from orchestrator.publisher.workspace import SECRET_BYTES, Workspace
from protocol.identifiers import check_id
from protocol.trust.trusted import codesign_role, director_role, releases_role

MAX_KEYS = 16
DIRECTORY_MODE = 0o700
_COMPACT = JSONSerializer(compact=True)


@dataclass(frozen=True, slots=True)
class Thresholds:
    """How many keys each offline role has, all of which must sign. One person keeps the defaults."""

    root: int = 1
    targets: int = 1
    releases: int = 1


def hold_ceremony(
    publisher: Path, signer: Path, trust: Path, *, fleet: str, products: Sequence[str], thresholds: Thresholds,
    now: datetime, codesign: Sequence[str] = (),
) -> None:  # fmt: skip
    """Make all keys and sign the first metadata.

    Args:
        publisher: New folder for what stays offline.
        signer: New folder for the orchestrator's online keys.
        trust: New folder for what is published.
        products: Each gets a role of its own that lists its releases.
        codesign: Components whose executables are listed and signed; each gets a key of its own.

    Raises:
        UsageError: A name or a threshold makes no sense.
        OperationError: A folder cannot be written.
    """
    _check(fleet, products, thresholds, codesign)
    workspace = Workspace(publisher)
    for directory in (publisher, workspace.keys, workspace.metadata, signer):
        _make(directory, DIRECTORY_MODE)
    _make(trust, 0o755)

    root_keys = _keys(workspace.keys, "root", thresholds.root)
    targets_keys = _keys(workspace.keys, "targets", thresholds.targets)
    snapshot_keys = _keys(workspace.keys, "snapshot", 1)
    releases_keys = {
        product: _keys(workspace.keys, releases_role(product), thresholds.releases) for product in products
    }
    codesign_keys = {name: _keys(workspace.keys, codesign_role(name), 1) for name in codesign}
    timestamp_key = create_signing_key(signer / "timestamp.key")
    director_key = create_signing_key(signer / "director.key")
    package_key = create_package_key(signer / "package.key")
    write_private(workspace.secret, os.urandom(SECRET_BYTES))
    public = package_key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    now = now.replace(microsecond=0)
    root = Root(expires=now + ROOT_LIFE, consistent_snapshot=True)
    for role, keys in (("root", root_keys), ("targets", targets_keys), ("snapshot", snapshot_keys)):
        for key in keys:
            root.add_key(key.public_key, role)
        root.roles[role].threshold = len(keys)
    root.add_key(timestamp_key.public_key, Timestamp.type)
    targets = _targets(fleet, releases_keys, codesign_keys, director_key, now)
    files = {
        "1.root.json": _signed(Metadata(root), root_keys),
        "1.targets.json": _signed(Metadata(targets), targets_keys),
        "1.snapshot.json": _signed(Metadata(_snapshot(products, now)), snapshot_keys),
    }
    for product, keys in releases_keys.items():
        files[f"1.{releases_role(product)}.json"] = _signed(Metadata(Targets(expires=now + RELEASES_LIFE)), keys)
    timestamp = Timestamp(version=1, expires=now + TIMESTAMP_LIFE, snapshot_meta=MetaFile(1))
    for name, data in files.items():
        _write(workspace.metadata / name, data)
        _write(trust / name, data)
    _write(trust / "timestamp.json", _signed(Metadata(timestamp), [timestamp_key]))
    _write(workspace.package_key, public)
    write_private(signer / "high-water.json", b'{"epoch": 1, "seq": 0, "timestamp": 1}\n')


def _check(fleet: str, products: Sequence[str], thresholds: Thresholds, codesign: Sequence[str]) -> None:
    try:
        check_id(fleet, "fleet")
        for product in products:
            check_id(product, "product")
        for component in codesign:
            check_id(component, "component")
    except ValueError as error:
        raise UsageError(str(error)) from error
    if not products or len(set(products)) != len(products):
        raise UsageError("products: expected at least one, each named once")
    if len(set(codesign)) != len(codesign):
        raise UsageError("components with signed executables: expected each to be named once")
    for name in ("root", "targets", "releases"):
        if not 1 <= getattr(thresholds, name) <= MAX_KEYS:
            raise UsageError(f"--{name}-threshold {getattr(thresholds, name)}: expected 1 to {MAX_KEYS}")


def _keys(directory: Path, role: str, count: int) -> list[CryptoSigner]:
    return [create_signing_key(directory / f"{role}-{number}.key") for number in range(1, count + 1)]


def _targets(
    fleet: str,
    releases: dict[str, list[CryptoSigner]],
    codesign: dict[str, list[CryptoSigner]],
    director: CryptoSigner,
    now: datetime,
) -> Targets:
    roles = {
        releases_role(product): DelegatedRole(
            releases_role(product), [], len(keys), terminating=True, paths=[f"{product}/*/*"]
        )
        for product, keys in releases.items()
    }
    # Key carriers: they may sign no target; devices take the keys from them (design, section 4).
    for name in (director_role(fleet), *map(codesign_role, codesign)):
        roles[name] = DelegatedRole(name, [], 1, terminating=True, paths=[])
    targets = Targets(expires=now + TARGETS_LIFE, delegations=Delegations({}, roles))
    for product, keys in releases.items():
        for key in keys:
            targets.add_key(key.public_key, releases_role(product))
    targets.add_key(director.public_key, director_role(fleet))
    for component, keys in codesign.items():
        targets.add_key(keys[0].public_key, codesign_role(component))
    return targets


def _snapshot(products: Iterable[str], now: datetime) -> Snapshot:
    meta = {f"{name}.json": MetaFile(1) for name in ("targets", *map(releases_role, products))}
    return Snapshot(expires=now + SNAPSHOT_LIFE, meta=meta)


def _signed(
    metadata: Metadata[Root] | Metadata[Targets] | Metadata[Snapshot] | Metadata[Timestamp],
    keys: Iterable[CryptoSigner],
) -> bytes:
    for key in keys:
        metadata.sign(key, append=True)
    return metadata.to_bytes(_COMPACT)


def _make(directory: Path, mode: int) -> None:
    try:
        directory.mkdir(mode=mode, parents=True, exist_ok=True)
        directory.chmod(mode)
    except OSError as error:
        raise OperationError(f"{directory}: cannot be made: {error.strerror or error}") from error


def _write(path: Path, data: bytes) -> None:
    try:
        path.write_bytes(data)
    except OSError as error:
        raise OperationError(f"{path}: cannot be written: {error.strerror or error}") from error
