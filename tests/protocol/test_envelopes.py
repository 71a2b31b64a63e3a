"""Signed messages: size, form, type, signature, model, in this order and each with its code."""

import base64
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from securesystemslib.signer import CryptoSigner

from protocol.directives import ANNOUNCEMENT_TYPE, OFFER_TYPE, Action, Announcement, ReleaseRef
from protocol.envelopes import decode, encode, open_envelope, parse, sign, verify_with
from protocol.errors import EnvelopeError, ErrorCode

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
SIGNER, OTHER = CryptoSigner.generate_ed25519(), CryptoSigner.generate_ed25519()
MESSAGE = Announcement(
    fleet="north",
    issued=NOW,
    rollout="r1",
    expires=NOW + timedelta(hours=24),
    epoch=1,
    seq=1,
    release=ReleaseRef(path="gateway/1.1.0/manifest", length=10, sha256="ab" * 32, counter=0),
    action=Action.INSTALL,
)
RAW = sign(encode(MESSAGE), ANNOUNCEMENT_TYPE, SIGNER)


def code_of(raw: bytes, max_bytes: int = 8192, payload_type: str = ANNOUNCEMENT_TYPE) -> ErrorCode:
    """The code by which a message is refused."""
    with pytest.raises(EnvelopeError) as caught:
        open_envelope(raw, max_bytes, payload_type, verify_with(SIGNER.public_key), Announcement)
    return caught.value.code


def with_payload(change: dict[str, Any], signer: CryptoSigner = SIGNER) -> bytes:
    """The message with changed fields, signed again."""
    data = {**json.loads(encode(MESSAGE)), **change}
    return sign(json.dumps(data).encode(), ANNOUNCEMENT_TYPE, signer)


def test_a_signed_message_is_read_with_its_bytes() -> None:
    """What comes out is the message, and the very bytes that were signed."""
    opened, payload = open_envelope(RAW, 8192, ANNOUNCEMENT_TYPE, verify_with(SIGNER.public_key), Announcement)
    assert opened == MESSAGE
    assert payload == encode(MESSAGE)


def test_a_wrong_key_is_refused() -> None:
    """A signature by another key is none, also when it claims the expected key's id."""
    forged = sign(encode(MESSAGE), ANNOUNCEMENT_TYPE, OTHER)
    assert code_of(forged) is ErrorCode.SIGNATURE
    data = json.loads(forged)
    data["signatures"][0]["keyid"] = SIGNER.public_key.keyid
    assert code_of(json.dumps(data).encode()) is ErrorCode.SIGNATURE


def test_an_unsigned_message_is_refused() -> None:
    """An envelope without signatures proves nothing."""
    assert code_of(json.dumps({**json.loads(RAW), "signatures": []}).encode()) is ErrorCode.SIGNATURE


def test_a_changed_payload_is_refused() -> None:
    """One changed byte of the payload voids the signature."""
    data = json.loads(RAW)
    payload = base64.b64decode(data["payload"]).replace(b'"seq":1', b'"seq":2')
    data["payload"] = base64.b64encode(payload).decode()
    assert code_of(json.dumps(data).encode()) is ErrorCode.SIGNATURE


def test_a_message_of_another_type_is_refused() -> None:
    """An announcement does not pass for an offer, and a type that was rewritten voids the signature."""
    assert code_of(RAW, payload_type=OFFER_TYPE) is ErrorCode.TYPE
    data = json.loads(sign(encode(MESSAGE), OFFER_TYPE, SIGNER))
    data["payloadType"] = ANNOUNCEMENT_TYPE
    assert code_of(json.dumps(data).encode()) is ErrorCode.SIGNATURE


def test_a_message_beyond_its_cap_is_not_parsed() -> None:
    """The size is judged before anything else, good signature or not."""
    assert code_of(RAW, max_bytes=len(RAW) - 1) is ErrorCode.OVERSIZE
    assert code_of(b"{" * 10_000) is ErrorCode.OVERSIZE


@pytest.mark.parametrize(
    "change",
    [{"v": "2.0"}, {"v": "1"}, {"v": 1}, {"type": "offer"}, {"seq": 0}, {"epoch": -1}, {"fleet": "a/b"},
     {"issued": "2026-11-23T12:00:00"}, {"action": "explode"}, {"release": None}, {"rollout": "+"}],
    ids=str,
)  # fmt: skip
def test_a_well_signed_message_that_is_none_is_refused(change: dict[str, Any]) -> None:
    """A true signature does not excuse a form: unknown majors, ids that are no ids, times without zone."""
    assert code_of(with_payload(change)) is ErrorCode.FORMAT


def test_a_newer_minor_version_is_read() -> None:
    """Unknown fields of a newer minor version are tolerated, and only those."""
    raw = with_payload({"v": "1.7", "later": {"x": 1}})
    opened, _ = open_envelope(raw, 8192, ANNOUNCEMENT_TYPE, verify_with(SIGNER.public_key), Announcement)
    assert opened.v == "1.7"
    assert opened.model_copy(update={"v": "1.0"}) == MESSAGE


@pytest.mark.parametrize(
    "raw",
    [b"", b"null", b"[]", b"1", b'"x"', b"{}", b'{"payload":1}', b"\xff", b"[" * 5000,
     b'{"payload":"!","payloadType":"x","signatures":[]}', b'{"payload":"","payloadType":"x","signatures":7}',
     b'{"payload":"","payloadType":"x","signatures":[{}]}', b'{"payload":"","payloadType":"x","signatures":[[]]}'],
    ids=repr,
)  # fmt: skip
def test_what_is_no_envelope_is_refused(raw: bytes) -> None:
    """Junk of every kind ends in E_FORMAT."""
    assert code_of(raw, payload_type="x") is ErrorCode.FORMAT


@given(st.binary(max_size=300))
def test_no_bytes_make_opening_fail_in_another_way(raw: bytes) -> None:
    """Any bytes are refused with a code, whatever they are."""
    with pytest.raises(EnvelopeError):
        open_envelope(raw, 4096, "x", verify_with(SIGNER.public_key), Announcement)


@given(st.recursive(st.none() | st.integers() | st.text(max_size=5), lambda x: st.lists(x) | st.dictionaries(
    st.sampled_from(["payload", "payloadType", "signatures", "keyid", "sig", "x"]), x), max_leaves=8))  # fmt: skip
def test_no_json_makes_parsing_fail_in_another_way(data: object) -> None:
    """Any JSON is an envelope of the type or is refused with a code."""
    try:
        parse(json.dumps(data).encode(), 4096, "x")
    except EnvelopeError as error:
        assert error.code in {ErrorCode.FORMAT, ErrorCode.TYPE}


def test_a_verifier_that_breaks_proves_nothing() -> None:
    """Whatever a verifier raises, the message counts as unproven."""

    def verify(_pae: bytes, _signatures: object) -> None:
        raise RuntimeError("broken")

    with pytest.raises(EnvelopeError) as caught:
        open_envelope(RAW, 8192, ANNOUNCEMENT_TYPE, verify, Announcement)
    assert caught.value.code is ErrorCode.SIGNATURE


def test_payloads_have_no_empty_fields_and_no_blanks() -> None:
    """Fields that are None are left out, and JSON is compact."""
    payload = encode(MESSAGE)
    assert b"null" not in payload
    assert b": " not in payload
    assert decode(payload, Announcement) == MESSAGE


def test_errors_name_the_field_and_not_the_content() -> None:
    """A refusal says where, and repeats nothing of what came."""
    with pytest.raises(EnvelopeError, match="seq") as caught:
        decode(encode(MESSAGE).replace(b'"seq":1', b'"seq":"swordfish"'), Announcement)
    assert "swordfish" not in str(caught.value)
