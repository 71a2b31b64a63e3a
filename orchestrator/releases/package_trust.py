"""The trust metadata of a package, checked as a device would check it, on top of what the home has. Blocking.

The timestamp is this side's own: a device needs one that names the new snapshot, so the check makes it.
"""

import contextlib
import json
import os
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol

from orchestrator.errors import ConflictError, NotAllowedError, NotFoundError, OperationError
from orchestrator.package import TRUST, PackageReader
from protocol.envelopes import Verify
from protocol.errors import ErrorCode, TrustError
from protocol.identifiers import ReleaseName
from protocol.trust.bundle import MAX_BUNDLE_UNPACKED_BYTES
from protocol.trust.trusted import ReleaseTarget, Trusted, releases_role
from protocol.trust.workflow import TrustStore

TIMESTAMP = "timestamp.json"
MAX_FILES = 64
_SNAPSHOT = ".snapshot.json"
_OLDER = frozenset({ErrorCode.ROLLBACK_METADATA})


class Timestamps(Protocol):
    """Who signs freshness."""

    def bump_timestamp(self, snapshot_version: int) -> bytes:
        """The next timestamp over a snapshot."""
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
    known = _read_home(trust)
    news = _read_package(package)
    first = _first_root(known)
    snapshot = max((_version(name) for name in {**known, **news} if name.endswith(_SNAPSHOT)), default=0)
    name = ReleaseName(package.header.product, package.header.version)
    with tempfile.TemporaryDirectory(prefix="trust-check-") as temporary:
        store = TrustStore(Path(temporary), known[f"{first}.root.json"])
        try:
            _take_known(store, known, now)
            news[TIMESTAMP] = signer.bump_timestamp(snapshot)
            files = {**known, **news}
            trusted = store.refresh(files, now, (name.product,))
            verified = _verified(trusted, files, first)
            target = trusted.release(name.target_path)
        except TrustError as error:
            raise _explained(name, error) from error
    _check_follows(name, verified, known, news)
    if target is None:
        raise NotFoundError(f"package of {name}: its metadata does not list it; create the release again")
    if target.sha256 != package.header.manifest_sha256:
        raise OperationError(f"package of {name}: damaged, it is not the release that its metadata lists")
    changed = {file: files[file] for file in verified if known.get(file) != files[file]}
    return CheckedTrust(target, changed, trusted.verify_codesign)


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


def _check_follows(
    name: ReleaseName, verified: Iterable[str], known: Mapping[str, bytes], news: Mapping[str, bytes]
) -> None:
    """Two files of one version would split the fleet: devices keep whichever they saw first.

    Raises:
        ConflictError: The package brings another content for a version that is published.
    """
    for file in sorted(verified):
        if file != TIMESTAMP and file in known and news.get(file, known[file]) != known[file]:
            raise ConflictError(
                f"package of {name}: its {file} is not the one that is published here; the release keys folder that "
                "made it is an old copy: copy the newest metadata into it and create the release again"
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
        temporary = trust / f".{name}.new"
        try:
            with temporary.open("wb") as out:
                out.write(files[name])
                out.flush()
                os.fsync(out.fileno())
            temporary.replace(place)
            descriptor = os.open(trust, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        except OSError as error:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise OperationError(f"{place}: cannot be written: {error.strerror or error}") from error


def _read_home(trust: Path) -> dict[str, bytes]:
    try:
        files = {path.name: path.read_bytes() for path in trust.glob("[!.]*.json")}
    except OSError as error:
        raise OperationError(f"{error.filename}: cannot be read: {error.strerror}") from error
    if not any(name.endswith(".root.json") for name in files) or TIMESTAMP not in files:
        raise NotFoundError(f"{trust}: holds no trust metadata; restore it from a backup")
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


def _explained(name: ReleaseName, error: TrustError) -> OperationError:
    if error.code in _OLDER:
        return ConflictError(
            f"package of {name}: older than what is published here ({error.detail}); create it again with the "
            "newest release keys folder"
        )
    if error.code in (ErrorCode.SIGNATURE, ErrorCode.METADATA):
        return NotAllowedError(
            f"package of {name}: not signed by this fleet's release keys ({error.detail}); create it with the keys "
            "that 'flagship init' made for this home"
        )
    if error.code is ErrorCode.FREEZE:
        return OperationError(
            f"package of {name}: its metadata ran out ({error.detail}); create the release again with a new version"
        )
    return OperationError(f"package of {name}: {error.code}: {error.detail}")
