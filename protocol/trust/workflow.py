"""The TUF client workflow (TUF 5) by python-tuf, over files that came from topics and a given reference time.

MQTT has no negative answer, so a set of files stands for the repository: what is not in it is absent. The set that
was verified last is stored durably and fills in what a new set lacks, so re-verification works offline. Floors are
not kept here: python-tuf's cache can be wiped, and what it then accepts is judged in ``floors.py``.
"""

import hashlib
import json
import os
import zlib
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

MAX_BUNDLE_BYTES = 65_536
MAX_BUNDLE_UNPACKED_BYTES = 262_144
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


def pack_bundle(files: Mapping[str, bytes]) -> bytes:
    """The ``trust/bundle`` message: zlib(JSON {file name: text}).

    Raises:
        TrustError: E_OVERSIZE: the set does not fit; old releases must be withdrawn.
    """
    text = json.dumps({name: files[name].decode() for name in sorted(files)}, separators=(",", ":"))
    packed = zlib.compress(text.encode(), 9)
    if len(packed) > MAX_BUNDLE_BYTES or len(text) > MAX_BUNDLE_UNPACKED_BYTES:
        raise TrustError(
            ErrorCode.OVERSIZE,
            f"trust bundle: at most {MAX_BUNDLE_BYTES} B packed, found {len(packed)}; withdraw old releases",
        )
    return packed


def unpack_bundle(raw: bytes) -> dict[str, bytes]:
    """Read a bundle; what is in it is still unproven.

    Raises:
        TrustError: E_OVERSIZE (a zlib bomb too) or E_FORMAT.
    """
    if len(raw) > MAX_BUNDLE_BYTES:
        raise TrustError(ErrorCode.OVERSIZE, f"trust bundle: at most {MAX_BUNDLE_BYTES} B, found {len(raw)}")
    decoder = zlib.decompressobj()
    try:
        text = decoder.decompress(raw, MAX_BUNDLE_UNPACKED_BYTES + 1)
        if len(text) > MAX_BUNDLE_UNPACKED_BYTES:
            raise TrustError(ErrorCode.OVERSIZE, f"trust bundle: more than {MAX_BUNDLE_UNPACKED_BYTES} B unpacked")
        if not decoder.eof or decoder.unused_data:
            raise TrustError(ErrorCode.FORMAT, "trust bundle: cut short, or followed by something")
        files = json.loads(text)
    except (zlib.error, ValueError, RecursionError) as error:
        raise TrustError(ErrorCode.FORMAT, "trust bundle: not zlib of JSON") from error
    if not isinstance(files, dict) or not all(isinstance(v, str) for v in files.values()):
        raise TrustError(ErrorCode.FORMAT, "trust bundle: expected file names and texts")
    try:
        return {str(name): text.encode() for name, text in files.items()}
    except UnicodeEncodeError as error:
        raise TrustError(ErrorCode.FORMAT, "trust bundle: text is not Unicode") from error


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


class TrustStore:
    """The repository as one receiver knows it, in a directory of its own."""

    def __init__(self, directory: Path, root: bytes) -> None:
        self._directory = directory
        self._root = root

    def refresh(self, files: Mapping[str, bytes], now: datetime, products: tuple[str, ...] = ()) -> Trusted:
        """Verify the newest state that ``files`` and what is stored make up. Blocking: call in a thread.

        Args:
            files: What the topics hold; may be empty, then the stored state is verified again.
            now: The instant by which all expiry is judged.
            products: Load the releases of these products too.

        Raises:
            TrustError: What was stored stays as it was; the code names the attack.
        """
        cache = self._directory / "tuf"
        cache.mkdir(parents=True, exist_ok=True)
        fetcher = _FilesFetcher({**self._stored(), **files})
        try:
            updater = Updater(str(cache), _BASE, fetcher=fetcher, config=_LIMITS, bootstrap=self._root)
            # tuf 7 has no public clock hook; tests/protocol/trust holds this attribute in place.
            updater._trusted_set.reference_time = now  # noqa: SLF001
            updater.refresh()
            trusted = Trusted(updater)
            for product in products:
                trusted.release(f"{product}/-/-")
        except (tuf_errors.RepositoryError, tuf_errors.DownloadError) as error:
            raise _translate(error) from error
        except OSError as error:
            raise TrustError(ErrorCode.SPACE, f"trust store {self._directory}: {error.strerror}") from error
        self._store(fetcher.files, trusted)
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


def _keyset(root: Root, role: str) -> str:
    names = (role, "timestamp", "snapshot")
    return _fingerprint([f"{name}:{key}" for name in names for key in sorted(root.roles[name].keyids)])


def _fingerprint(parts: list[str]) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]
