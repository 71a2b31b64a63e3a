"""The TUF client workflow (TUF 5) by python-tuf, over files that came from topics and a given reference time.

MQTT has no negative answer, so a set of files stands for the repository: what is not in it is absent. The set that
was verified last is stored durably and fills in what a new set lacks, so re-verification works offline. Floors are
not kept here: python-tuf's cache can be wiped, and what it then accepts is judged in ``floors.py``.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import cast

from pydantic import ValidationError
from securesystemslib.signer import Signature
from tuf.api import exceptions as tuf_errors
from tuf.api.metadata import Root, Targets
from tuf.ngclient import FetcherInterface, Updater, UpdaterConfig

from protocol.envelopes import Verify
from protocol.errors import EnvelopeError, ErrorCode, TrustError
from protocol.manifest import ReleaseInfo

_BASE = "topics:///"
_STORED = "verified.json"
_TOP_LEVEL = ("root", "timestamp", "snapshot", "targets")
_LIMITS = UpdaterConfig(
    max_root_rotations=256,
    max_delegations=4,
    root_max_length=16_384,
    timestamp_max_length=2_048,
    snapshot_max_length=16_384,
    targets_max_length=196_608,
    prefix_targets_with_hash=False,
)


def releases_role(product: str) -> str:
    """The delegated role that lists a product's releases."""
    return f"releases-{product}"


def director_role(fleet: str) -> str:
    """The delegated role that carries the director's keys and no path."""
    return f"director-{fleet}"


@dataclass(frozen=True, slots=True)
class ReleaseTarget:
    """A release as the offline keys signed it."""

    path: str
    length: int
    sha256: str
    info: ReleaseInfo


@dataclass(frozen=True, slots=True)
class RoleVersion:
    """A verified role: its version, and a fingerprint of the keys that a fast-forward recovery would change."""

    version: int
    keyset: str


class Trusted:
    """One verified state of the repository."""

    def __init__(self, updater: Updater) -> None:
        self._updater = updater
        self._set = updater._trusted_set  # noqa: SLF001 - no public access to verified top-level metadata in tuf 7

    @property
    def snapshot_expires(self) -> datetime:
        """When the snapshot runs out; bounds how far an online signature may move the clock floor."""
        return self._set.snapshot.expires

    @property
    def timestamp_keys(self) -> str:
        """Fingerprint of the keys that sign the timestamp; the clock floor is bound to them."""
        return timestamp_keys(self._set.root)

    @property
    def timestamp_expires(self) -> datetime:
        """When this state becomes stale."""
        return self._set.timestamp.expires

    @property
    def roles(self) -> dict[str, RoleVersion]:
        """Versions of what was loaded, bound to key sets (TUF 5.3.11, fast-forward recovery)."""
        root = self._set.root
        result: dict[str, RoleVersion] = {}
        # Iterating over tuf's own mapping gives values, not names.
        for name, signed in self._set._trusted_set.items():  # noqa: SLF001
            own = name if name in _TOP_LEVEL else "targets"
            keyset = "" if name == "root" else _keyset(root, own)
            result[name] = RoleVersion(signed.version, keyset)
        return result

    def release(self, path: str) -> ReleaseTarget | None:
        """The release at a target path, or None when it is not listed (any more). Reads files: call in a thread.

        Raises:
            TrustError: A delegated role does not verify, or the target's custom part is not understood.
        """
        try:
            target = self._updater.get_targetinfo(path)
        except (tuf_errors.RepositoryError, tuf_errors.DownloadError) as error:
            raise _translate(error) from error
        if target is None:
            return None
        try:
            info = ReleaseInfo.model_validate(target.custom or {})
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            place = ".".join(str(p) for p in first["loc"])
            raise TrustError(ErrorCode.FORMAT, f"release {path}: custom {place}: {first['msg']}") from error
        return ReleaseTarget(path, target.length, target.hashes.get("sha256", ""), info)

    def verify_director(self, fleet: str) -> Verify:
        """A verifier of announcements and offers: the keys that the offline targets role lists for this fleet."""
        targets = cast(Targets, self._set[Targets.type])

        def verify(pae: bytes, signatures: Mapping[str, Signature]) -> None:
            try:
                targets.verify_delegate(director_role(fleet), pae, dict(signatures))
            except (tuf_errors.UnsignedMetadataError, ValueError) as error:
                raise EnvelopeError(
                    ErrorCode.SIGNATURE, f"directive: not signed by a director key of fleet {fleet}"
                ) from error

        return verify

    def director_keyset(self, fleet: str) -> str:
        """Fingerprint of the director's keys; (epoch, seq) floors hold as long as it stays."""
        targets = cast(Targets, self._set[Targets.type])
        roles = targets.delegations.roles if targets.delegations else None
        role = (roles or {}).get(director_role(fleet))
        return _fingerprint(sorted(role.keyids)) if role else ""


@dataclass(frozen=True, slots=True)
class Recovery:
    """By which instant expiry is judged instead, once root lists other timestamp keys than these (TUF 5.3.11).

    Online keys moved the receiver's clock floor; when they turn out to be stolen and are replaced, so is the floor.
    """

    timestamp_keys: str
    now: datetime


class TrustStore:
    """The repository as one receiver knows it, in a directory of its own."""

    def __init__(self, directory: Path, root: bytes) -> None:
        self._directory = directory
        self._root = root

    def refresh(
        self,
        files: Mapping[str, bytes],
        now: datetime,
        products: tuple[str, ...] = (),
        recovery: Recovery | None = None,
    ) -> Trusted:
        """Verify the newest state that ``files`` and what is stored make up. Blocking: call in a thread.

        Args:
            files: What the topics hold; may be empty, then the stored state is verified again.
            now: The instant by which all expiry is judged.
            products: Load the releases of these products too.
            recovery: What holds when the timestamp's keys were replaced.

        Raises:
            TrustError: What was stored stays as it was; the code names the attack.
        """
        fetcher = _FilesFetcher({**self._stored(), **files})
        try:
            trusted = refresh_from(fetcher, _BASE, self._directory / "tuf", self._root, now, recovery)
            for product in products:
                trusted.release(f"{product}/-/-")
            self._store(fetcher.files, trusted)
        except OSError as error:
            raise TrustError(ErrorCode.SPACE, f"trust store {self._directory}: {error.strerror}") from error
        return trusted

    def _stored(self) -> dict[str, bytes]:
        try:
            data = json.loads((self._directory / _STORED).read_bytes())
            return {str(name): str(text).encode() for name, text in data.items()}
        except (OSError, ValueError, AttributeError):
            return {}  # a lost cache costs a download; the floors still hold

    def _store(self, files: Mapping[str, bytes], trusted: Trusted) -> None:
        roles = trusted.roles
        current = {"timestamp.json"} | {
            f"{role.version}.{name}.json" for name, role in roles.items() if name != "timestamp"
        }
        keep = {name: text.decode() for name, text in files.items() if name in current}
        if keep == {name: text.decode() for name, text in self._stored().items()}:
            return
        temporary = self._directory / (_STORED + ".new")
        with temporary.open("w") as out:
            json.dump(keep, out)
            out.flush()
            os.fsync(out.fileno())
        temporary.replace(self._directory / _STORED)
        descriptor = os.open(self._directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def refresh_from(
    fetcher: FetcherInterface, url: str, cache: Path, root: bytes, now: datetime, recovery: Recovery | None = None
) -> Trusted:
    """The client workflow (TUF 5.3 to 5.6) over any fetcher. Blocking.

    Args:
        url: What metadata file names are appended to.
        cache: Where verified metadata is kept, one file a role.
        root: The root that came with enrolment; used while the cache holds none.

    Raises:
        TrustError: The code names the attack. Roots that were verified are kept all the same.
        OSError: The cache cannot be written.
    """
    cache.mkdir(parents=True, exist_ok=True)
    while True:
        try:
            updater = Updater(str(cache), url, fetcher=fetcher, config=_LIMITS, bootstrap=root)
        except (tuf_errors.RepositoryError, tuf_errors.DownloadError) as error:
            raise _translate(error) from error
        # tuf 7 has no public clock hook; tests/protocol/trust holds this attribute in place.
        updater._trusted_set.reference_time = now  # noqa: SLF001
        try:
            updater.refresh()
            return Trusted(updater)
        except (tuf_errors.RepositoryError, tuf_errors.DownloadError) as error:
            expired = isinstance(error, tuf_errors.ExpiredMetadataError)
            if expired and recovery and timestamp_keys(updater._trusted_set.root) != recovery.timestamp_keys:  # noqa: SLF001
                now, recovery = recovery.now, None
                continue
            raise _translate(error) from error


class _FilesFetcher(FetcherInterface):
    """A fetcher over a set of files; 404 for what is absent, which ends the walk over roots."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        self.files = files

    def _fetch(self, url: str) -> Iterator[bytes]:
        data = self.files.get(url.removeprefix(_BASE))
        if not data:
            raise tuf_errors.DownloadHTTPError(f"{url.removeprefix(_BASE)} is not there", 404)
        return iter([data])


def _translate(error: Exception) -> TrustError:
    """python-tuf's error as the word it has on the wire."""
    match error:
        case tuf_errors.ExpiredMetadataError():
            code = ErrorCode.FREEZE
        case tuf_errors.BadVersionNumberError():
            code = ErrorCode.ROLLBACK_METADATA
        case tuf_errors.UnsignedMetadataError():
            code = ErrorCode.SIGNATURE
        case tuf_errors.DownloadLengthMismatchError():
            code = ErrorCode.OVERSIZE
        case tuf_errors.LengthOrHashMismatchError():
            code = ErrorCode.MIX
        case tuf_errors.DownloadHTTPError():
            code = ErrorCode.WITHHELD
        case _:
            code = ErrorCode.METADATA
    return TrustError(code, f"trust metadata: {str(error)[:300]}")


def timestamp_keys(root: Root) -> str:
    """Fingerprint of the timestamp role's keys."""
    return _fingerprint(sorted(root.roles["timestamp"].keyids))


def _keyset(root: Root, role: str) -> str:
    names = (role, "timestamp", "snapshot")
    return _fingerprint([f"{name}:{key}" for name in names for key in sorted(root.roles[name].keyids)])


def _fingerprint(parts: list[str]) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]
