"""A publisher's folder with keys and first metadata, as the ceremony leaves it."""

import os
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import (
    DelegatedRole,
    Delegations,
    Metadata,
    MetaFile,
    Root,
    Snapshot,
    Targets,
    Timestamp,
)
from tuf.api.serialization.json import JSONSerializer

from orchestrator.publisher.workspace import Workspace

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
COMPACT = JSONSerializer(compact=True)


@dataclass(frozen=True)
class Publisher:
    """A publisher's folder, and the keys that the orchestrator's signer holds."""

    workspace: Workspace
    timestamp: CryptoSigner
    package_key: X25519PrivateKey
    now: datetime = NOW

    def served(self) -> dict[str, bytes]:
        """What a client is given: the working copy, and a timestamp for its newest snapshot."""
        files = dict(self.workspace.load().metadata)
        version = max(int(name.split(".")[0]) for name in files if name.endswith(".snapshot.json"))
        metadata = Metadata(Timestamp(version=version, expires=NOW + timedelta(days=7)))
        metadata.signed.snapshot_meta = MetaFile(version)
        metadata.sign(self.timestamp)
        return {**files, "timestamp.json": metadata.to_bytes(COMPACT)}


def make_publisher(
    directory: Path, *, threshold: int = 1, root_days: int = 365, targets_days: int = 180, start: datetime = NOW
) -> Publisher:
    """Keys and first metadata for the fleet ``harbour`` and the product ``gateway``."""
    workspace = Workspace(directory)
    workspace.keys.mkdir(parents=True)
    workspace.metadata.mkdir()

    def key(name: str) -> CryptoSigner:
        private = Ed25519PrivateKey.generate()
        pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        path = workspace.keys / f"{name}.key"
        path.touch(0o600)
        path.write_bytes(pem)
        return CryptoSigner(private)

    signers = {name: key(name) for name in ("root", "targets", "snapshot")}
    releases = [key(f"releases-{number}") for number in range(threshold)]
    timestamp, director = CryptoSigner.generate_ed25519(), CryptoSigner.generate_ed25519()
    root = Root(expires=start.replace(microsecond=0) + timedelta(days=root_days), consistent_snapshot=True)
    for role in ("root", "targets", "snapshot"):
        root.add_key(signers[role].public_key, role)
    root.add_key(timestamp.public_key, "timestamp")
    targets = Targets(expires=start.replace(microsecond=0) + timedelta(days=targets_days))
    targets.delegations = Delegations({}, {})
    roles = targets.delegations.roles
    assert roles is not None
    roles["releases-gateway"] = DelegatedRole("releases-gateway", [], threshold, True, paths=["gateway/*/*"])
    roles["director-harbour"] = DelegatedRole("director-harbour", [], 1, True, paths=[])
    for signer in releases:
        targets.add_key(signer.public_key, "releases-gateway")
    targets.add_key(director.public_key, "director-harbour")
    listed = Targets(expires=start.replace(microsecond=0) + timedelta(days=90))
    snapshot = Snapshot(expires=start.replace(microsecond=0) + timedelta(days=30))
    snapshot.meta = {"targets.json": MetaFile(1), "releases-gateway.json": MetaFile(1)}
    signed = (
        ("root", root, [signers["root"]]),
        ("targets", targets, [signers["targets"]]),
        ("snapshot", snapshot, [signers["snapshot"]]),
        ("releases-gateway", listed, releases),
    )
    for name, content, keys in signed:
        metadata: Metadata[Any] = Metadata(content)
        for signer in keys:
            metadata.sign(signer, append=True)
        (workspace.metadata / f"1.{name}.json").write_bytes(metadata.to_bytes(COMPACT))
    package_key = X25519PrivateKey.generate()
    public = package_key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    workspace.package_key.write_bytes(public)
    workspace.secret.touch(0o600)
    workspace.secret.write_bytes(os.urandom(32))
    return Publisher(workspace, timestamp, package_key)
