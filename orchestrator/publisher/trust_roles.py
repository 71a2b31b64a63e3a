"""What the metadata says about roles: who may sign what, up to when, and which releases are listed. Pure."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from securesystemslib.signer import Key
from tuf.api.metadata import DelegatedRole, Delegations, Metadata, Role, Root, Snapshot, Targets, Timestamp
from tuf.api.serialization import DeserializationError

from orchestrator.publisher.signing import Repository
from protocol.trust.trusted import director_role, releases_role

TOP_LEVEL = (Root.type, Targets.type, Snapshot.type, Timestamp.type)
ONLINE = (Timestamp.type, director_role(""))
"""Roles whose keys the orchestrator's signer holds: one signature each."""
CODESIGN = "codesign-"


def is_releases(role: str) -> bool:
    """Whether a role lists releases."""
    return role.startswith(releases_role(""))


def is_online(role: str) -> bool:
    """Whether the orchestrator's signer holds the role's keys."""
    return role.startswith(ONLINE)


@dataclass(frozen=True, slots=True)
class RoleKeys:
    """The keys of a role by id, and how many must sign."""

    keys: Mapping[str, Key]
    threshold: int


@dataclass(frozen=True, slots=True)
class Contents:
    """The newest metadata of every role, without signatures.

    Attributes:
        releases: By role name.
    """

    root: Root
    targets: Targets
    snapshot: Snapshot
    releases: Mapping[str, Targets]

    def roles(self) -> Iterator[str]:
        """Names: the four of TUF, then the delegated ones, sorted."""
        yield from TOP_LEVEL
        yield from sorted(delegated(self.targets))

    def keys(self, role: str) -> RoleKeys:
        """Who signs a role; no key and threshold 0 where there is no such role."""
        if role in TOP_LEVEL:
            return _role_keys(self.root.roles[role], self.root.keys)
        found = delegated(self.targets).get(role)
        return _role_keys(found, delegations(self.targets).keys) if found else RoleKeys({}, 0)

    def version(self, role: str) -> int | None:
        """Of the role's metadata; None for key carriers and the timestamp, which is not made here."""
        signed = self.signed(role)
        return signed.version if signed else None

    def expires(self, role: str) -> datetime | None:
        """When the role's metadata runs out; None as in ``version``."""
        signed = self.signed(role)
        return signed.expires if signed else None

    def signed(self, role: str) -> Root | Targets | Snapshot | None:
        """The role's metadata."""
        found: dict[str, Root | Targets | Snapshot] = {
            Root.type: self.root,
            Targets.type: self.targets,
            Snapshot.type: self.snapshot,
            **self.releases,
        }
        return found.get(role)


def contents(repository: Repository) -> Contents:
    """The working copy's contents.

    Raises:
        OperationError: A releases file is missing or not signed as it must be.
    """
    return Contents(
        repository.root.signed,
        repository.targets.signed,
        repository.snapshot.signed,
        {releases_role(product): repository.releases(product).signed for product in repository.products},
    )


def named_keys(files: Mapping[str, bytes]) -> dict[str, Key]:
    """Every key that the newest root and targets name, by key id; unproven: only to know which keys are of use."""
    found: dict[str, Key] = {}
    for role in (Root.type, Targets.type):
        names = [name for name in files if name.endswith(f".{role}.json") and name[0].isdigit()]
        newest = max(names, key=lambda name: int(name.split(".")[0]), default="")
        try:
            signed = Metadata[Any].from_bytes(files.get(newest, b"")).signed
        except DeserializationError:
            continue  # said by whoever reads it for what is in it
        found |= signed.keys if isinstance(signed, Root) else delegations(signed).keys
    return found


def delegations(targets: Targets) -> Delegations:
    """The delegations of the top-level targets; an empty one where there are none."""
    return targets.delegations or Delegations({}, {})


def delegated(targets: Targets) -> Mapping[str, DelegatedRole]:
    """Delegated roles by name."""
    return delegations(targets).roles or {}


def _role_keys(role: Role, keys: Mapping[str, Key]) -> RoleKeys:
    return RoleKeys({keyid: keys[keyid] for keyid in role.keyids}, role.threshold)
