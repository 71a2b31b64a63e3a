"""Listing a release in TUF metadata: one target in ``releases-{product}``, a new snapshot, signed by offline keys.

The timestamp is not made here: it is the orchestrator's online role (design section 4). What is signed is checked
first as a client would (TUF 5.3 to 5.6, without timestamp): a working copy that was changed is not built upon.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from securesystemslib.signer import Signer
from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import DelegatedRole, Metadata, MetaFile, Root, Snapshot, TargetFile, Targets
from tuf.api.serialization.json import JSONSerializer

from orchestrator.errors import ConflictError, NotAllowedError, NotFoundError, OperationError
from orchestrator.expiry import RELEASES_LIFE, SNAPSHOT_LIFE
from orchestrator.publisher.sealing import Sealed
from orchestrator.publisher.working_copy import S, check_fits, load_metadata, newest_version
from protocol.identifiers import ReleaseName
from protocol.manifest import ReleaseInfo
from protocol.trust.trusted import codesign_role, director_role, releases_role

_COMPACT = JSONSerializer(compact=True)


@dataclass(frozen=True, slots=True)
class Repository:
    """The newest metadata of the publisher's working copy, checked.

    Attributes:
        files: Every file by name, all roots included.
    """

    files: Mapping[str, bytes]
    root: Metadata[Root]
    targets: Metadata[Targets]
    snapshot: Metadata[Snapshot]

    @property
    def _delegated(self) -> Mapping[str, DelegatedRole]:
        delegations = self.targets.signed.delegations
        return (delegations.roles if delegations else None) or {}

    @property
    def fleet(self) -> str:
        """Whose devices the metadata is for: the one fleet whose director the targets role names.

        Raises:
            OperationError: It names none, or several.
        """
        prefix = director_role("")
        fleets = [name.removeprefix(prefix) for name in self._delegated if name.startswith(prefix)]
        if len(fleets) != 1:
            raise OperationError(f"release keys: expected the director of one fleet, found {len(fleets)}")
        return fleets[0]

    @property
    def products(self) -> list[str]:
        """Products that have a role, sorted."""
        return sorted(name.removeprefix(releases_role("")) for name in self._delegated if _is_releases(name))

    def demands(self, product: str) -> dict[str, tuple[list[str], int]]:
        """Key ids and threshold of the roles that a release needs, by role."""
        delegated = self._delegated[releases_role(product)]
        snapshot = self.root.signed.roles[Snapshot.type]
        return {
            releases_role(product): (delegated.keyids, delegated.threshold),
            Snapshot.type: (snapshot.keyids, snapshot.threshold),
        }

    def codesigners(self, component: str, signers: Iterable[Signer]) -> list[Signer] | None:
        """Which of the keys at hand sign a component's list of executables; None where no list is asked for.

        Raises:
            NotAllowedError: Fewer are at hand than the role's threshold demands.
        """
        role = self._delegated.get(codesign_role(component))
        if role is None:
            return None
        mine = [signer for signer in signers if signer.public_key.keyid in role.keyids]
        _enough(role.name, [signer.public_key.keyid for signer in mine], role.threshold)
        return mine

    def releases(self, product: str) -> Metadata[Targets]:
        """The role that lists a product's releases, checked.

        Raises:
            NotFoundError: The targets role delegates no such product.
            OperationError: Its file is missing, damaged or not signed as it must be.
        """
        role = releases_role(product)
        known = [f"{releases_role('')}{name}" for name in self.products]
        if role not in known:
            names = ", ".join(name.removeprefix(releases_role("")) for name in known) or "none"
            raise NotFoundError(f"product {product}: the release keys know {names}; name one of them")
        meta = self.snapshot.signed.meta.get(f"{role}.json")
        if meta is None:
            raise OperationError(f"product {product}: the snapshot does not list {role}.json; restore the working copy")
        metadata = load_metadata(self.files, f"{meta.version}.{role}.json", Targets)
        _check_signed(role, lambda: self.targets.verify_delegate(role, metadata))
        return metadata

    def counter(self, product: str, component: str) -> int:
        """The highest security counter of a component so far; 0 when there is none."""
        return max(
            (
                int(target.custom.get("counter", 0))
                for target in self.releases(product).signed.targets.values()
                if target.custom and target.custom.get("component") == component
            ),
            default=0,
        )


def load_repository(files: Mapping[str, bytes], now: datetime) -> Repository:
    """Check the working copy.

    Raises:
        OperationError: A file is missing, damaged, expired or not signed as it must be; says which and what to do.
    """
    repository = read_repository(files)
    for name, signed in (("root", repository.root.signed), ("targets", repository.targets.signed)):
        if signed.is_expired(now):
            raise OperationError(
                f"release keys: {name} metadata version {signed.version} expired {signed.expires:%Y-%m-%d}; "
                f"renew it with 'flagship trust renew' before releasing"
            )
    return repository


def read_repository(files: Mapping[str, bytes]) -> Repository:
    """Check the working copy in all but expiry: what ran out is what a ceremony renews.

    Raises:
        OperationError: A file is missing, damaged or not signed as it must be; says which and what to do.
    """
    root = load_metadata(files, f"{newest_version(files, 'root')}.root.json", Root)
    targets = load_metadata(files, f"{newest_version(files, 'targets')}.targets.json", Targets)
    snapshot = load_metadata(files, f"{newest_version(files, 'snapshot')}.snapshot.json", Snapshot)
    _check_signed("root", lambda: root.verify_delegate("root", root))
    _check_signed("targets", lambda: root.verify_delegate("targets", targets))
    _check_signed("snapshot", lambda: root.verify_delegate("snapshot", snapshot))
    listed = snapshot.signed.meta.get("targets.json")
    if listed is None or listed.version != targets.signed.version:
        raise OperationError(
            f"release keys: the snapshot names targets version {listed.version if listed else 0}, "
            f"found {targets.signed.version}; restore the working copy"
        )
    return Repository(dict(files), root, targets, snapshot)


def check_new(repository: Repository, name: ReleaseName) -> None:
    """See that a version is not taken.

    Raises:
        ConflictError: It is listed already: a signed name never changes its content.
    """
    if name.target_path in repository.releases(name.product).signed.targets:
        raise ConflictError(f"release {name}: this version is in the metadata already; give the release a new version")


def sign_release(
    repository: Repository, sealed: Sealed, info: ReleaseInfo, signers: Iterable[Signer], now: datetime
) -> dict[str, bytes]:
    """The new metadata files, by name: the releases role with one target more, and the snapshot.

    Args:
        signers: Keys at hand; those of the roles are picked out.

    Raises:
        ConflictError: The version is listed already.
        NotAllowedError: Fewer keys are at hand than a role's threshold demands.
        OperationError: The metadata would no longer fit its topic.
    """
    name = ReleaseName(info.product, info.version)
    check_new(repository, name)
    role = releases_role(info.product)
    available = {signer.public_key.keyid: signer for signer in signers}
    releases = Metadata[Targets].from_bytes(repository.releases(info.product).to_bytes())
    target = TargetFile(len(sealed.data), {"sha256": sealed.sha256}, name.target_path)
    target.unrecognized_fields["custom"] = info.model_dump(mode="json")
    releases.signed.targets[name.target_path] = target
    releases.signed.version += 1
    releases.signed.expires = whole_seconds(now + RELEASES_LIFE)
    snapshot = Metadata[Snapshot].from_bytes(repository.snapshot.to_bytes())
    snapshot.signed.meta[f"{role}.json"] = MetaFile(releases.signed.version)
    snapshot.signed.version += 1
    snapshot.signed.expires = whole_seconds(now + SNAPSHOT_LIFE)
    demands = repository.demands(info.product)
    changed = {
        f"{releases.signed.version}.{role}.json": sign_role(role, releases, *demands[role], available),
        f"{snapshot.signed.version}.snapshot.json": sign_role("snapshot", snapshot, *demands["snapshot"], available),
    }
    check_fits(f"release {name}", {**repository.files, **changed})
    return changed


def check_keys(repository: Repository, product: str, signers: Iterable[Signer]) -> None:
    """See, before any work is done, that the keys at hand reach both thresholds.

    Raises:
        NotAllowedError: They do not.
    """
    repository.releases(product)
    available = {signer.public_key.keyid for signer in signers}
    for role, (keyids, threshold) in repository.demands(product).items():
        _enough(role, [keyid for keyid in keyids if keyid in available], threshold)


def sign_role(
    role: str, metadata: Metadata[S], keyids: Iterable[str], threshold: int, available: Mapping[str, Signer]
) -> bytes:
    """Sign a role's metadata anew with as many keys at hand as it needs.

    Raises:
        NotAllowedError: They are fewer than the threshold demands.
    """
    # In the order of the keys at hand, and no more than needed: those that ask for a password come last.
    mine = [keyid for keyid in available if keyid in set(keyids)]
    _enough(role, mine, threshold)
    metadata.signatures.clear()
    for keyid in mine[:threshold]:
        metadata.sign(available[keyid], append=True)
    return metadata.to_bytes(_COMPACT)


def _enough(role: str, mine: list[str], threshold: int) -> None:
    if len(mine) < threshold:
        raise NotAllowedError(
            f"release keys: role {role} needs {threshold} keys, found {len(mine)}; "
            "name the folder that has them with --keys"
        )


def _check_signed(role: str, verify: Callable[[], None]) -> None:
    try:
        verify()
    except (RepositoryError, ValueError) as error:
        raise OperationError(
            f"release keys: {role} metadata is not signed by its keys; restore the working copy"
        ) from error


def _is_releases(role: str) -> bool:
    return role.startswith(releases_role(""))


def whole_seconds(instant: datetime) -> datetime:
    """As TUF writes times."""
    return instant.replace(microsecond=0)
