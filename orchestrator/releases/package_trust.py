"""The trust metadata of a package or a ceremony, checked as a device would, on top of what is published. Blocking.

The timestamp is this side's own: a device needs one that names the new snapshot, so the check makes it.
"""

import contextlib
import json
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol

from tuf.api.metadata import Metadata, Root, Targets, Timestamp
from tuf.api.serialization import DeserializationError

from orchestrator.durable import replace_durably
from orchestrator.errors import ConflictError, NotAllowedError, NotFoundError, OperationError
from orchestrator.package import TRUST, PackageReader
from protocol.envelopes import Verify
from protocol.errors import ErrorCode, TrustError
from protocol.identifiers import ReleaseName
from protocol.trust.bundle import MAX_BUNDLE_UNPACKED_BYTES
from protocol.trust.trusted import ReleaseTarget, Trusted, director_role, releases_role
from protocol.trust.workflow import MAX_ROOT_ROTATIONS, TrustStore

TIMESTAMP = "timestamp.json"
MAX_FILES = MAX_ROOT_ROTATIONS + 64
MAX_UPDATE_BYTES = 2 * 2**20
_ROOT, _TARGETS, _SNAPSHOT = ".root.json", ".targets.json", ".snapshot.json"
_OLDER = frozenset({ErrorCode.ROLLBACK_METADATA})


class Timestamps(Protocol):
    """Who signs freshness."""

    def bump_timestamp(self, snapshot_version: int, listed: Sequence[str] = ()) -> bytes:
        """The next timestamp over a snapshot, signed by one of the listed keys."""
        ...


@dataclass(frozen=True, slots=True)
class CheckedTrust:
    """Metadata that holds: the release it lists, and the files to store (the timestamp among them).

    Attributes:
        codesign: Who signs a component's list of executables; None where no list is asked for.
    """

    target: ReleaseTarget
    files: Mapping[str, bytes]
    codesign: Callable[[str], Verify | None]


def check_trust(package: PackageReader, trust: Path, signer: Timestamps, now: datetime) -> CheckedTrust:
    """Check a package's metadata against the fleet's root and what is published now.

    Only what was verified is handed on: a package may carry anything beside it.

    Raises:
        NotFoundError: The home lacks its metadata, or the package does not list its own release.
        NotAllowedError: It is not signed by this fleet's release keys.
        ConflictError: It is older than what is published, or made beside it.
        OperationError: It is damaged or too large.
    """
    known, news = read_home(trust), _read_package(package)
    name = ReleaseName(package.header.product, package.header.version)
    what = f"package of {name}"
    with _verifying(what, known, news, signer, now) as checked:
        target = checked.trusted.release(name.target_path)
    if target is None:
        raise NotFoundError(f"package of {name}: its metadata does not list it; create the release again")
    if target.sha256 != package.header.manifest_sha256:
        raise OperationError(f"package of {name}: damaged, it is not the release that its metadata lists")
    return CheckedTrust(target, checked.news, checked.trusted.verify_codesign)


def check_update(files: Mapping[str, bytes], trust: Path, signer: Timestamps, now: datetime) -> "Checked":
    """Check metadata that a ceremony made; raises as ``check_trust``."""
    if len(files) > MAX_FILES or sum(map(len, files.values())) > MAX_UPDATE_BYTES:
        raise OperationError(f"trust metadata: expected at most {MAX_FILES} files and {MAX_UPDATE_BYTES} B")
    news = {name: data for name, data in files.items() if name != TIMESTAMP}
    with _verifying("trust metadata", read_home(trust), news, signer, now) as checked:
        return checked


@dataclass(frozen=True, slots=True)
class Checked:
    """A verified state, and what of it is not published yet."""

    trusted: Trusted
    news: Mapping[str, bytes]


@contextlib.contextmanager
def _verifying(
    what: str, known: Mapping[str, bytes], news: dict[str, bytes], signer: Timestamps, now: datetime
) -> Iterator[Checked]:
    """Verify as a client would; what is asked of the result inside is translated like the rest."""
    first, all_files = _first_root(known), {**known, **news}
    snapshot = max((_version(name) for name in all_files if name.endswith(_SNAPSHOT)), default=0)
    with tempfile.TemporaryDirectory(prefix="trust-check-") as temporary:
        store = TrustStore(Path(temporary), known[f"{first}.root.json"])
        try:
            _take_known(store, known, now)
            # The first root is this home's own, whatever came under its name.
            listed = timestamp_keys({**all_files, f"{first}{_ROOT}": known[f"{first}{_ROOT}"]})
            files = {**all_files, TIMESTAMP: signer.bump_timestamp(snapshot, listed)}
            trusted = store.refresh(files, now)
            verified = _verified(trusted, files, first)
            _check_follows(what, verified, known, news)
            yield Checked(trusted, {file: files[file] for file in verified if known.get(file) != files[file]})
        except TrustError as error:
            raise _explained(what, error) from error


def timestamp_keys(files: Mapping[str, bytes]) -> list[str]:
    """Key ids of the timestamp role in the newest root that the first one leads to (TUF 5.3.2 to 5.3.9)."""
    number = _first_root(files)
    try:
        root = Metadata[Root].from_bytes(files[f"{number}{_ROOT}"])
        while following := files.get(f"{number + 1}{_ROOT}"):
            candidate = Metadata[Root].from_bytes(following)
            signed_by = candidate.signed.get_root_verification_result
            if not signed_by(root.signed, candidate.signed_bytes, candidate.signatures):
                break
            root, number = candidate, number + 1
    except (DeserializationError, ValueError, AttributeError):
        return []  # it is refused when it is verified
    return list(root.signed.roles[Timestamp.type].keyids)


def director_keys(trust: Path, fleet: str) -> list[str]:
    """Key ids of the director in the newest targets that is published.

    Raises:
        OperationError: The home's trust folder is damaged.
    """
    files = read_home(trust)
    newest = max((name for name in files if name.endswith(_TARGETS)), key=_version, default="")
    try:
        delegations = Metadata[Targets].from_bytes(files.get(newest, b"")).signed.delegations
        roles = (delegations.roles if delegations else None) or {}
        return list(roles[director_role(fleet)].keyids)
    except (DeserializationError, KeyError, AttributeError) as error:
        raise OperationError(
            f"{trust}: its targets name no director of fleet {fleet}; restore it from a backup"
        ) from error


def _verified(trusted: Trusted, files: Mapping[str, bytes], first_root: int) -> frozenset[str]:
    """Names of the files that were verified: the chain of roots, and one set that the snapshot names in full.

    Raises:
        TrustError: The releases of another product do not hold; its devices would be left without.
    """
    snapshot = files[f"{trusted.roles['snapshot'].version}{_SNAPSHOT}"]
    prefix = releases_role("")
    for role in json.loads(snapshot)["signed"]["meta"]:
        if role.startswith(prefix):
            trusted.release(f"{role.removeprefix(prefix).removesuffix('.json')}/-/-")
    roles = trusted.roles
    names = {f"{number}.root.json" for number in range(first_root + 1, roles["root"].version + 1)}
    names |= {f"{role.version}.{name}.json" for name, role in roles.items() if name not in ("root", "timestamp")}
    return frozenset({*names, TIMESTAMP})


def _check_follows(what: str, verified: Iterable[str], known: Mapping[str, bytes], news: Mapping[str, bytes]) -> None:
    """Two files of one version would split the fleet: devices keep whichever they saw first.

    Raises:
        ConflictError: The package brings another content for a version that is published.
    """
    for file in sorted(verified):
        if file != TIMESTAMP and file in known and news.get(file, known[file]) != known[file]:
            raise ConflictError(
                f"{what}: its {file} is not the one that is published here; the release keys folder that "
                "made it is an old copy: copy the newest metadata into it and do it again"
            )


def _take_known(store: TrustStore, known: Mapping[str, bytes], now: datetime) -> None:
    """Set the floor below which new metadata may not fall; what ran out is the reason why new metadata comes."""
    try:
        store.refresh(known, now, ())
    except TrustError as error:
        if error.code is not ErrorCode.FREEZE:
            raise


def store_trust(trust: Path, files: Mapping[str, bytes]) -> None:
    """Add checked files: the snapshot after what it names, the timestamp last. Durable when it returns.

    Raises:
        OperationError: The disk does not take them; what was published stays valid.
    """
    for name in sorted(files, key=lambda name: (name == TIMESTAMP, name.endswith(_SNAPSHOT), name)):
        place = trust / name
        try:
            replace_durably(place, files[name])
        except OSError as error:
            raise OperationError(f"{place}: cannot be written: {error.strerror or error}") from error


def read_home(trust: Path) -> dict[str, bytes]:
    """All published metadata by file name.

    Raises:
        NotFoundError: There is none.
        OperationError: It cannot be read.
    """
    try:
        files = {path.name: path.read_bytes() for path in trust.glob("[!.]*.json")}
    except OSError as error:
        raise OperationError(f"{error.filename}: cannot be read: {error.strerror}") from error
    if not any(name.endswith(_ROOT) for name in files):
        raise NotFoundError(f"{trust}: holds no trust metadata; restore it from a backup")
    if TIMESTAMP not in files:
        raise NotFoundError(f"{trust / TIMESTAMP}: missing; restore it from a backup")
    return files


def _read_package(package: PackageReader) -> dict[str, bytes]:
    names = list(package.names(TRUST))
    if len(names) > MAX_FILES:
        raise OperationError(f"package: expected at most {MAX_FILES} metadata files, found {len(names)}")
    files = {name.removeprefix(TRUST): package.read(name, MAX_BUNDLE_UNPACKED_BYTES) for name in names}
    files.pop(TIMESTAMP, None)  # freshness is this side's to sign
    return files


def _first_root(files: Mapping[str, bytes]) -> int:
    return min(_version(name) for name in files if name.endswith(".root.json"))


def _version(name: str) -> int:
    number = name.partition(".")[0]
    return int(number) if number.isdecimal() and len(number) < 10 else 0


def _explained(what: str, error: TrustError) -> OperationError:
    if error.code in _OLDER:
        return ConflictError(
            f"{what}: older than what is published here ({error.detail}); make it again with the "
            "newest release keys folder"
        )
    if error.code in (ErrorCode.SIGNATURE, ErrorCode.METADATA):
        return NotAllowedError(
            f"{what}: not signed by this fleet's release keys ({error.detail}); make it with the keys "
            "that 'flagship init' made for this home"
        )
    if error.code is ErrorCode.FREEZE:
        return OperationError(
            f"{what}: its metadata ran out ({error.detail}); run 'flagship trust renew' and do it again"
        )
    return OperationError(f"{what}: {error.code}: {error.detail}")
