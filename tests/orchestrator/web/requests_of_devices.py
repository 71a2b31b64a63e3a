"""Enrolment requests as devices make them."""

import base64
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID


def enrolment_request(device: str, **labels: str) -> dict[str, Any]:
    """A request with fresh keys."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "anything")])
    csr = x509.CertificateSigningRequestBuilder().subject_name(name)
    signed = csr.sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())
    content = X25519PrivateKey.generate().public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    return {
        "v": 1,
        "device": device,
        "product": "gateway",
        "hardware": "rev-a",
        "labels": labels,
        "csr": signed.public_bytes(Encoding.PEM).decode(),
        "content_key": base64.b64encode(content).decode(),
    }
