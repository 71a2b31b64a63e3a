"""What the fleet published, as books that are changed and signed again: by their owner, or by who stole the keys.

Every key of the fleet lies in ``signers``; which of them an attacker has is said where an attack uses it.
"""

from collections.abc import Mapping
from typing import Any

from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import DelegatedRole, Metadata, MetaFile, Root, Snapshot, Targets, Timestamp
from tuf.api.serialization.json import JSONSerializer

from protocol.topics import Kind
from protocol.trust.bundle import pack_bundle
from protocol.trust.trusted import director_role, releases_role
from tests.attacks.arena import Arena
from tests.integration.small_fleet import FLEET, PRODUCT
from tests.protocol.trust.repository import Repository

RELEASES = releases_role(PRODUCT)
DIRECTOR = director_role(FLEET)
_COMPACT = JSONSerializer(compact=True)


def by(signed: Root | Targets | Snapshot | Timestamp, *signers: CryptoSigner) -> bytes:
    """A role as bytes, signed by these keys and no others."""
    metadata: Metadata[Any] = Metadata(signed)
    for signer in signers:
        metadata.sign(signer, append=True)
    return metadata.to_bytes(_COMPACT)


class Books(Repository):
    """The repository of a running fleet.

    Attributes:
        more: Roles that were delegated since, of which the snapshot names version 1.
        dropped: Roles that the snapshot does not name.
        hashed: Bytes of roles that the snapshot names by their hash too.
    """

    def __init__(self, ground: Arena) -> None:
        self._ground = ground
        signed: dict[str, Any] = {role: Metadata.from_bytes(data).signed for role, data in ground.metadata().items()}
        self.root, self.targets, self.releases = signed["root"], signed["targets"], signed[RELEASES]
        self.snapshot, self.timestamp = signed["snapshot"], signed["timestamp"]
        self.signers = {
            **{role: ground.offline(role) for role in ("root", "targets", "snapshot", RELEASES)},
            "timestamp": ground.online("timestamp"),
            DIRECTOR: ground.online("director"),
        }
        self._former_root: list[CryptoSigner] = []
        self.more: list[str] = []
        self.dropped: list[str] = []
        self.hashed: dict[str, bytes] = {}

    def files(self) -> dict[str, bytes]:
        """As the repository's, with a snapshot that says of roles what the attributes do."""
        files = super().files()
        self.snapshot.meta.update({f"{role}.json": MetaFile(1) for role in self.more})
        for role, data in self.hashed.items():
            named = self.snapshot.meta[f"{role}.json"]
            self.snapshot.meta[f"{role}.json"] = MetaFile.from_data(named.version, data, ["sha256"])
        for role in self.dropped:
            del self.snapshot.meta[f"{role}.json"]
        return {**files, f"{self.snapshot.version}.snapshot.json": self.sign(self.snapshot, "snapshot")}

    def delegation(self, name: str) -> DelegatedRole:
        """What targets says of a role."""
        assert self.targets.delegations
        assert self.targets.delegations.roles
        return self.targets.delegations.roles[name]

    def delegate(self, name: str, path: str, key: CryptoSigner) -> None:
        """Let one role more, which is asked before the lists of releases, sign for a path."""
        assert self.targets.delegations
        assert self.targets.delegations.roles
        roles = self.targets.delegations.roles
        releases = {role: roles.pop(role) for role in list(roles) if role == RELEASES}
        roles[name] = DelegatedRole(name, [], 1, terminating=False, paths=[path])
        roles.update(releases)
        self.targets.add_key(key.public_key, name)

    def root_bytes(self) -> bytes:
        """The newest root, signed by its own key and the one before (TUF 5.3.4)."""
        return by(self.root, *self._former_root, self.signers["root"])

    def rekey_root(self, *roles: str) -> None:
        """Write root anew, with other keys for some of its roles."""
        self._former_root = [self.signers["root"]] if "root" in roles else []
        self.root.version += 1
        for role in roles:
            self.root.revoke_key(self.signers[role].public_key.keyid, role)
            self.signers[role] = CryptoSigner.generate_ed25519()
            self.root.add_key(self.signers[role].public_key, role)

    def rekey_delegation(self, name: str) -> None:
        """Write targets anew, with another key for a role that it delegates to."""
        self.targets.version += 1
        self.targets.revoke_key(self.signers[name].public_key.keyid, name)
        self.signers[name] = CryptoSigner.generate_ed25519()
        self.targets.add_key(self.signers[name].public_key, name)

    async def publish(self, replaced: Mapping[str, bytes] | None = None) -> dict[str, bytes]:
        """Put on the trust topics what the books say, the bundle first; some files by name may be others. All of it."""
        files = {**self.files(), **(replaced or {})}
        await self.put(files)
        return files

    async def put(self, files: Mapping[str, bytes]) -> None:
        """Put files by name on the trust topics."""
        await self._ground.put(
            Kind.TRUST_BUNDLE, pack_bundle({name: data for name, data in files.items() if name != "timestamp.json"})
        )
        await self._ground.put(Kind.TRUST_TIMESTAMP, files["timestamp.json"])
