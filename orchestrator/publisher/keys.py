"""Making private keys: PKCS#8 PEM, never overwritten. Blocking."""

from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from securesystemslib.signer import CryptoSigner

from orchestrator.private_files import write_private


def create_signing_key(path: Path, password: str = "") -> CryptoSigner:
    """Make an Ed25519 key; encrypted (PBES2) when there is a password.

    Raises:
        ConflictError: The file exists; a key is never overwritten.
        OperationError: It cannot be written.
    """
    key = Ed25519PrivateKey.generate()
    write_private(path, _pem(key, password))
    return CryptoSigner(key)


def create_package_key(path: Path) -> X25519PrivateKey:
    """Make an X25519 key; raises as ``create_signing_key``."""
    key = X25519PrivateKey.generate()
    write_private(path, _pem(key))
    return key


def _pem(key: Ed25519PrivateKey | X25519PrivateKey, password: str = "") -> bytes:
    protection = BestAvailableEncryption(password.encode()) if password else NoEncryption()
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, protection)
