"""Who this device is: its keys, the certificate and addresses that enrolment brought, and its session number.

A renewed identity comes in a folder of its own (``new_identity.py``). Private keys are made here and never leave; the
request carries their public halves only. All functions block.
"""

import json
from datetime import datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.x509.oid import NameOID
from pydantic import AwareDatetime, BaseModel, ConfigDict, ValidationError
from securesystemslib.signer import CryptoSigner

from device_client.config import DeviceHome, DeviceSettings, first_mistake, load
from device_client.durable import read_capped, write_durably
from device_client.errors import ConflictError, NotFoundError, StorageError, UsageError
from device_client.identity_files import (
    MAX_KEY_BYTES,
    IdentityFiles,
    load_device_key,
    load_x25519,
    private_pem,
    public_halves,
    read_certificate,
)
from protocol.enrolment import BrokerAddress, EnrolmentAnswer, EnrolmentAnswers, EnrolmentRequest, Mirrors
from protocol.identifiers import IdText

MAX_ANSWERS_BYTES = 64 * 2**20
MAX_NAMED = 3


class Enrolment(BaseModel):
    """``fleet.json``: written last, so that it is there only when everything else is.

    Attributes:
        since: When the certificate came; where it is not known, the certificate's own beginning counts.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    fleet: IdText
    device: IdText
    brokers: list[BrokerAddress]
    mirrors: Mirrors = []
    since: AwareDatetime | None = None


def make_keys(home: DeviceHome, directory: Path | None = None) -> None:
    """Make the keys that are missing; what is there is kept, for the certificate belongs to it."""
    home.create()
    files = IdentityFiles(home, directory)
    if not files.device_key.exists():
        write_durably(files.device_key, private_pem(ec.generate_private_key(ec.SECP256R1())))
    if not files.content_key.exists():
        write_durably(files.content_key, private_pem(X25519PrivateKey.generate()))


def make_request(home: DeviceHome, settings: DeviceSettings) -> EnrolmentRequest:
    """What the owner carries to the orchestrator; the CSR proves possession of the device key.

    Raises:
        DeviceError: A key is missing or unreadable; names the file.
    """
    device = settings.device
    csr, content_key = public_halves(IdentityFiles(home), device.id)
    return EnrolmentRequest(
        device=device.id,
        product=device.product,
        hardware=device.hardware,
        labels=device.labels,
        csr=csr,
        content_key=content_key,
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
    enrolment = Enrolment(fleet=answer.fleet, device=answer.device, brokers=answer.brokers, mirrors=answer.mirrors)
    write_durably(files.enrolment, enrolment.model_dump_json().encode(), 0o644)
    return enrolment


def load_enrolment(home: DeviceHome, directory: Path | None = None) -> Enrolment:
    """The fleet and its brokers.

    Raises:
        NotFoundError: This device is not enrolled.
        StorageError: The file is damaged.
    """
    path = IdentityFiles(home, directory).enrolment
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


def load_report_signer(home: DeviceHome, directory: Path | None = None) -> CryptoSigner:
    """Signs reports with the device key.

    Raises:
        DeviceError: The key is missing or unreadable; names the file.
    """
    return CryptoSigner(load_device_key(IdentityFiles(home, directory)))


def load_content_key(home: DeviceHome) -> X25519PrivateKey:
    """Opens content keys that were wrapped for this device.

    Raises:
        DeviceError: The key is missing or unreadable; names the file.
    """
    return load_x25519(IdentityFiles(home).content_key)


def load_content_keys(home: DeviceHome) -> list[X25519PrivateKey]:
    """The content key and those of former identities that are still kept.

    Raises:
        DeviceError: A key is missing or unreadable; names the file.
    """
    files = IdentityFiles(home)
    return [load_x25519(path) for path in (files.content_key, *files.former_content_keys)]


def certificate_expiry(home: DeviceHome) -> datetime:
    """When the device's certificate runs out.

    Raises:
        DeviceError: It is missing or unreadable.
    """
    return certificate_times(home)[1]


def certificate_times(home: DeviceHome) -> tuple[datetime, datetime]:
    """From when to when the device's certificate is good; it begins when it came, where that is known.

    Raises:
        DeviceError: It is missing or unreadable.
    """
    path = IdentityFiles(home).certificate
    certificate = read_certificate(read_capped(path, MAX_KEY_BYTES), path)
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    since = load_enrolment(home).since
    return (since if since is not None and begin <= since < end else begin), end


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
    certificate = read_certificate(answer.certificate.encode(), path)
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    if [name.value for name in names] != [answer.device]:
        raise ConflictError(f"{path}: the certificate is not for device {answer.device}; ask for it again")
    if certificate.public_key() != load_device_key(files).public_key():
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
