r"""The audit log: what an entry is, how it is encoded and hashed, and how a changed log shows. Pure.

    hash = sha256(former hash | "\n" | fields | "\n" | body)        the first entry's former hash is 64 zeros
    fields = JSON array [id, at, kind, actor, rollout, device, cause, epoch, correlation]
    body   = JSON object, as it was written; stored under zlib

JSON here is compact, in ASCII, with sorted keys. Whoever can write the whole log can hash it anew: heads that the
signer signed, and copies of them elsewhere, tell.
"""

import hashlib
import json
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from protocol.identifiers import DigestText, IdText

FIRST = "0" * 64
"""What the first entry is chained to."""
MAX_BODY_BYTES = 4 * 2**20
"""Of one entry's JSON; what would be larger is written as several entries."""
MAX_CAUSE_CHARS = 1000
_ENCODE = json.JSONEncoder(separators=(",", ":"), sort_keys=True).encode


class AuditKind(StrEnum):
    """What an entry is about.

    ``begin`` and ``recount`` hold all counters as they stand; from there ``moves`` add to them.
    """

    BEGIN = "begin"
    RECOUNT = "recount"
    LEAD = "lead"
    ORDER = "order"
    DECISION = "decision"
    MOVES = "moves"


@dataclass(frozen=True, slots=True)
class Head:
    """The last entry of a log: its number and its hash."""

    id: int = 0
    hash: str = FIRST


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEntry:
    """One row of ``audit``.

    Attributes:
        kind: An ``AuditKind``, or one of a newer Flagship.
        actor: Who: an operator's name, ``engine``, ``devices``, ``orchestrator``.
        cause: Why, in a sentence for people.
        epoch: The orchestrator's fencing epoch; never falls.
        correlation: What was written in one act has one.
        body: The figures: JSON.
        hash: Of the former entry's hash and every other field.
    """

    id: int
    at: datetime
    kind: str
    actor: str
    rollout: str
    device: str
    cause: str
    epoch: int
    correlation: str
    body: bytes
    hash: str

    @property
    def head(self) -> Head:
        """Of a log that ends here."""
        return Head(self.id, self.hash)

    def figures(self) -> dict[str, Any]:
        """The body, read.

        Raises:
            ValueError: It is no JSON object.
        """
        try:
            found = json.loads(self.body)
        except RecursionError as error:
            raise ValueError("nested too deeply") from error
        if not isinstance(found, dict):
            raise ValueError("expected an object")
        return found


class SignedHead(BaseModel):
    """The payload of what the signer signs: from here back, the log is this one.

    Attributes:
        id, hash: Of the log's last entry.
        former_id, former_hash: What was signed before; 0 and zeros for nothing.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    fleet: IdText
    id: Annotated[int, Field(ge=1)]
    hash: DigestText
    former_id: Annotated[int, Field(ge=0)] = 0
    former_hash: DigestText = FIRST
    at: AwareDatetime


AUDIT_HEAD_TYPE = "application/vnd.flagship.audit-head+json"
MAX_HEAD_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that is not as it was written.

    Attributes:
        entry: Where it shows; 0 for the log as a whole.
        text: What was found, and what it means.
    """

    entry: int
    text: str


def encode_body(figures: Mapping[str, Any]) -> bytes:
    """Canonical JSON.

    Raises:
        ValueError: It is larger than an entry may be.
    """
    body = _ENCODE(figures).encode()
    if len(body) > MAX_BODY_BYTES:
        raise ValueError(f"an audit entry has at most {MAX_BODY_BYTES} B of figures, found {len(body)}; split it")
    return body


def pack(body: bytes) -> bytes:
    """As it is stored: moves are many, and much the same."""
    return zlib.compress(body, 1)


def unpack(packed: bytes) -> bytes:
    """What was packed.

    Raises:
        ValueError: It is not what ``pack`` makes, or too large.
    """
    reader = zlib.decompressobj()
    try:
        body = reader.decompress(packed, MAX_BODY_BYTES + 1)
    except zlib.error as error:
        raise ValueError("its body does not unpack") from error
    if len(body) > MAX_BODY_BYTES or not reader.eof or reader.unused_data:
        raise ValueError("its body is too large, cut off, or has something behind it")
    return body


def instant_text(at: datetime) -> str:
    """RFC 3339 in UTC with microseconds, as the database stores it."""
    return at.astimezone(UTC).isoformat(timespec="microseconds")[:26] + "Z"


def encode_entry(entry: AuditEntry) -> bytes:
    """Every field but the hash, as it is hashed."""
    fields = [
        entry.id,
        instant_text(entry.at),
        entry.kind,
        entry.actor,
        entry.rollout,
        entry.device,
        entry.cause,
        entry.epoch,
        entry.correlation,
    ]
    return _ENCODE(fields).encode() + b"\n" + entry.body


def chain_hash(former: str, encoded: bytes) -> str:
    """The hash of an entry behind the one with hash ``former``."""
    return hashlib.sha256(former.encode() + b"\n" + encoded).hexdigest()


def check_link(former: AuditEntry | None, entry: AuditEntry) -> list[Problem]:
    """Whether an entry is the one that was written behind ``former``; None begins the log."""
    head = former.head if former is not None else Head()
    found: list[Problem] = []
    if entry.id != head.id + 1:
        missing = f"{head.id + 1} to {entry.id - 1}" if entry.id > head.id + 2 else f"{head.id + 1}"
        found.append(Problem(entry.id, f"stands behind entry {head.id}: missing {missing}; they were taken out"))
    elif chain_hash(head.hash, encode_entry(entry)) != entry.hash:
        found.append(
            Problem(
                entry.id,
                f"its hash does not follow from entry {head.id} and its own fields: this entry was changed or moved "
                "after it was written, or the one before it was put in its place",
            )
        )
    if former is not None and entry.epoch < former.epoch:
        found.append(
            Problem(
                entry.id,
                f"epoch {entry.epoch} behind epoch {former.epoch}: an orchestrator wrote that had been replaced",
            )
        )
    return found


def check_chain(entries: Iterable[AuditEntry]) -> Iterator[Problem]:
    """Every entry that does not follow from the one before it; ``entries`` in the order of their ids."""
    former: AuditEntry | None = None
    for entry in entries:
        yield from check_link(former, entry)
        former = entry
