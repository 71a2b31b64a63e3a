"""Making private keys: PKCS#8 PEM, readable by their owner alone from the first byte on. Blocking."""

import os
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from securesystemslib.signer import CryptoSigner

from orchestrator.errors import ConflictError, OperationError


def create_signing_key(path: Path) -> CryptoSigner:
    """Make an Ed25519 key.

    Raises:
        ConflictError: The file exists; a key is never overwritten.
        OperationError: It cannot be written.
    """
    key = Ed25519PrivateKey.generate()
    write_private(path, _pem(key))
    return CryptoSigner(key)


def create_package_key(path: Path) -> X25519PrivateKey:
    """Make an X25519 key; raises as ``create_signing_key``."""
    key = X25519PrivateKey.generate()
    write_private(path, _pem(key))
    return key


def write_private(path: Path, data: bytes) -> None:
    """Write a new file with mode 0600; durable when it returns; raises as ``create_signing_key``."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "wb") as out:
            out.write(data)
            out.flush()
            os.fsync(out.fileno())
    except FileExistsError as error:
        raise ConflictError(f"{path}: exists already; a key is never overwritten") from error
    except OSError as error:
        raise OperationError(f"{path}: cannot be written: {error.strerror or error}") from error


def _pem(key: Ed25519PrivateKey | X25519PrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
