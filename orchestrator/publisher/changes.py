"""What a ceremony may change, and the metadata that follows from it. Pure: nothing is signed here.

A role whose file its new keys did not sign gets a new version: a signed name never changes its content. Everything
that a new version stands on follows: targets and releases need a new snapshot.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, TypeVar

from securesystemslib.signer import Key
from tuf.api.metadata import DelegatedRole, Metadata, MetaFile, Role, Root, Snapshot, Targets

from orchestrator.errors import ConflictError, NotFoundError, OperationError, UsageError
from orchestrator.expiry import life_of
from orchestrator.publisher.signing import Repository
from orchestrator.publisher.trust_roles import CODESIGN, TOP_LEVEL, delegated, delegations, is_online, is_releases
from protocol.identifiers import ReleaseName, check_id
from protocol.trust.trusted import director_role, releases_role
from protocol.trust.workflow import MAX_ROOT_ROTATIONS

MAX_KEYS = 16
MAX_LIFE = timedelta(days=3650)
T = TypeVar("T", Root, Targets, Snapshot)


@dataclass(frozen=True, slots=True)
class Change:
    """What a person wants.

    Attributes:
        add: (role, key).
        remove: (role, key id).
        renew: Role -> its new life; None is the usual one.
        products: New products; each needs keys in ``add``.
        unlist: Releases that devices shall no longer install.
    """

    add: tuple[tuple[str, Key], ...] = ()
    remove: tuple[tuple[str, str], ...] = ()
    thresholds: Mapping[str, int] = field(default_factory=dict)
    renew: Mapping[str, timedelta | None] = field(default_factory=dict)
    products: tuple[str, ...] = ()
    unlist: tuple[ReleaseName, ...] = ()


def apply(repository: Repository, change: Change, now: datetime) -> dict[str, Metadata[Any]]:
    """The new metadata by file name, unsigned.

    Raises:
        UsageError: The change makes no sense.
        NotFoundError: A role or key that it names is not there.
        ConflictError: It is so already.
        OperationError: What would result is not valid.
    """
    work = _Work(repository)
    work.check_roles(change)
    for product in change.products:
        work.add_product(product)
    for role, key in change.add:
        work.add(role, key)
    for role, threshold in change.thresholds.items():
        work.set_threshold(role, threshold)
    for role, keyid in change.remove:
        work.remove(role, keyid)
    for name in change.unlist:
        work.unlist(name)
    changed = work.finish(change.renew, now.replace(microsecond=0))
    if not changed:
        raise UsageError("proposal: expected something to change, found nothing; see 'flagship trust propose --help'")
    return changed


class _Work:
    """The metadata while it is being changed; ``touched`` are the roles that get a new version."""

    def __init__(self, repository: Repository) -> None:
        self._repository = repository
        self.root = _copy(repository.root)
        self.targets = _copy(repository.targets)
        self.snapshot = _copy(repository.snapshot)
        self.releases = {releases_role(product): _copy(repository.releases(product)) for product in repository.products}
        self.touched: set[str] = set()
        self._new: set[str] = set()
        self._keyed: set[str] = set()

    def check_roles(self, change: Change) -> None:
        """Every role that is named exists, or is made by this change."""
        made = {releases_role(product) for product in change.products}
        made |= {role for role, _ in change.add if role.startswith(CODESIGN)}
        for role in made:
            _check_name(role)
        known = {*TOP_LEVEL, *delegated(self.targets.signed), *made}
        named = [role for role, _ in (*change.add, *change.remove)] + [*change.thresholds, *change.renew]
        for role in named:
            if role not in known:
                raise NotFoundError(f"role {role}: expected one of {', '.join(sorted(known))}")
        for role in change.renew:
            if role not in TOP_LEVEL and not is_releases(role):
                raise UsageError(f"role {role}: names keys and has no metadata of its own; renew targets")
        if "timestamp" in change.renew:
            raise UsageError("role timestamp: the orchestrator renews it daily; see that 'flagship serve' runs")

    def add_product(self, product: str) -> None:
        role = releases_role(product)
        if role in delegated(self.targets.signed):
            raise ConflictError(f"product {product}: has a role already")
        self._delegate(DelegatedRole(role, [], 1, terminating=True, paths=[f"{product}/*/*"]))
        self.releases[role] = Metadata(Targets())
        self._new.add(role)

    def add(self, role: str, key: Key) -> None:
        if role.startswith(CODESIGN) and role not in delegated(self.targets.signed):
            self._delegate(DelegatedRole(role, [], 1, terminating=True, paths=[]))
        if key.keyid in self._role(role).keyids:
            raise ConflictError(f"role {role}: has key {key.keyid[:12]} already")
        for other, keys in self._holders_of(key).items():
            if other == role:
                raise ConflictError(f"role {role}: has this key already, as {keys[:12]}; one key counts once")
            if is_online(other) or is_online(role):
                raise UsageError(
                    f"role {role}: key {key.keyid[:12]} is a key of {other}; what the orchestrator holds "
                    "must sign nothing else"
                )
        self._touch(role)
        holder = self.root.signed if role in TOP_LEVEL else self.targets.signed
        holder.add_key(key, role)

    def remove(self, role: str, keyid: str) -> None:
        found = self._role(role)
        if keyid not in found.keyids:
            raise NotFoundError(f"role {role}: has no key {keyid[:12]}; see 'flagship trust show'")
        self._touch(role)
        holder = self.root.signed if role in TOP_LEVEL else self.targets.signed
        holder.revoke_key(keyid, role)

    def set_threshold(self, role: str, threshold: int) -> None:
        if threshold < 1:
            raise UsageError(f"role {role}: expected a threshold of at least 1, found {threshold}")
        if is_online(role) and threshold != 1:
            raise UsageError(
                f"role {role}: expected threshold 1, found {threshold}; the orchestrator signs with one key"
            )
        self._touch(role)
        self._role(role).threshold = threshold

    def unlist(self, name: ReleaseName) -> None:
        role = releases_role(name.product)
        metadata = self.releases.get(role)
        if metadata is None or metadata.signed.targets.pop(name.target_path, None) is None:
            raise NotFoundError(f"release {name}: not listed; see 'flagship trust show'")
        self.touched.add(role)

    def finish(self, renew: Mapping[str, timedelta | None], now: datetime) -> dict[str, Metadata[Any]]:
        """Check the result, and give every touched role its version and expiry."""
        for role in self._keyed | self._new:
            self._check_keys(role)
        self.touched |= renew.keys()
        if not _is_signed(self.root.signed, Targets.type, self.targets):
            self.touched.add(Targets.type)
        self.touched |= {
            role for role, metadata in self.releases.items() if not _is_signed(self.targets.signed, role, metadata)
        }
        if self.touched - {Root.type} or not _is_signed(self.root.signed, Snapshot.type, self.snapshot):
            self.touched.add(Snapshot.type)
        changed: dict[str, Metadata[Any]] = {}
        for role in [Root.type, Targets.type, *sorted(self.releases), Snapshot.type]:
            metadata = self._metadata(role)
            if role in self.touched:
                life = renew.get(role)
                _renew(metadata, life_of(role) if life is None else life, now, is_new=role in self._new)
                changed[f"{metadata.signed.version}.{role}.json"] = metadata
            elif role in TOP_LEVEL and metadata.signed.is_expired(now):
                raise OperationError(
                    f"role {role}: expired {metadata.signed.expires:%Y-%m-%d}, so nothing that stands on it counts; "
                    f"renew it in the same proposal with --renew {role}"
                )
            if role not in (Root.type, Snapshot.type):
                self.snapshot.signed.meta[f"{role}.json"] = MetaFile(metadata.signed.version)
        if self.root.signed.version > MAX_ROOT_ROTATIONS:
            raise OperationError(
                f"role root: version {MAX_ROOT_ROTATIONS} is the last that devices of the first follow"
            )
        return changed

    def _metadata(self, role: str) -> Metadata[Any]:
        top: dict[str, Metadata[Any]] = {
            Root.type: self.root, Targets.type: self.targets, Snapshot.type: self.snapshot
        }  # fmt: skip
        return top.get(role) or self.releases[role]

    def _check_keys(self, role: str) -> None:
        found = self._role(role)
        if not found.keyids:
            raise UsageError(f"role {role}: nobody could sign it; expected at least one key, found none")
        if found.threshold > len(found.keyids):
            raise UsageError(
                f"role {role}: threshold {found.threshold} with {len(found.keyids)} keys can never be met; "
                "add keys or lower the threshold in the same proposal"
            )
        if len(found.keyids) > MAX_KEYS:
            raise UsageError(f"role {role}: expected at most {MAX_KEYS} keys, found {len(found.keyids)}")

    def _role(self, role: str) -> Role:
        return self.root.signed.roles[role] if role in TOP_LEVEL else delegated(self.targets.signed)[role]

    def _holders_of(self, key: Key) -> dict[str, str]:
        """Roles that have the same public key, under whatever id."""
        found = {}
        for role in [*TOP_LEVEL, *delegated(self.targets.signed)]:
            keys = self.root.signed.keys if role in TOP_LEVEL else delegations(self.targets.signed).keys
            for keyid in self._role(role).keyids:
                if keys[keyid].keyval.get("public") == key.keyval.get("public"):
                    found[role] = keyid
        return found

    def _delegate(self, role: DelegatedRole) -> None:
        roles = delegations(self.targets.signed).roles
        if roles is None:
            raise OperationError("targets: delegates by hash bins, which this tool does not know")
        roles[role.name] = role
        self.touched.add(Targets.type)
        self._keyed.add(role.name)

    def _touch(self, role: str) -> None:
        self._keyed.add(role)
        self.touched.add(Root.type if role in TOP_LEVEL else Targets.type)


def _check_name(role: str) -> None:
    for prefix in (releases_role(""), CODESIGN, director_role("")):
        if role.startswith(prefix):
            try:
                check_id(role.removeprefix(prefix), "name of a role")
            except ValueError as error:
                raise UsageError(str(error)) from error


def _is_signed(delegator: Root | Targets, role: str, metadata: Metadata[Any]) -> bool:
    return bool(delegator.get_verification_result(role, metadata.signed_bytes, metadata.signatures))


def _renew(metadata: Metadata[Any], life: timedelta, now: datetime, *, is_new: bool) -> None:
    if not timedelta(0) < life <= MAX_LIFE:
        raise UsageError(f"expiry: expected 1 to {MAX_LIFE.days} days, found {life.days}")
    metadata.signed.version += 0 if is_new else 1
    metadata.signed.expires = now + life
    metadata.signatures.clear()


def _copy(metadata: Metadata[T]) -> Metadata[T]:
    return Metadata[T].from_bytes(metadata.to_bytes())
