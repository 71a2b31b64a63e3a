"""Signed messages: DSSE around compact JSON, checked in one order.

    size -> form -> payload type -> signature -> model -> version

Nothing is parsed before its size is known, and no payload is parsed before its signature holds (the envelope itself
must be, to find the signature). Scope, order and expiry need the receiver's state; see ``protocol/trust/checks.py``.
"""

import base64
import binascii
import json
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from pydantic import BaseModel, ValidationError
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import VerificationError
from securesystemslib.signer import Key, Signature, Signer

from protocol.errors import EnvelopeError, ErrorCode

_ENCODE = json.JSONEncoder(separators=(",", ":")).encode  # made once: json.dumps makes one per message
M = TypeVar("M", bound=BaseModel)
_ECDSA_SHA256 = ECDSA(SHA256())
Verify = Callable[[bytes, Mapping[str, Signature]], None]
"""Given DSSE's pre-authentication encoding and the signatures by key id; raises when they do not hold."""


def encode(message: BaseModel) -> bytes:
    """Compact JSON of a message, without fields that are None."""
    return message.model_dump_json(exclude_none=True).encode()


def sign(payload: bytes, payload_type: str, *signers: Signer) -> bytes:
    """A DSSE envelope as compact JSON (DSSE 1.0.2), signed by each of ``signers``."""
    envelope = Envelope(payload, payload_type, {})
    for signer in signers:
        envelope.sign(signer)
    return _ENCODE(envelope.to_dict()).encode()


def parse(raw: bytes, max_bytes: int, payload_type: str) -> Envelope:
    """The envelope, its payload still unproven.

    Raises:
        EnvelopeError: E_OVERSIZE, E_FORMAT or E_TYPE.
    """
    if len(raw) > max_bytes:
        raise EnvelopeError(ErrorCode.OVERSIZE, f"message: at most {max_bytes} B, found {len(raw)}")
    try:
        # RecursionError: "[" x 100,000 is not a ValueError in CPython's json.
        data = json.loads(raw)
        envelope = Envelope.from_dict(data)
        payload_type_found = envelope.payload_type
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, binascii.Error) as error:
        raise EnvelopeError(ErrorCode.FORMAT, "message: not a DSSE envelope") from error
    if payload_type_found != payload_type:
        raise EnvelopeError(ErrorCode.TYPE, f"message: expected {payload_type}, found {str(payload_type_found)[:80]}")
    return envelope


def open_envelope(raw: bytes, max_bytes: int, payload_type: str, verify: Verify, model: type[M]) -> tuple[M, bytes]:
    """Check a signed message and read it.

    Returns:
        (message, payload bytes): the bytes are what digests are made of.

    Raises:
        EnvelopeError: E_OVERSIZE, E_FORMAT, E_TYPE or E_SIGNATURE, in that order of checks.
    """
    envelope = parse(raw, max_bytes, payload_type)
    try:
        verify(envelope.pae(), envelope.signatures)
    except EnvelopeError:
        raise
    except Exception as error:  # whatever a verifier raises, the message is unproven
        raise EnvelopeError(ErrorCode.SIGNATURE, f"{payload_type}: no valid signature by an expected key") from error
    return decode(envelope.payload, model), envelope.payload


def decode(payload: bytes, model: type[M]) -> M:
    """Read JSON into a model.

    Raises:
        EnvelopeError: E_FORMAT, naming the field.
    """
    try:
        return model.model_validate_json(payload)
    except (ValidationError, RecursionError) as error:
        raise EnvelopeError(ErrorCode.FORMAT, f"{model.__name__}: {_first(error)}") from error


def verify_with(key: Key) -> Verify:
    """A verifier for exactly one key, such as a device's.

    securesystemslib parses the key anew for every signature; a P-256 key is parsed here once, and checked by the same
    library underneath.
    """
    check = _p256_check(key) or key.verify_signature

    def verify(pae: bytes, signatures: Mapping[str, Signature]) -> None:
        signature = signatures.get(key.keyid)
        if signature is None:
            raise EnvelopeError(ErrorCode.SIGNATURE, "message: not signed by the expected key")
        try:
            check(signature, pae)
        except (VerificationError, InvalidSignature, ValueError) as error:
            raise EnvelopeError(ErrorCode.SIGNATURE, "message: the signature does not hold") from error

    return verify


def _p256_check(key: Key) -> Callable[[Signature, bytes], None] | None:
    if key.scheme != "ecdsa-sha2-nistp256":
        return None
    try:
        public = load_pem_public_key(key.keyval["public"].encode())
    except (ValueError, KeyError, AttributeError, UnsupportedAlgorithm):
        return None  # securesystemslib says why, at the first signature
    if not isinstance(public, EllipticCurvePublicKey) or not isinstance(public.curve, SECP256R1):
        return None

    def check(signature: Signature, data: bytes) -> None:
        public.verify(bytes.fromhex(signature.signature), data, _ECDSA_SHA256)

    return check


def b64(data: bytes) -> str:
    """Standard base64 as text."""
    return base64.b64encode(data).decode()


def _first(error: Exception) -> str:
    if not isinstance(error, ValidationError):
        return "nested too deeply"
    first: Any = error.errors(include_url=False, include_input=False)[0]
    return f"{'.'.join(str(p) for p in first['loc'])[:80]}: {first['msg'][:120]}"
