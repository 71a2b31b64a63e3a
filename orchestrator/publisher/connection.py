"""The signed ``connection`` target: brokers and CA that devices use from now on. Offline keys of targets and snapshot.

What it says stands in the target's ``custom``, so it comes to devices with the metadata itself and needs no topic and
no file of its own; length and hash are of the same bytes. See docs/decisions/0011.
"""

import hashlib
from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Final

from cryptography import x509
from pydantic import ValidationError
from securesystemslib.signer import Signer
from tuf.api.metadata import Metadata, MetaFile, Snapshot, TargetFile, Targets

from orchestrator.errors import NotFoundError, OperationError, UsageError
from orchestrator.expiry import SNAPSHOT_LIFE, TARGETS_LIFE
from orchestrator.publisher.signing import Repository, sign_role, whole_seconds
from orchestrator.publisher.working_copy import check_fits
from protocol.enrolment import BrokerAddress, ConnectionTarget, MirrorAddress
from protocol.envelopes import encode
from protocol.trust.trusted import CONNECTION

MAX_CA_BYTES: Final = 16_384


def present_connection(repository: Repository) -> ConnectionTarget | None:
    """What devices were told last.

    Raises:
        OperationError: The working copy's target is not understood.
    """
    target = repository.targets.signed.targets.get(CONNECTION)
    if target is None:
        return None
    try:
        return ConnectionTarget.model_validate(target.custom or {})
    except ValidationError as error:
        raise OperationError("release keys: the connection target is damaged; restore the working copy") from error


def next_connection(
    repository: Repository, brokers: Sequence[BrokerAddress], ca: str, mirrors: Sequence[MirrorAddress] = ()
) -> ConnectionTarget:
    """What devices are to be told, one version higher than before; mirrors that are not named again are gone.

    Raises:
        UsageError: There is no broker, or too many of them or of mirrors.
    """
    former = present_connection(repository)
    try:
        return ConnectionTarget(
            fleet=repository.fleet,
            version=former.version + 1 if former else 1,
            ca=ca,
            brokers=list(brokers),
            mirrors=list(mirrors),
        )
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise UsageError(f"connection: {first['loc'][0]}: {first['msg']}") from error


def sign_connection(
    repository: Repository, target: ConnectionTarget, signers: Iterable[Signer], now: datetime
) -> dict[str, bytes]:
    """The new metadata files, by name: targets with the connection target, and the snapshot that names them.

    Args:
        signers: Keys at hand; those of the roles are picked out.

    Raises:
        NotAllowedError: Fewer keys are at hand than a role's threshold demands.
        OperationError: The metadata would no longer fit its topic.
    """
    available = {signer.public_key.keyid: signer for signer in signers}
    content = encode(target)
    targets = Metadata[Targets].from_bytes(repository.targets.to_bytes())
    entry = TargetFile(len(content), {"sha256": hashlib.sha256(content).hexdigest()}, CONNECTION)
    entry.unrecognized_fields["custom"] = target.model_dump(mode="json")
    targets.signed.targets[CONNECTION] = entry
    targets.signed.version += 1
    targets.signed.expires = max(targets.signed.expires, whole_seconds(now + TARGETS_LIFE))
    snapshot = Metadata[Snapshot].from_bytes(repository.snapshot.to_bytes())
    snapshot.signed.meta["targets.json"] = MetaFile(targets.signed.version)
    snapshot.signed.version += 1
    snapshot.signed.expires = whole_seconds(now + SNAPSHOT_LIFE)
    roles = repository.root.signed.roles
    keys = {name: (roles[name].keyids, roles[name].threshold) for name in ("targets", "snapshot")}
    changed = {
        f"{targets.signed.version}.targets.json": sign_role("targets", targets, *keys["targets"], available),
        f"{snapshot.signed.version}.snapshot.json": sign_role("snapshot", snapshot, *keys["snapshot"], available),
    }
    check_fits("connection", {**repository.files, **changed})
    return changed


def read_ca(file: Path) -> str:
    """CA certificates in PEM, without anything else that stands in the file.

    Raises:
        NotFoundError: There is no such file.
        UsageError: It holds no CA certificate, or something else.
    """
    try:
        raw = file.read_bytes()
    except FileNotFoundError as error:
        raise NotFoundError(f"{file}: no such CA") from error
    except OSError as error:
        raise OperationError(f"{file}: cannot be read: {error.strerror}") from error
    if len(raw) > MAX_CA_BYTES or b"PRIVATE KEY" in raw:
        raise UsageError(f"{file}: expected CA certificates alone, at most {MAX_CA_BYTES} B")
    try:
        found = x509.load_pem_x509_certificates(raw)
        are_cas = all(one.extensions.get_extension_for_class(x509.BasicConstraints).value.ca for one in found)
    except (ValueError, x509.ExtensionNotFound) as error:
        raise UsageError(f"{file}: expected CA certificates in PEM") from error
    if not are_cas:
        raise UsageError(f"{file}: expected CA certificates, found another kind")
    return raw.decode()
