"""The trust topics, from the metadata files in the home: roots, bundle, timestamp. Blocking: call in threads."""

import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, Root, Timestamp

from orchestrator.delivery.publisher import Outgoing
from orchestrator.durable import replace_durably
from orchestrator.errors import NotFoundError, OperationError
from orchestrator.signer.seam import SigningRoom
from orchestrator.signer.signer import TIMESTAMP_LIFE
from protocol.topics import Kind, Topics
from protocol.trust.bundle import pack_bundle

TIMESTAMP_FILE = "timestamp.json"
_NAME = re.compile(r"^([1-9][0-9]{0,8})\.([A-Za-z0-9_-]+)\.json\Z")


@dataclass(frozen=True, slots=True)
class TimestampFacts:
    """What the current timestamp says."""

    version: int
    snapshot: int
    expires: datetime


def newest(directory: Path) -> dict[str, tuple[int, Path]]:
    """Role -> (highest version, its file)."""
    found: dict[str, tuple[int, Path]] = {}
    for path in directory.iterdir() if directory.is_dir() else ():
        match = _NAME.match(path.name)
        if match and int(match[1]) > found.get(match[2], (0, path))[0]:
            found[match[2]] = (int(match[1]), path)
    return found


def read_timestamp(directory: Path) -> TimestampFacts:
    """The current timestamp.

    Raises:
        NotFoundError: There is none.
        OperationError: It is not TUF metadata.
    """
    path = directory / TIMESTAMP_FILE
    try:
        signed = Metadata[Timestamp].from_bytes(path.read_bytes()).signed
    except FileNotFoundError as error:
        raise NotFoundError(f"{path}: missing; restore the home's trust folder") from error
    except (OSError, RepositoryError, ValueError) as error:
        raise OperationError(f"{path}: expected TUF timestamp metadata; restore it") from error
    return TimestampFacts(signed.version, signed.snapshot_meta.version, signed.expires)


def renewal_due(facts: TimestampFacts, newest_snapshot: int, highest: int, now: datetime, renew: timedelta) -> bool:
    """Whether the timestamp must be signed again.

    It names another snapshot, it is older than ``renew``, or a higher version was signed before (``highest``): an
    import that ran at the same time may have stored the lower one, which devices would refuse.
    """
    signed_at = facts.expires - TIMESTAMP_LIFE
    stale = now >= signed_at + min(renew, TIMESTAMP_LIFE / 2)
    return stale or facts.snapshot != newest_snapshot or facts.version < highest


def renew_timestamp(directory: Path, signer: SigningRoom, now: datetime, renew: timedelta) -> bool:
    """Sign the timestamp again where that is due; durable when this returns True.

    Raises:
        SignerAwayError: The signer does not answer; the former timestamp stays.
        OperationError: The metadata is not there, or cannot be written.
    """
    roles = newest(directory)
    if "snapshot" not in roles:
        raise NotFoundError(f"{directory}: no snapshot metadata; restore the home's trust folder")
    snapshot = roles["snapshot"][0]
    if not renewal_due(read_timestamp(directory), snapshot, signer.highest_timestamp(), now, renew):
        return False
    data = signer.bump_timestamp(snapshot, _timestamp_keys(roles["root"][1]) if "root" in roles else ())
    _replace(directory / TIMESTAMP_FILE, data)
    return True


def _timestamp_keys(root: Path) -> list[str]:
    try:
        return list(Metadata[Root].from_bytes(root.read_bytes()).signed.roles[Timestamp.type].keyids)
    except (OSError, RepositoryError, ValueError) as error:
        raise OperationError(f"{root}: expected TUF root metadata; restore it") from error


def trust_messages(directory: Path, topics: Topics) -> list[Outgoing]:
    """Every trust topic in the order of publishing: roots, bundle, timestamp (after the bundle that it names).

    Raises:
        OperationError: The metadata is not there.
        TrustError: The bundle is too large.
    """
    roles = newest(directory)
    missing = {"root", "targets", "snapshot"} - set(roles)
    if missing:
        raise NotFoundError(f"{directory}: no {', '.join(sorted(missing))} metadata; restore the home's trust folder")
    roots = sorted(
        (int(match[1]), path)
        for path in directory.iterdir()
        if (match := _NAME.match(path.name)) and match[2] == "root"
    )
    bundle = {path.name: path.read_bytes() for _, path in roles.values()}
    return [
        *(
            Outgoing(
                kind=Kind.TRUST_ROOT, topic=topics.build(Kind.TRUST_ROOT, n=str(number)), payload=path.read_bytes()
            )
            for number, path in roots
        ),
        Outgoing(kind=Kind.TRUST_BUNDLE, topic=topics.build(Kind.TRUST_BUNDLE), payload=pack_bundle(bundle)),
        Outgoing(
            kind=Kind.TRUST_TIMESTAMP,
            topic=topics.build(Kind.TRUST_TIMESTAMP),
            payload=(directory / TIMESTAMP_FILE).read_bytes(),
        ),
    ]


def _replace(path: Path, data: bytes) -> None:
    try:
        replace_durably(path, data)
    except OSError as error:
        raise OperationError(f"{path}: {error.strerror}; the timestamp was not renewed") from error
