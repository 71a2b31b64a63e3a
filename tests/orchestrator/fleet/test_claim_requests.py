"""Requests under a claim: what is not authentic is not read further, whatever it says."""

import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from orchestrator.fleet.claim_requests import read_request
from protocol.errors import EnvelopeError, ErrorCode
from protocol.reports import RENEWAL_TYPE
from protocol.topics import RULES, Kind
from tests.orchestrator.fleet.asking import CLAIM, FLEET, Keys, claim_request

KEYS, OTHER = Keys(), Keys()
CAP = RULES[Kind.ENROL_REQUEST].max_bytes


def _forged() -> bytes:
    """A request for one key that another one signed."""
    message = json.loads(claim_request(KEYS))
    message["signatures"] = json.loads(claim_request(OTHER))["signatures"]
    return json.dumps(message).encode()


def _retyped() -> bytes:
    message = json.loads(claim_request(KEYS))
    return json.dumps(message | {"payloadType": RENEWAL_TYPE}).encode()


def test_an_authentic_request() -> None:
    """It is read, and known by the key that signed it."""
    asked = read_request(claim_request(KEYS), FLEET, CLAIM)
    assert (asked.request.serial, asked.keyid) == ("SN-1", KEYS.keyid)


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        pytest.param(b" " * (CAP + 1), ErrorCode.OVERSIZE, id="oversized"),
        pytest.param(claim_request(KEYS, csr="x" * 8_000) + b" " * CAP, ErrorCode.OVERSIZE, id="padded"),
        pytest.param(b"[" * 10_000, ErrorCode.FORMAT, id="deep"),
        pytest.param(b"", ErrorCode.FORMAT, id="empty"),
        pytest.param(_retyped(), ErrorCode.TYPE, id="another type"),
        pytest.param(_forged(), ErrorCode.SIGNATURE, id="another key signed"),
        pytest.param(claim_request(KEYS, csr="x" * 40), ErrorCode.FORMAT, id="no csr"),
        pytest.param(claim_request(Keys(ec.generate_private_key(ec.SECP384R1()))), ErrorCode.FORMAT, id="P-384"),
        pytest.param(claim_request(KEYS, content_key="A" * 44), ErrorCode.FORMAT, id="content key"),
        pytest.param(claim_request(KEYS, fleet="other"), ErrorCode.SCOPE, id="another fleet"),
        pytest.param(claim_request(KEYS, claim="claim.other"), ErrorCode.SCOPE, id="another claim"),
    ],
)
def test_what_is_refused_before_the_inventory_is_asked(raw: bytes, code: ErrorCode) -> None:
    """Size, form, type, key, signature and scope, each by its code."""
    with pytest.raises(EnvelopeError) as refused:
        read_request(raw, FLEET, CLAIM)
    assert refused.value.code is code


@pytest.mark.parametrize("serial", ["", "a/b", "+", "#", "a b", "x" * 65, "../a"])
def test_a_serial_that_none_has(serial: str) -> None:
    """No serial with topic or path characters gets to the inventory."""
    message: dict[str, Any] = {"serial": serial}
    with pytest.raises(ValueError, match="serial"):
        claim_request(KEYS, **message)
