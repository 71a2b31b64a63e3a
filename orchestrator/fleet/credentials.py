"""Whether the certificates that serve needs can be used, asked before anything starts. Blocking.

Without this the broker or a session fails later, over and over, with a sentence of OpenSSL that names no file.
"""

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from orchestrator.errors import NotAllowedError, NotFoundError, OperationError

MAX_PEM_BYTES = 65_536


def check_credentials(issuers: Mapping[Path, Path], now: datetime) -> None:
    """Check certificates (``NAME.pem``, the key beside it as ``NAME.key``), each against its CA's certificate.

    Raises:
        NotFoundError: A file is missing.
        NotAllowedError: A certificate is not valid yet, or no longer.
        OperationError: A file is damaged, of another key or of another CA.
    """
    for certificate, issuer in issuers.items():
        found = _certificate(certificate)
        _check_pair(found, certificate)
        authority = next((one for one in _authorities(issuer) if _issued_by(found, one)), None)
        if authority is None:
            raise OperationError(f"{certificate}: not issued by {issuer}; restore both from one backup of this home")
        _check_dates(authority, issuer, now)
        _check_dates(found, certificate, now)


def _check_pair(found: x509.Certificate, certificate: Path) -> None:
    file = certificate.with_suffix(".key")
    try:
        key = load_pem_private_key(_read(file), None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise OperationError(f"{file}: expected an unencrypted private key in PEM; restore it") from error
    if key.public_key() != found.public_key():
        raise OperationError(f"{file}: is not the key of {certificate}; restore both from one backup of this home")


def _check_dates(found: x509.Certificate, file: Path, now: datetime) -> None:
    if now >= found.not_valid_after_utc:
        raise NotAllowedError(f"{file}: expired on {found.not_valid_after_utc:%Y-%m-%d}; issue a new one with its CA")
    if now < found.not_valid_before_utc:
        raise NotAllowedError(
            f"{file}: valid from {found.not_valid_before_utc:%Y-%m-%d}, the clock says {now:%Y-%m-%d}; set the clock"
        )


def _issued_by(found: x509.Certificate, authority: x509.Certificate) -> bool:
    try:
        found.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _authorities(file: Path) -> list[x509.Certificate]:
    """Several while one CA takes another's place."""
    try:
        return x509.load_pem_x509_certificates(_read(file))
    except ValueError as error:
        raise OperationError(f"{file}: expected a certificate in PEM; restore it") from error


def _certificate(file: Path) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(_read(file))
    except ValueError as error:
        raise OperationError(f"{file}: expected a certificate in PEM; restore it") from error


def _read(file: Path) -> bytes:
    try:
        with file.open("rb") as source:
            return source.read(MAX_PEM_BYTES)
    except FileNotFoundError as error:
        raise NotFoundError(f"{file}: is missing; restore it from a backup of this home") from error
    except PermissionError as error:
        raise NotAllowedError(f"{file}: this user may not read it") from error
    except OSError as error:
        raise OperationError(f"{file}: cannot be read: {error.strerror or error}") from error
