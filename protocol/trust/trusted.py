"""One verified state of the repository, and what it says: releases, director keys, resets, versions, expiry.

How it comes to be verified is said in ``workflow``.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import cast

from pydantic import BaseModel, ConfigDict, ValidationError
from securesystemslib.signer import Signature
from tuf.api import exceptions as tuf_errors
from tuf.api.metadata import DelegatedRole, Root, TargetFile, Targets
from tuf.ngclient import Updater

from protocol.enrolment import ConnectionTarget
from protocol.envelopes import Verify
from protocol.errors import EnvelopeError, ErrorCode, TrustError
from protocol.identifiers import IdText, VersionText
from protocol.manifest import ReleaseInfo
from protocol.numbers import Counter, Ordinal

CONNECTION = "connection"
"""Path of the target that says how devices reach their fleet; what it says stands in its ``custom``."""
_MARK = "must_pass_through"
_TOP_LEVEL = ("root", "timestamp", "snapshot", "targets")


def releases_role(product: str) -> str:
    """The delegated role that lists a product's releases."""
    return f"releases-{product}"


def director_role(fleet: str) -> str:
    """The delegated role that carries the director's keys and no path."""
    return f"director-{fleet}"


def codesign_role(component: str) -> str:
    """The delegated role that carries the keys of a component's list of executables, and no path."""
    return f"codesign-{component}"


@dataclass(frozen=True, slots=True)
class ReleaseTarget:
    """A release as the offline keys signed it."""

    path: str
    length: int
    sha256: str
    info: ReleaseInfo


@dataclass(frozen=True, slots=True)
class RoleVersion:
    """A verified role: its version, and the keys that a fast-forward recovery would change."""

    version: int
    keyset: str


class PassThrough(BaseModel):
    """What must be known of a release that no device may skip, also where the rest of it is of a newer format."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    product: IdText
    version: VersionText
    component: IdText
    hardware: list[IdText]
    must_pass_through: bool


class CounterReset(BaseModel):
    """A security counter as the offline targets role sets it; each ``number`` is applied once by a device."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    number: Ordinal
    counter: Counter


class _TargetsExtra(BaseModel):
    """What the top-level targets metadata holds beyond TUF, under ``flagship``."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    counter_resets: dict[IdText, CounterReset] = {}


class Trusted:
    """One verified state of the repository."""

    def __init__(self, updater: Updater) -> None:
        self._updater = updater
        self._set = updater._trusted_set  # noqa: SLF001 - no public access to verified top-level metadata in tuf 7
        self._pass_through: dict[str, tuple[PassThrough, ...]] = {}

    @property
    def snapshot_expires(self) -> datetime:
        """When the snapshot runs out; bounds how far an online signature may move the clock floor."""
        return self._set.snapshot.expires

    @property
    def timestamp_keys(self) -> str:
        """The keys that sign the timestamp; the clock floor is bound to them."""
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

    @property
    def counter_resets(self) -> dict[str, CounterReset]:
        """Counters that the offline keys set anew, by component.

        Raises:
            TrustError: E_FORMAT: they are not understood.
        """
        extra = self._set[Targets.type].unrecognized_fields.get("flagship", {})
        try:
            return dict(_TargetsExtra.model_validate(extra).counter_resets)
        except ValidationError as error:
            raise TrustError(ErrorCode.FORMAT, f"targets metadata: flagship: {error.error_count()} mistakes") from error

    @property
    def connection(self) -> ConnectionTarget | None:
        """How devices reach their fleet from now on, where the offline targets role says so.

        Raises:
            TrustError: E_FORMAT: it is not understood.
        """
        target = cast(Targets, self._set[Targets.type]).targets.get(CONNECTION)
        if target is None:
            return None
        try:
            return ConnectionTarget.model_validate(target.custom or {})
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            place = ".".join(str(p) for p in first["loc"])
            raise TrustError(ErrorCode.FORMAT, f"target {CONNECTION}: {place}: {first['msg']}") from error

    def release(self, path: str) -> ReleaseTarget | None:
        """The release at a target path, or None when it is not listed (any more). Reads files: call in a thread.

        Raises:
            TrustError: A delegated role does not verify, or the target's custom part is not understood.
        """
        target = self.target(path)
        if target is None:
            return None
        try:
            info = ReleaseInfo.model_validate(target.custom or {})
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            place = ".".join(str(p) for p in first["loc"])
            raise TrustError(ErrorCode.FORMAT, f"release {path}: custom {place}: {first['msg']}") from error
        return ReleaseTarget(path, target.length, target.hashes.get("sha256", ""), info)

    def must_pass_through(self, product: str) -> tuple[PassThrough, ...]:
        """The listed releases of a product that no device may skip. Read once: a state does not change.

        Raises:
            TrustError: The list does not verify, or what may not be skipped is not understood: E_FORMAT.
        """
        if product not in self._pass_through:
            self.target(f"{product}/-/-")  # has the role loaded
            role = cast(Targets | None, self._set.get(releases_role(product)))
            listed = role.targets.items() if role else ()
            marked = [(path, target.custom) for path, target in listed if (target.custom or {}).get(_MARK)]
            try:
                found = tuple(PassThrough.model_validate(custom) for _, custom in marked)
            except ValidationError as error:
                paths = ", ".join(path for path, _ in marked)[:200]
                raise TrustError(
                    ErrorCode.FORMAT, f"releases that no device may skip are not understood: {paths}"
                ) from error
            self._pass_through[product] = tuple(one for one in found if one.must_pass_through)
        return self._pass_through[product]

    def target(self, path: str) -> TargetFile | None:
        """What is listed at a target path (TUF 5.6.7), whatever it is; None where nothing is. Reads files.

        Raises:
            TrustError: A delegated role does not verify.
        """
        try:
            return self._updater.get_targetinfo(path)
        except (tuf_errors.RepositoryError, tuf_errors.DownloadError) as error:
            raise translate(error) from error

    def verify_director(self, fleet: str) -> "RoleCheck":
        """A verifier of announcements and offers: the keys that the offline targets role lists for this fleet."""
        return self._verify_by(director_role(fleet), f"directive: not signed by a director key of fleet {fleet}")

    def verify_codesign(self, component: str) -> Verify | None:
        """A verifier of a component's list of executables; None where the targets role names no codesign keys."""
        role = codesign_role(component)
        if self._delegated(role) is None:
            return None
        return self._verify_by(role, f"not signed by the codesign keys of {component}")

    def director_keyset(self, fleet: str) -> str:
        """The director's keys; a floor that one of them raised holds as long as it is listed."""
        role = self._delegated(director_role(fleet))
        return " ".join(sorted(role.keyids)) if role else ""

    def _delegated(self, name: str) -> DelegatedRole | None:
        targets = cast(Targets, self._set[Targets.type])
        roles = targets.delegations.roles if targets.delegations else None
        return (roles or {}).get(name)

    def _verify_by(self, role: str, refusal: str) -> "RoleCheck":
        return RoleCheck(cast(Targets, self._set[Targets.type]), role, refusal)


class RoleCheck:
    """Verifies messages by the keys of one delegated role, and knows afterwards whose signature held.

    Attributes:
        signed_by: Key id of the listed key that signed what was verified last; "" before.
    """

    def __init__(self, targets: Targets, role: str, refusal: str) -> None:
        self._targets = targets
        self._role = role
        self._refusal = refusal
        self.signed_by = ""

    def __call__(self, pae: bytes, signatures: Mapping[str, Signature]) -> None:
        """Raise EnvelopeError (E_SIGNATURE) when too few listed keys signed."""
        try:
            found = self._targets.get_verification_result(self._role, pae, dict(signatures))
        except ValueError:
            found = None
        if not found:
            raise EnvelopeError(ErrorCode.SIGNATURE, self._refusal)
        self.signed_by = min(found.signed)


def translate(error: Exception) -> TrustError:
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


def holds(before: str, now: str) -> bool:
    """Whether a floor stays: every key that may have raised it is still listed. Keys are separated by spaces."""
    return set(before.split()) <= set(now.split())


def timestamp_keys(root: Root) -> str:
    """The timestamp role's keys, as a floor names them."""
    return " ".join(sorted(root.roles["timestamp"].keyids))


def _keyset(root: Root, role: str) -> str:
    names = dict.fromkeys((role, "timestamp", "snapshot"))
    return " ".join(f"{name}:{key[:16]}" for name in names for key in sorted(root.roles[name].keyids))
