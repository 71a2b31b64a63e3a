"""The fleet's development certificate authority: three roots, and what they issue. Blocking.

``devices-ca`` issues the certificates of devices and of the broker, ``services-ca`` those of the orchestrator's
sessions and of viewers, ``claims-ca`` claim certificates. A subject comes from the inventory, never from a request. A
production fleet brings its own CA (``issuer.py``).
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from orchestrator.errors import NotFoundError, OperationError, UsageError
from orchestrator.private_files import write_private
from protocol.enrolment import MAX_REQUEST_BYTES

CA_LIFE = timedelta(days=3650)
SERVICE_LIFE = timedelta(days=397)
DEVICE_LIFE = timedelta(days=90)
BACKDATED = timedelta(minutes=5)
"""For clocks that differ a little."""

_HOST = re.compile(r"^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?\Z")

PublicKey = ec.EllipticCurvePublicKey


@dataclass(frozen=True, slots=True)
class Authority:
    """A CA's certificate and key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey


def create_authority(directory: Path, name: str) -> Authority:
    """Make ``NAME.pem`` and ``NAME.key``.

    Raises:
        ConflictError: The key exists.
        OperationError: A file cannot be written.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    subject = _name(name)
    now = datetime.now(UTC)
    builder = _builder(subject, subject, key.public_key(), now, CA_LIFE)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(_usage(sign_certificates=True), critical=True)
    authority = Authority(builder.sign(key, hashes.SHA256()), key)
    _store(directory, name, authority.certificate, key)
    return authority


def load_authority(directory: Path, name: str) -> Authority:
    """Read a CA back.

    Raises:
        NotFoundError: A file is missing.
        OperationError: A file is not what it should be.
    """
    certificate, key = directory / f"{name}.pem", directory / f"{name}.key"
    try:
        loaded = load_pem_private_key(key.read_bytes(), None)
        if not isinstance(loaded, ec.EllipticCurvePrivateKey):
            raise OperationError(f"{key}: expected a P-256 key, found another kind; restore it")
        first = x509.load_pem_x509_certificate(certificate.read_bytes())
        if first.public_key() != loaded.public_key():
            raise OperationError(f"{certificate}: its first certificate is not that of {key}; put the pair back")
        return Authority(first, loaded)
    except FileNotFoundError as error:
        raise NotFoundError(f"{error.filename}: is missing; restore it, nothing can be issued without it") from error
    except OSError as error:
        raise OperationError(f"{error.filename}: cannot be read: {error.strerror}") from error
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise OperationError(f"{directory}/{name}: expected a certificate and its key in PEM; restore them") from error


def issue_server(authority: Authority, directory: Path, name: str, hosts: Sequence[str]) -> None:
    """Make a broker's certificate for its host names and addresses, and its key.

    Raises:
        UsageError: A host is neither a name nor an address.
        OperationError: A file cannot be written.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    builder = _leaf(authority, name, key.public_key(), SERVICE_LIFE, ExtendedKeyUsageOID.SERVER_AUTH)
    names = x509.SubjectAlternativeName([_host(host) for host in hosts])
    builder = builder.add_extension(names, critical=False)
    _store(directory, name, builder.sign(authority.key, hashes.SHA256()), key)


def issue_client(authority: Authority, directory: Path, name: str) -> None:
    """Make the certificate and key of a service or viewer; raises as ``issue_server``."""
    key = ec.generate_private_key(ec.SECP256R1())
    builder = _leaf(authority, name, key.public_key(), SERVICE_LIFE, ExtendedKeyUsageOID.CLIENT_AUTH)
    _store(directory, name, builder.sign(authority.key, hashes.SHA256()), key)


def request_key(csr_pem: str) -> PublicKey:
    """The public key of a certificate request; the signature proves that the asker holds the other half.

    Raises:
        UsageError: It is no request, not signed by its key, or the key is not P-256.
    """
    if len(csr_pem) > MAX_REQUEST_BYTES:
        raise UsageError(f"certificate request: at most {MAX_REQUEST_BYTES} B, found {len(csr_pem)}")
    try:
        csr = x509.load_pem_x509_csr(csr_pem.encode())
        key = csr.public_key()
        valid = csr.is_signature_valid
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm) as error:
        raise UsageError("certificate request: not PKCS#10 in PEM; make a new one on the device") from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise UsageError("certificate request: expected a P-256 key, found another kind; make a new one on the device")
    if not valid:
        raise UsageError("certificate request: not signed by its own key; make a new one on the device")
    return key


def issue_device(
    authority: Authority, csr_pem: str, name: str, life: timedelta = DEVICE_LIFE, now: datetime | None = None
) -> tuple[str, str]:
    """Issue the certificate of a device or of a claim.

    Returns:
        (certificate in PEM, its serial in hex).

    Raises:
        UsageError: The request is not acceptable; see ``request_key``.
    """
    purpose = ExtendedKeyUsageOID.CLIENT_AUTH
    builder = _leaf(authority, name, request_key(csr_pem), life, purpose, now)
    certificate = builder.sign(authority.key, hashes.SHA256())
    return certificate.public_bytes(Encoding.PEM).decode(), f"{certificate.serial_number:x}"


def _leaf(
    authority: Authority,
    name: str,
    key: PublicKey,
    life: timedelta,
    purpose: x509.ObjectIdentifier,
    now: datetime | None = None,
) -> x509.CertificateBuilder:
    builder = _builder(_name(name), authority.certificate.subject, key, now or datetime.now(UTC), life)
    issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key())
    return (
        builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(sign_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        .add_extension(issuer, critical=False)
    )


def _builder(
    subject: x509.Name, issuer: x509.Name, key: PublicKey, now: datetime, life: timedelta
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATED)
        .not_valid_after(now + life)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _usage(*, sign_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not sign_certificates,
        key_cert_sign=sign_certificates,
        crl_sign=sign_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(host))
    except ValueError:
        pass
    if len(host) > 253 or not _HOST.match(host):
        raise UsageError(f"host {host[:80]!r}: expected a host name or an IP address")
    return x509.DNSName(host)


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _store(directory: Path, name: str, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
    place = directory / f"{name}.pem"
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        # The key first: it is never overwritten, so a certificate never loses its key.
        write_private(directory / f"{name}.key", key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        place.write_bytes(certificate.public_bytes(Encoding.PEM))
    except OSError as error:
        raise OperationError(f"{place}: cannot be written: {error.strerror or error}") from error
