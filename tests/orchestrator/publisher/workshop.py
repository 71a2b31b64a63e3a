"""A publisher's folder as the ceremony leaves it, and what the orchestrator's signer holds."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Metadata, MetaFile, Timestamp
from tuf.api.serialization.json import JSONSerializer

from orchestrator.publisher.ceremony import Thresholds, hold_ceremony
from orchestrator.publisher.workspace import Workspace
from orchestrator.signer.keys import load_signer, load_x25519

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)


@dataclass(frozen=True)
class Publisher:
    """A publisher's folder, and the keys that the orchestrator's signer holds."""

    workspace: Workspace
    timestamp: CryptoSigner
    package_key: X25519PrivateKey
    now: datetime

    def served(self) -> dict[str, bytes]:
        """What a client is given: the working copy, and a timestamp for its newest snapshot."""
        files = dict(self.workspace.load().metadata)
        version = max(int(name.split(".")[0]) for name in files if name.endswith(".snapshot.json"))
        metadata = Metadata(Timestamp(version=version, expires=self.now + timedelta(days=7)))
        metadata.signed.snapshot_meta = MetaFile(version)
        metadata.sign(self.timestamp)
        return {**files, "timestamp.json": metadata.to_bytes(JSONSerializer(compact=True))}


def make_publisher(
    home: Path, *, releases: int = 1, start: datetime = NOW, codesign: tuple[str, ...] = ()
) -> Publisher:
    """The ceremony for the fleet ``harbour`` and the product ``gateway``, held at ``start``."""
    hold_ceremony(
        home / "publisher",
        home / "signer",
        home / "trust",
        fleet="harbour",
        products=["gateway"],
        thresholds=Thresholds(releases=releases),
        now=start,
        codesign=codesign,
    )
    signer = home / "signer"
    return Publisher(
        Workspace(home / "publisher"),
        load_signer(signer / "timestamp.key"),
        load_x25519(signer / "package.key"),
        start.replace(microsecond=0),
    )
