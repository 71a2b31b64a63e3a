"""The signer's requests and answers as frames on a socket: pure, both directions.

    u32 length of JSON | u32 length of blob | JSON | blob          big-endian; the blob is what need not be JSON

Lengths are checked before a byte is read, JSON by models before it is used.
"""

import base64
import json
import struct
from collections.abc import Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, TypeAdapter, ValidationError

from orchestrator import errors
from orchestrator.errors import OperationError
from orchestrator.signer.seam import (
    MAX_BATCH,
    MAX_REVOKED_AT_ONCE,
    AnnouncementRequest,
    Begun,
    OfferRequest,
    Refusal,
    Refused,
    Request,
    Signed,
)
from protocol.errors import ContentError, ErrorCode, FlagshipError
from protocol.identifiers import DigestText, IdText
from protocol.manifest import MAX_MANIFEST_BYTES

HEADER = struct.Struct(">II")
MAX_JSON_BYTES = 8 * 2**20
MAX_BLOB_BYTES = MAX_MANIFEST_BYTES + 4096
_Count = Annotated[int, Field(ge=0, le=2**62)]
_Base64 = Annotated[str, StringConstraints(max_length=4096, pattern=r"^[A-Za-z0-9+/]*={0,2}$")]
_Reason = Annotated[str, StringConstraints(max_length=500)]
_KeyIds = Annotated[list[Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]], Field(max_length=16)]


class _Message(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Begin(_Message):
    """Ask ``begin``."""

    kind: Literal["begin"] = "begin"
    stored: tuple[_Count, _Count]
    timestamp: _Count


class Item(_Message):
    """One request of a batch: ``announcement`` or ``offer`` holds the draft."""

    announcement: dict[str, Any] | None = None
    halts: _Count = 0
    reason: _Reason = ""
    offer: dict[str, Any] | None = None
    sealed_key: _Base64 = ""
    content_key: Annotated[str, StringConstraints(max_length=100)] = ""


class Sign(_Message):
    """Ask ``sign``."""

    kind: Literal["sign"] = "sign"
    items: Annotated[list[Item], Field(max_length=MAX_BATCH)]


class Bump(_Message):
    """Ask ``bump_timestamp``; the answer's blob is the timestamp."""

    kind: Literal["timestamp"] = "timestamp"
    snapshot: Annotated[int, Field(ge=1, le=2**31)]
    listed: _KeyIds = []


class Director(_Message):
    """Ask ``use_director``."""

    kind: Literal["director"] = "director"
    listed: _KeyIds
    switch: bool


class Highest(_Message):
    """Ask ``highest_timestamp``."""

    kind: Literal["highest"] = "highest"


class Unseal(_Message):
    """Ask ``unseal``; the blob is the sealed manifest, the answer's blob what is in it."""

    kind: Literal["unseal"] = "unseal"
    sealed_key: _Base64


class Revoke(_Message):
    """Ask ``revoke``."""

    kind: Literal["revoke"] = "revoke"
    devices: Annotated[list[IdText], Field(max_length=MAX_REVOKED_AT_ONCE)]
    reason: _Reason


class SignHead(_Message):
    """Ask ``sign_head``; the answer's blob is the envelope."""

    kind: Literal["audit_head"] = "audit_head"
    entry: Annotated[int, Field(ge=1, le=2**62)]
    digest: DigestText


class Lift(_Message):
    """Ask ``lift``."""

    kind: Literal["lift"] = "lift"
    rollout: IdText
    reason: _Reason


Asked = Begin | Sign | Bump | Director | Highest | Unseal | Revoke | SignHead | Lift
_ASKED: TypeAdapter[Asked] = TypeAdapter(Annotated[Asked, Field(discriminator="kind")])
_KINDS = (
    OperationError, errors.UsageError, errors.NotFoundError, errors.NotAllowedError, errors.ConflictError,
    errors.SignerAwayError, errors.SignerNewError,
)  # fmt: skip
_ERRORS: dict[str, type[OperationError]] = {kind.__name__: kind for kind in _KINDS}


class WireError(FlagshipError):
    """What came over the socket is no frame of this protocol."""


def frame(content: bytes, blob: bytes = b"") -> bytes:
    """One frame.

    Raises:
        WireError: It would be larger than the other side takes.
    """
    check_lengths(len(content), len(blob))
    return HEADER.pack(len(content), len(blob)) + content + blob


def check_lengths(content: int, blob: int) -> None:
    """Whether a frame of these lengths is taken.

    Raises:
        WireError: It is too large.
    """
    if content > MAX_JSON_BYTES or blob > MAX_BLOB_BYTES:
        raise WireError(f"frame: at most {MAX_JSON_BYTES} + {MAX_BLOB_BYTES} B, found {content} + {blob}")


def read_asked(content: bytes) -> Asked:
    """A request.

    Raises:
        WireError: It is none; names the place.
    """
    try:
        return _ASKED.validate_json(content)
    except (ValidationError, RecursionError) as error:
        raise WireError(f"request: {_first(error)}") from error


def ask_sign(requests: Sequence[Request]) -> bytes:
    """``Sign`` as JSON, straight from drafts: a batch is checked on the other side, once."""
    return json.dumps({"kind": "sign", "items": [_item(r) for r in requests]}, default=_plain).encode()


def requests_of(asked: Sign) -> list[Request]:
    """The requests of a batch.

    Raises:
        WireError: One is neither an announcement nor an offer.
    """
    found: list[Request] = []
    for item in asked.items:
        if (item.announcement is None) == (item.offer is None):
            raise WireError("request: items: expected one of announcement and offer in each")
        if item.announcement is not None:
            found.append(AnnouncementRequest(item.announcement, item.halts, item.reason))
        elif item.offer is not None:
            found.append(OfferRequest(item.offer, from_base64(item.sealed_key), item.content_key))
    return found


def from_base64(text: str) -> bytes:
    """The bytes.

    Raises:
        WireError: It is no base64.
    """
    try:
        return base64.b64decode(text, validate=True)
    except ValueError as error:
        raise WireError("request: sealed_key: not base64") from error


def write_signed(answers: Sequence[Signed | Refusal]) -> bytes:
    """The answers to a batch."""
    rows: list[dict[str, Any]] = []
    for answer in answers:
        match answer:
            case Signed():
                rows.append(
                    {"x": answer.envelope.decode(), "e": answer.epoch, "s": answer.seq, "lifted": answer.lifted}
                )
            case Refusal():
                rows.append({"refused": answer.code, "why": answer.why, "retry_s": answer.retry_s})
    return json.dumps({"ok": rows}).encode()


def read_signed(rows: Sequence[Mapping[str, Any]]) -> list[Signed | Refusal]:
    """The answers to a batch, as ``write_signed`` wrote them."""
    return [
        Refusal(Refused(row["refused"]), row["why"], row["retry_s"])
        if "refused" in row
        else Signed(row["x"].encode(), row["e"], row["s"], row["lifted"])
        for row in rows
    ]


def write_begun(begun: Begun) -> bytes:
    """The answer to ``Begin``."""
    return write_ok({"order": begun.order, "raised": begun.raised, "halted": dict(begun.halted)})


def read_begun(found: Mapping[str, Any]) -> Begun:
    """The answer to ``Begin``, as ``write_begun`` wrote it."""
    return Begun((found["order"][0], found["order"][1]), found["raised"], found["halted"])


def write_ok(value: object = None) -> bytes:
    """An answer that is no refusal."""
    return json.dumps({"ok": value}).encode()


def write_error(error: FlagshipError) -> bytes:
    """A refusal of the whole request, with its class by name."""
    code = error.code.value if isinstance(error, ContentError) else ""
    text = error.detail if isinstance(error, ContentError) else str(error)
    return json.dumps({"error": type(error).__name__, "code": code, "text": text[:2000]}).encode()


def read_answer(content: bytes) -> Any:  # noqa: ANN401 - what was asked says what it is
    """The value of an answer.

    Raises:
        OperationError: The signer refused; as it said it.
        ContentError: E_KEY, likewise.
        WireError: It is no answer.
    """
    try:
        found = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise WireError("answer: not JSON") from error
    if not isinstance(found, dict) or not ("ok" in found or "error" in found):
        raise WireError("answer: expected ok or error")
    if "ok" in found:
        return found["ok"]
    if found.get("code"):
        raise ContentError(ErrorCode(found["code"]), str(found.get("text")))
    raise _ERRORS.get(str(found["error"]), OperationError)(str(found.get("text")))


def _item(request: Request) -> dict[str, Any]:
    match request:
        case AnnouncementRequest():
            return {"announcement": request.draft, "halts": request.halts, "reason": request.reason[:500]}
        case OfferRequest():
            sealed = base64.b64encode(request.sealed_key).decode()
            return {"offer": request.draft, "sealed_key": sealed, "content_key": request.content_key}


def _plain(value: object) -> object:
    match value:
        case BaseModel():
            return value.model_dump(mode="json")
        case datetime():
            return value.isoformat()
        case StrEnum():
            return value.value
        case Mapping():
            return dict(value)
    raise TypeError(f"a draft holds a {type(value).__name__}")


def _first(error: Exception) -> str:
    if not isinstance(error, ValidationError):
        return "nested too deeply"
    first: Any = error.errors(include_url=False, include_input=False)[0]
    return f"{'.'.join(str(part) for part in first['loc'])[:80]}: {first['msg'][:120]}"
