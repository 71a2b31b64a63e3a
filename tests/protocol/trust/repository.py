"""A TUF repository in memory, with the roles of the design, whose keeper can be honest or not."""

from datetime import UTC, datetime, timedelta
from typing import Any

from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import (
    DelegatedRole,
    Delegations,
    Metadata,
    MetaFile,
    Root,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)
from tuf.api.serialization.json import JSONSerializer

from protocol.manifest import ReleaseInfo
from protocol.trust.trusted import director_role, releases_role

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
FLEET, PRODUCT = "north", "gateway"
RELEASES = releases_role(PRODUCT)
DIRECTOR = director_role(FLEET)
_COMPACT = JSONSerializer(compact=True)


def release_info(version: str = "1.1.0", counter: int = 0) -> ReleaseInfo:
    """The ``custom`` part of a small release."""
    return ReleaseInfo(
        product=PRODUCT,
        version=version,
        component="app",
        hardware=["rev-a"],
        counter=counter,
        space_bytes=1000,
        pieces=["ab" * 32],
        chunk_count=1,
    )


class Repository:
    """Offline and online keys, and the four metadata roles with the two delegations."""

    def __init__(self) -> None:
        names = ("root", "targets", "snapshot", "timestamp", RELEASES, DIRECTOR)
        self.signers = {name: CryptoSigner.generate_ed25519() for name in names}
        self.root = Root(version=1, expires=NOW + timedelta(days=365), consistent_snapshot=True)
        for role in ("root", "targets", "snapshot", "timestamp"):
            self.root.add_key(self.signers[role].public_key, role)
        self.releases = Targets(version=1, expires=NOW + timedelta(days=90))
        self.targets = Targets(version=1, expires=NOW + timedelta(days=180))
        self.targets.delegations = Delegations(
            keys={},
            roles={
                RELEASES: DelegatedRole(RELEASES, [], 1, terminating=True, paths=[f"{PRODUCT}/*/*"]),
                DIRECTOR: DelegatedRole(DIRECTOR, [], 1, terminating=False, paths=[]),
            },
        )
        for name in (RELEASES, DIRECTOR):
            self.targets.add_key(self.signers[name].public_key, name)
        self.snapshot = Snapshot(version=1, expires=NOW + timedelta(days=30))
        self.timestamp = Timestamp(version=1, expires=NOW + timedelta(days=7))

    def add_release(self, version: str = "1.1.0", counter: int = 0) -> None:
        """List a release; its sealed manifest is the text of its version."""
        info = release_info(version, counter)
        path = f"{PRODUCT}/{version}/manifest"
        target = TargetFile.from_data(path, version.encode(), ["sha256"])
        target.unrecognized_fields["custom"] = info.model_dump(mode="json")
        self.releases.targets[path] = target

    def bump(self) -> None:
        """Raise every version but the root's, as a publisher does for a release."""
        for role in (self.releases, self.targets, self.snapshot, self.timestamp):
            role.version += 1

    def sign(self, signed: Any, *names: str) -> bytes:
        """Metadata as bytes, signed with the named keys."""
        metadata: Metadata[Any] = Metadata(signed)
        for name in names:
            metadata.sign(self.signers[name], append=True)
        return metadata.to_bytes(_COMPACT)

    def root_bytes(self) -> bytes:
        """The root of the first day, as devices are enrolled with."""
        return self.sign(self.root, "root")

    def files(self) -> dict[str, bytes]:
        """What the topics hold: everything signed, and each level naming the one below."""
        self.snapshot.meta = {
            "targets.json": MetaFile(self.targets.version),
            f"{RELEASES}.json": MetaFile(self.releases.version),
        }
        self.timestamp.snapshot_meta = MetaFile(self.snapshot.version)
        return {
            f"{self.root.version}.root.json": self.root_bytes(),
            f"{self.targets.version}.targets.json": self.sign(self.targets, "targets"),
            f"{self.releases.version}.{RELEASES}.json": self.sign(self.releases, RELEASES),
            f"{self.snapshot.version}.snapshot.json": self.sign(self.snapshot, "snapshot"),
            "timestamp.json": self.sign(self.timestamp, "timestamp"),
        }
