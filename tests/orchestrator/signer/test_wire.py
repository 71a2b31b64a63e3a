"""Frames both ways: what goes in comes out, and what is no frame is refused before it is used."""

import json
from datetime import UTC, datetime

import pytest

from orchestrator.errors import ConflictError, OperationError
from orchestrator.signer import wire
from orchestrator.signer.seam import AnnouncementRequest, Begun, OfferRequest, Refusal, Refused, Signed
from protocol.directives import Action, Grant, ReleaseRef
from protocol.errors import ContentError, ErrorCode
from protocol.manifest import Policy

REF = ReleaseRef(path="gateway/1.1.0/manifest", length=3, sha256="a" * 64, counter=0)
DRAFT = {"rollout": "r-1", "release": REF, "expires": datetime(2026, 11, 24, tzinfo=UTC)}


def test_requests_arrive_as_plain_values() -> None:
    """Drafts of models, enums and instants, keys as bytes."""
    asked = wire.read_asked(
        wire.ask_sign(
            [
                AnnouncementRequest({**DRAFT, "action": Action.HOLD, "policy": Policy()}, 2, "smoke"),
                OfferRequest({**DRAFT, "device": "d1", "grant": Grant.DOWNLOAD}, b"\0sealed", "key"),
            ]
        )
    )
    assert isinstance(asked, wire.Sign)
    announcement, offer = wire.requests_of(asked)
    assert isinstance(announcement, AnnouncementRequest) and isinstance(offer, OfferRequest)
    assert (announcement.halts, announcement.reason, announcement.draft["action"]) == (2, "smoke", "hold")
    assert (offer.sealed_key, offer.content_key) == (b"\0sealed", "key")
    assert ReleaseRef.model_validate(offer.draft["release"]) == REF
    assert offer.draft["expires"] == "2026-11-24T00:00:00+00:00"


def test_answers_arrive_as_they_were() -> None:
    """Signed, refused, begun."""
    answers: list[Signed | Refusal] = [
        Signed(b'{"payload":"x"}', 1, 5, lifted=True),
        Refusal(Refused.LATER, "too many", 0.25),
    ]
    assert wire.read_signed(wire.read_answer(wire.write_signed(answers))) == answers
    begun = Begun((2, 7), raised=True, halted={"r-1": "smoke"})
    assert wire.read_begun(wire.read_answer(wire.write_begun(begun))) == begun


def test_errors_arrive_with_their_class() -> None:
    """So that an exit code is the same over the socket; an unknown one is an error all the same."""
    with pytest.raises(ConflictError, match="an old copy"):
        wire.read_answer(wire.write_error(ConflictError("an old copy")))
    with pytest.raises(ContentError) as found:
        wire.read_answer(wire.write_error(ContentError(ErrorCode.KEY, "not for this release")))
    assert (found.value.code, found.value.detail) == (ErrorCode.KEY, "not for this release")
    with pytest.raises(OperationError, match="strange"):
        wire.read_answer(wire.write_error(wire.WireError("strange")))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"{",
        b'{"kind":"sign"}',
        b'{"kind":"give me the key"}',
        b'{"kind":"highest","more":1}',
        b'{"kind":"revoke","devices":["a/b"],"reason":""}',
        b'{"kind":"timestamp","snapshot":-1}',
        b'{"kind":"sign","items":[{"offer":{},"sealed_key":"%"}]}',
        b"[" * 100_000,
        b'{"kind":"sign","items":' + b"[" * 100_000,
        json.dumps({"kind": "sign", "items": [{}] * 1001}).encode(),
        b"\xff\xfe",
    ],
)
def test_what_is_no_request_is_refused(content: bytes) -> None:
    """By its form alone, in one sentence that repeats no content."""
    with pytest.raises(wire.WireError, match="request: ") as found:
        wire.read_asked(content)
    assert len(str(found.value)) < 300


@pytest.mark.parametrize("item", [{}, {"offer": {}, "announcement": {}}])
def test_an_item_is_one_of_two(item: dict[str, object]) -> None:
    """Neither or both is none."""
    asked = wire.read_asked(json.dumps({"kind": "sign", "items": [item]}).encode())
    assert isinstance(asked, wire.Sign)
    with pytest.raises(wire.WireError, match="one of"):
        wire.requests_of(asked)


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b"[" * 100_000, b'"ok"'])
def test_what_is_no_answer_is_refused(content: bytes) -> None:
    """Something else listens there."""
    with pytest.raises(wire.WireError, match="answer"):
        wire.read_answer(content)


def test_a_frame_that_is_too_large_is_not_made() -> None:
    """Neither part."""
    wire.check_lengths(wire.MAX_JSON_BYTES, wire.MAX_BLOB_BYTES)
    for lengths in ((wire.MAX_JSON_BYTES + 1, 0), (0, wire.MAX_BLOB_BYTES + 1)):
        with pytest.raises(wire.WireError, match="at most"):
            wire.check_lengths(*lengths)
