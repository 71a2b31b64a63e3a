"""A proposal: new metadata on its way from holder to holder, as one file carried by hand. Pure.

    propose -> sign (each holder, on a machine that needs nothing but this file and the key) -> publish

It brings the metadata that it is based on, so that whoever signs sees what changes. What it says about holders' names
is the proposer's word. Its file is in ``proposal_file``.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from securesystemslib.exceptions import UnverifiedSignatureError
from securesystemslib.signer import Key, Signer
from tuf.api.metadata import Metadata, Root, Snapshot, Targets
from tuf.api.serialization import DeserializationError
from tuf.api.serialization.json import JSONSerializer

from orchestrator.errors import ConflictError, NotAllowedError
from orchestrator.publisher.holders import Holders
from orchestrator.publisher.key_uris import sign_with
from orchestrator.publisher.signing import Repository, read_repository
from orchestrator.publisher.trust_roles import Contents, RoleKeys, contents, is_releases
from orchestrator.publisher.working_copy import current_files

_COMPACT = JSONSerializer(compact=True)


@dataclass(frozen=True, slots=True)
class Demand:
    """What one key set must do for one file.

    Attributes:
        whose: "old keys" and "new keys" of a root that changes them (TUF 5.3.4), else "".
        signed: Key ids whose signature is there and holds.
    """

    file: str
    role: str
    whose: str
    keys: RoleKeys
    signed: frozenset[str]

    @property
    def missing(self) -> int:
        """Signatures that are still needed."""
        return max(0, self.keys.threshold - len(self.signed))

    def sentence(self, holders: Holders) -> str:
        """What is there, and who can still sign."""
        whose = f", {self.whose}" if self.whose else ""
        have = f"{self.role}{whose}: {len(self.signed)} of {self.keys.threshold} signatures"
        if not self.missing:
            return have
        others = ", ".join(holders.title(keyid) for keyid in self.keys.keys if keyid not in self.signed)
        return f"{have}, {self.missing} more of {others}"


@dataclass(frozen=True, slots=True)
class Proposal:
    """New metadata, and what it is based on.

    Attributes:
        base: What the proposer had.
        files: The new metadata by file name, with the signatures so far.
    """

    fleet: str
    made: datetime
    reason: str
    base: Repository
    files: Mapping[str, Metadata[Any]]
    holders: Holders

    @property
    def id(self) -> str:
        """Digest of all that is to be signed; two copies of one proposal have the same."""
        digest = hashlib.sha256()
        for name in sorted(self.files):
            digest.update(f"{name}\n".encode() + self.files[name].signed_bytes)
        return digest.hexdigest()[:12]

    def before(self) -> Contents:
        """What holds now."""
        return contents(self.base)

    def after(self) -> Contents:
        """What will hold."""
        now = self.before()
        new = {name.split(".", 1)[1].removesuffix(".json"): metadata.signed for name, metadata in self.files.items()}
        releases = {**now.releases, **{role: signed for role, signed in new.items() if is_releases(role)}}
        return Contents(
            new.get(Root.type, now.root),
            new.get(Targets.type, now.targets),
            new.get(Snapshot.type, now.snapshot),
            releases,
        )

    def demands(self) -> list[Demand]:
        """Who must sign what, and who has."""
        before, after, found = self.before(), self.after(), []
        for name, metadata in self.files.items():
            role = role_of(name)
            wanted = [("", after.keys(role))]
            if role == Root.type and before.keys(role) != after.keys(role):
                wanted = [("old keys", before.keys(role)), ("new keys", after.keys(role))]
            for whose, keys in wanted:
                signed = frozenset(keyid for keyid in keys.keys if keyid in metadata.signatures)
                found.append(Demand(name, role, whose, keys, signed))
        return found

    def signed_files(self) -> dict[str, bytes]:
        """The new metadata as it is published."""
        return {name: metadata.to_bytes(_COMPACT) for name, metadata in self.files.items()}

    def wanted(self) -> dict[str, Key]:
        """Every key that may sign something here."""
        return {keyid: key for demand in self.demands() for keyid, key in demand.keys.keys.items()}

    def missing(self) -> list[str]:
        """A sentence for each threshold that is not met."""
        return [demand.sentence(self.holders) for demand in self.demands() if demand.missing]


def sign_proposal(proposal: Proposal, signer: Signer, where: str) -> Proposal:
    """Add one key's signature to every file that wants it.

    Raises:
        NotAllowedError: The key signs nothing here.
        ConflictError: It has signed already.
        OperationError: The key does not sign, or is not the one that it says.
    """
    keyid = signer.public_key.keyid
    mine = {demand.file for demand in proposal.demands() if keyid in demand.keys.keys}
    if not mine:
        raise NotAllowedError(f"key {keyid[:12]}: signs nothing in this proposal; it wants {_names(proposal)}")
    open_files = {name for name in mine if keyid not in proposal.files[name].signatures}
    if not open_files:
        raise ConflictError(f"key {proposal.holders.title(keyid)}: has signed already; one key counts once")
    files = dict(proposal.files)
    for name in open_files:
        metadata = _copy(files[name])
        signature = sign_with(signer, metadata.signed_bytes, where)
        verify_signature(f"key {where}", signer.public_key, metadata, signature)
        metadata.signatures[keyid] = signature
        files[name] = metadata
    return replace(proposal, files=files)


def merge(proposals: Iterable[Proposal]) -> Proposal:
    """One proposal with the signatures of all copies.

    Raises:
        ConflictError: They are not copies of one proposal.
    """
    first, *others = proposals
    files = {name: _copy(metadata) for name, metadata in first.files.items()}
    for other in others:
        if other.id != first.id:
            raise ConflictError(
                f"proposals {first.id} and {other.id}: not copies of one; merge what was made from the same file"
            )
        for name, metadata in other.files.items():
            files[name].signatures.update(metadata.signatures)
    return replace(first, files=files)


def check_base(proposal: Proposal, files: Mapping[str, bytes]) -> None:
    """See that the working copy is what the proposal is based on.

    Raises:
        NotAllowedError: It is of another fleet.
        ConflictError: Somebody published meanwhile, or the proposal was published already.
    """
    done = [name for name, metadata in proposal.files.items() if _is_copy(files.get(name), metadata)]
    if len(done) == len(proposal.files):
        raise ConflictError(
            f"proposal {proposal.id}: published already; 'flagship trust publish' hands it to serve again"
        )
    # What an interrupted publication left is no news.
    files = {name: data for name, data in files.items() if name not in done}
    here = read_repository(files)
    if here.fleet != proposal.fleet:
        raise NotAllowedError(f"proposal {proposal.id}: for fleet {proposal.fleet}, these keys are of {here.fleet}")
    current, based = newest_files(files), newest_files(proposal.base.files)
    stale = sorted(name for name in {*current, *based} if current.get(name) != based.get(name))
    if stale:
        raise ConflictError(
            f"proposal {proposal.id}: based on another state ({', '.join(stale[:4])}): somebody published meanwhile; "
            "propose it again from the newest working copy"
        )


def _is_copy(data: bytes | None, metadata: Metadata[Any]) -> bool:
    if data is None:
        return False
    try:
        return Metadata[Any].from_bytes(data).signed_bytes == metadata.signed_bytes
    except DeserializationError:
        return False


def newest_files(files: Mapping[str, bytes]) -> dict[str, bytes]:
    """The current files without older roots."""
    found = current_files(files)
    newest = max(int(name.split(".")[0]) for name in found if name.endswith(".root.json"))
    return {
        name: data for name, data in found.items() if not name.endswith(".root.json") or name == f"{newest}.root.json"
    }


def verify_signature(what: str, key: Key, metadata: Metadata[Any], signature: Any) -> None:  # noqa: ANN401 - a Signature
    """See that a signature holds.

    Raises:
        NotAllowedError: It does not.
    """
    try:
        key.verify_signature(signature, metadata.signed_bytes)
    except UnverifiedSignatureError as error:
        raise NotAllowedError(
            f"{what}: the signature of key {key.keyid[:12]} does not hold; the file was changed, or the key is another"
        ) from error


def _names(proposal: Proposal) -> str:
    return ", ".join(proposal.holders.title(keyid) for keyid in proposal.wanted())


def role_of(name: str) -> str:
    """The role of a metadata file: ``7.targets.json`` -> ``targets``."""
    return name.partition(".")[2].removesuffix(".json")


def _copy(metadata: Metadata[Any]) -> Metadata[Any]:
    return Metadata[Any].from_bytes(metadata.to_bytes(_COMPACT))
