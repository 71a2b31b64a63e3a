"""What lies in the folder of an identity: paths, keys, a certificate. All functions block.

device.key   P-256: TLS, and the signature of reports          content.key   X25519: content keys are wrapped for it
"""

from base64 import b64encode
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import NameOID

from device_client.config import DeviceHome
from device_client.durable import read_capped
from device_client.errors import ConflictError, DeviceError, NotFoundError, StorageError, UsageError
from protocol.identifiers import check_id

MAX_KEY_BYTES = 16_384
MAX_FORMER = 3


class IdentityFiles:
    """Paths inside ``identity/``, or inside another folder of that kind."""

    def __init__(self, home: DeviceHome, directory: Path | None = None) -> None:
        self.directory = directory or home.identity
        self.device_key = self.directory / "device.key"
        self.content_key = self.directory / "content.key"
        self.certificate = self.directory / "certificate.pem"
        self.ca = self.directory / "ca.pem"
        self.root = self.directory / "root.json"
        self.enrolment = self.directory / "fleet.json"
        self.request = self.directory / "request.dsse"

    @property
    def former_content_keys(self) -> list[Path]:
        """Content keys of former identities, the newest first."""
        paths = (self.directory / f"content.key.{number}" for number in range(1, MAX_FORMER + 1))
        return [path for path in paths if path.exists()]


def public_halves(files: IdentityFiles, name: str) -> tuple[str, str]:
    """(CSR in PEM for the device key, content key in base64): what a request says of a folder's keys.

    Args:
        name: The CSR's subject, which nobody looks at.

    Raises:
        DeviceError: A key is missing or unreadable; names the file.
    """
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    csr = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(load_device_key(files), hashes.SHA256())
    public = load_x25519(files.content_key).public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    return csr.public_bytes(Encoding.PEM).decode(), b64encode(public).decode()


def check_certificate(pem: str, where: str, *, key: ec.EllipticCurvePublicKey, cas: bytes) -> str:
    """See that a certificate that came over the network is for a key of ours, by a CA that we know.

    Args:
        where: What it came from, for the error.
        cas: CA certificates in PEM, one of which must have issued it.

    Returns:
        The name that it gives this device.

    Raises:
        ConflictError: It is not.
        UsageError: It is no certificate.
    """
    certificate = read_certificate(pem.encode(), Path(where))
    if certificate.public_key() != key:
        raise ConflictError(f"{where}: the certificate is for another key")
    if not any(_issued_by(certificate, ca) for ca in x509.load_pem_x509_certificates(cas)):
        raise ConflictError(f"{where}: the certificate is not by a CA of this fleet")
    names = [str(name.value) for name in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    try:
        return check_id(names[0] if len(names) == 1 else "", "device id")
    except ValueError as error:
        raise ConflictError(f"{where}: the certificate's name is no device id") from error


def _issued_by(certificate: x509.Certificate, ca: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(ca)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def load_device_key(files: IdentityFiles) -> ec.EllipticCurvePrivateKey:
    """The P-256 key of an identity.

    Raises:
        DeviceError: It is missing or unreadable; names the file.
    """
    path = files.device_key
    key = _load_key(path)
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise UsageError(f"{path}: expected a P-256 key, found another kind")
    return key


def load_x25519(path: Path) -> X25519PrivateKey:
    """A content key.

    Raises:
        DeviceError: It is missing or unreadable; names the file.
    """
    key = _load_key(path)
    if not isinstance(key, X25519PrivateKey):
        raise UsageError(f"{path}: expected an X25519 key, found another kind")
    return key


def _load_key(path: Path) -> object:
    if not path.is_file():
        raise NotFoundError(f"{path}: this key is missing; make it with 'flagship-device enrol'")
    try:
        return load_pem_private_key(read_capped(path, MAX_KEY_BYTES), None)
    except DeviceError:
        raise
    except Exception as error:  # cryptography raises several kinds, none of which may show the key
        raise StorageError(f"{path}: not a private key in PEM; restore it, or remove it and enrol again") from error


def read_certificate(pem: bytes, path: Path) -> x509.Certificate:
    """A certificate in PEM; ``path`` is for the error, a UsageError."""
    try:
        return x509.load_pem_x509_certificate(pem)
    except ValueError as error:
        raise UsageError(f"{path}: holds no certificate in PEM; ask for it again") from error


def private_pem(key: ec.EllipticCurvePrivateKey | X25519PrivateKey) -> bytes:
    """A private key as it is kept: PKCS#8 PEM, protected by the file's mode."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
