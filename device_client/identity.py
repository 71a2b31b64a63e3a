"""Who this device is: its two keys, the certificate and addresses that enrolment brought, and its session number.

    device.key   P-256: TLS, and the signature of reports          content.key   X25519: content keys are wrapped for it

Private keys are made here and never leave; the request carries their public halves only. All functions block.
"""

import json
from base64 import b64encode
from datetime import datetime
from pathlib import Path

from cryptography import x509
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
from pydantic import BaseModel, ConfigDict, ValidationError
from securesystemslib.signer import CryptoSigner

from device_client.config import DeviceHome, DeviceSettings, first_mistake, load
from device_client.durable import read_capped, write_durably
from device_client.errors import ConflictError, DeviceError, NotFoundError, StorageError, UsageError
from protocol.enrolment import BrokerAddress, EnrolmentAnswer, EnrolmentAnswers, EnrolmentRequest
from protocol.identifiers import IdText

MAX_KEY_BYTES = 16_384
MAX_ANSWERS_BYTES = 64 * 2**20
MAX_NAMED = 3


class Enrolment(BaseModel):
    """``identity/fleet.json``: written last, so that it is there only when everything else is."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    fleet: IdText
    device: IdText
    brokers: list[BrokerAddress]


class IdentityFiles:
    """Paths inside ``identity/``."""

    def __init__(self, home: DeviceHome) -> None:
        self.device_key = home.identity / "device.key"
        self.content_key = home.identity / "content.key"
        self.certificate = home.identity / "certificate.pem"
        self.ca = home.identity / "ca.pem"
        self.root = home.identity / "root.json"
        self.enrolment = home.identity / "fleet.json"


def make_keys(home: DeviceHome) -> None:
    """Make the keys that are missing; what is there is kept, for the certificate belongs to it."""
    home.create()
    files = IdentityFiles(home)
    if not files.device_key.exists():
        write_durably(files.device_key, _pem(ec.generate_private_key(ec.SECP256R1())))
    if not files.content_key.exists():
        write_durably(files.content_key, _pem(X25519PrivateKey.generate()))


def make_request(home: DeviceHome, settings: DeviceSettings) -> EnrolmentRequest:
    """What the owner carries to the orchestrator; the CSR proves possession of the device key.

    Raises:
        DeviceError: A key is missing or unreadable; names the file.
    """
    device = settings.device
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, device.id)])
    csr = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(_device_key(home), hashes.SHA256())
    public = load_content_key(home).public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    return EnrolmentRequest(
        device=device.id,
        product=device.product,
        hardware=device.hardware,
        labels=device.labels,
        csr=csr.public_bytes(Encoding.PEM).decode(),
        content_key=b64encode(public).decode(),
    )


def accept(home: DeviceHome, answers_file: Path) -> Enrolment:
    """Take this device's answer out of an answers file, check it, and keep it.

    Nothing is kept unless everything fits. The root of trust of an earlier enrolment in the same fleet stays: what was
    verified since is bound to it.

    Raises:
        UsageError: The file is not an answers file, or is damaged.
        NotFoundError: It does not exist, or holds nothing for this device.
        ConflictError: It is for other keys, or this device belongs to another fleet.
    """
    _, settings = load(home.config)
    answer = _find_answer(answers_file, settings.device.id)
    _check_answer(home, answers_file, answer)
    files = IdentityFiles(home)
    if not files.root.exists():
        write_durably(files.root, answer.root.encode(), 0o644)
    write_durably(files.ca, answer.ca.encode(), 0o644)
    write_durably(files.certificate, answer.certificate.encode(), 0o644)
    enrolment = Enrolment(fleet=answer.fleet, device=answer.device, brokers=answer.brokers)
    write_durably(files.enrolment, enrolment.model_dump_json().encode(), 0o644)
    return enrolment


def load_enrolment(home: DeviceHome) -> Enrolment:
    """The fleet and its brokers.

    Raises:
        NotFoundError: This device is not enrolled.
        StorageError: The file is damaged.
    """
    path = IdentityFiles(home).enrolment
    if not path.is_file():
        raise NotFoundError(
            f"{home.path}: this device is not enrolled; carry its request to 'flagship device enrol' "
            "and give the answer to 'flagship-device enrol --accept FILE'"
        )
    try:
        return Enrolment.model_validate_json(read_capped(path, MAX_KEY_BYTES))
    except ValidationError as error:
        raise StorageError(f"{path}: damaged ({first_mistake(error)}); accept the answers file again") from error


def load_root(home: DeviceHome) -> bytes:
    """The TUF root that enrolment brought."""
    return read_capped(IdentityFiles(home).root, MAX_KEY_BYTES)


def load_report_signer(home: DeviceHome) -> CryptoSigner:
    """Signs reports with the device key.

    Raises:
        DeviceError: The key is missing or unreadable; names the file.
    """
    return CryptoSigner(_device_key(home))


def load_content_key(home: DeviceHome) -> X25519PrivateKey:
    """Opens content keys that were wrapped for this device.

    Raises:
        DeviceError: The key is missing or unreadable; names the file.
    """
    path = IdentityFiles(home).content_key
    key = _load_key(path)
    if not isinstance(key, X25519PrivateKey):
        raise UsageError(f"{path}: expected an X25519 key, found another kind")
    return key


def certificate_expiry(home: DeviceHome) -> datetime:
    """When the device's certificate runs out.

    Raises:
        DeviceError: It is missing or unreadable.
    """
    path = IdentityFiles(home).certificate
    return _certificate(read_capped(path, MAX_KEY_BYTES), path).not_valid_after_utc


def next_session(home: DeviceHome) -> int:
    """Raise the session number; it is on the disk before this returns, and so before the CONNECT.

    Raises:
        StorageError: The number is damaged, or cannot be kept: reports would be taken for replays.
    """
    try:
        text = read_capped(home.session, 32).decode().strip()
    except NotFoundError:
        text = "0"
    except UnicodeDecodeError:
        text = ""
    if not text.isdecimal():
        raise StorageError(
            f"{home.session}: damaged; write a number into it that is higher than the last session of this device"
        )
    session = int(text) + 1
    write_durably(home.session, f"{session}\n".encode())
    return session


def _find_answer(path: Path, device: str) -> EnrolmentAnswer:
    raw = read_capped(path, MAX_ANSWERS_BYTES)
    try:
        answers = EnrolmentAnswers.model_validate_json(raw).answers
    except (ValidationError, RecursionError) as error:
        why = first_mistake(error) if isinstance(error, ValidationError) else "nested too deeply"
        raise UsageError(f"{path}: not an answers file of 'flagship device enrol' ({why}); ask for it again") from error
    for answer in answers:
        if answer.device == device:
            return answer
    named = ", ".join(answer.device for answer in answers[:MAX_NAMED])
    raise NotFoundError(
        f"{path}: holds no answer for device {device} (it is for {named}{', ...' if len(answers) > MAX_NAMED else ''})"
    )


def _check_answer(home: DeviceHome, path: Path, answer: EnrolmentAnswer) -> None:
    files = IdentityFiles(home)
    if files.enrolment.is_file() and (fleet := load_enrolment(home).fleet) != answer.fleet:
        raise ConflictError(
            f"{path}: is for fleet {answer.fleet}, but this device belongs to fleet {fleet}; "
            f"remove {home.identity} and {home.trust} to move it"
        )
    certificate = _certificate(answer.certificate.encode(), path)
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    if [name.value for name in names] != [answer.device]:
        raise ConflictError(f"{path}: the certificate is not for device {answer.device}; ask for it again")
    if certificate.public_key() != _device_key(home).public_key():
        raise ConflictError(
            f"{path}: the certificate does not fit {files.device_key}; it answers an older request, make a new one"
        )
    _check_ca_and_root(path, answer)


def _check_ca_and_root(path: Path, answer: EnrolmentAnswer) -> None:
    try:
        x509.load_pem_x509_certificates(answer.ca.encode())
    except ValueError as error:
        raise UsageError(f"{path}: the CA is not a certificate; ask for the file again") from error
    try:
        kind = json.loads(answer.root)["signed"]["_type"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise UsageError(f"{path}: the root is not TUF metadata; ask for the file again") from error
    if kind != "root":
        raise UsageError(f"{path}: expected TUF root metadata, found {str(kind)[:40]!r}; ask for the file again")


def _device_key(home: DeviceHome) -> ec.EllipticCurvePrivateKey:
    path = IdentityFiles(home).device_key
    key = _load_key(path)
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise UsageError(f"{path}: expected a P-256 key, found another kind")
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


def _certificate(pem: bytes, path: Path) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(pem)
    except ValueError as error:
        raise UsageError(f"{path}: holds no certificate in PEM; ask for it again") from error


def _pem(key: ec.EllipticCurvePrivateKey | X25519PrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
