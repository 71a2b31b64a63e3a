"""Loading the signer's private keys: PKCS#8 PEM files, readable by their owner alone."""

from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from securesystemslib.signer import CryptoSigner

from orchestrator.errors import NotAllowedError, NotFoundError, OperationError


def load_signer(path: Path) -> CryptoSigner:
    """A signing key (Ed25519 or P-256).

    Raises:
        NotFoundError: The file is missing.
        NotAllowedError: Others than its owner may read it.
        OperationError: It is no private key that can sign.
    """
    try:
        return CryptoSigner(load_pem_private_key(_read(path), None))
    except (ValueError, TypeError) as error:
        raise OperationError(f"{path}: expected an unencrypted private key for signing in PEM") from error


def load_x25519(path: Path) -> X25519PrivateKey:
    """The key that opens packages.

    Raises:
        NotFoundError: The file is missing.
        NotAllowedError: Others than its owner may read it.
        OperationError: It is not an X25519 key.
    """
    try:
        key = load_pem_private_key(_read(path), None)
    except (ValueError, TypeError) as error:
        raise OperationError(f"{path}: expected an unencrypted X25519 private key in PEM") from error
    if not isinstance(key, X25519PrivateKey):
        raise OperationError(f"{path}: expected an X25519 private key, found another kind")
    return key


def _read(path: Path) -> bytes:
    try:
        mode = path.stat().st_mode
        if mode & 0o077:
            raise NotAllowedError(f"{path}: a private key with mode {mode & 0o777:o}; make it 600")
        return path.read_bytes()
    except FileNotFoundError as error:
        raise NotFoundError(
            f"{path}: the key is missing; restore it from a backup, or make a new home with 'flagship init'"
        ) from error
    except OSError as error:
        raise OperationError(f"{path}: {error.strerror}") from error
