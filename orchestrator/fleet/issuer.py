"""Who issues devices' certificates: the built-in CA, or a program that reaches one kept elsewhere. Blocking.

A certificate is checked before it leaves here, whoever made it: the device's name, the device's key, for clients, not a
CA. So a wrong template of an outside CA shows at once and on this side.
"""

import os
import subprocess
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from orchestrator.config import Home, Settings
from orchestrator.errors import OperationError, UnreachableError
from orchestrator.fleet.authority import Authority, PublicKey, issue_device, load_authority, request_key

DEVICES_CA = "devices-ca"
MAX_CERTIFICATE_BYTES = 16_384


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate in PEM, its serial in hex, and when it runs out."""

    certificate: str
    serial: str
    expires: datetime


class Issuer(Protocol):
    """Makes a certificate for the key of a request, under a name that the caller knows."""

    def issue(self, csr_pem: str, device: str, life: timedelta, now: datetime) -> Issued:
        """Issue.

        Args:
            csr_pem: PKCS#10; its subject is ignored.
            device: The CN.
            life: How long it should be valid.

        Raises:
            UsageError: The request is not acceptable.
            OperationError: The CA did not issue, or issued something else.
        """
        ...


class BuiltInIssuer:
    """The CA in the fleet's home."""

    def __init__(self, authority: Authority) -> None:
        self._authority = authority

    def issue(self, csr_pem: str, device: str, life: timedelta, now: datetime) -> Issued:
        """As ``Issuer.issue``."""
        certificate, _ = issue_device(self._authority, csr_pem, device, life, now)
        return check_issued(certificate, device, request_key(csr_pem))


class CommandIssuer:
    """A program: the request on its stdin, the name and the life in its environment, the certificate on its stdout.

    FLAGSHIP_DEVICE is the CN that the certificate must have, FLAGSHIP_NOT_AFTER its end (RFC 3339), FLAGSHIP_LIFE_S the
    same in seconds. What the program prints on stderr reaches the log when it fails.
    """

    def __init__(self, command: list[str], timeout_s: float) -> None:
        self._command = command
        self._timeout_s = timeout_s

    def issue(self, csr_pem: str, device: str, life: timedelta, now: datetime) -> Issued:
        """As ``Issuer.issue``."""
        key = request_key(csr_pem)  # first: a bad request is not the program's business
        told = {
            "FLAGSHIP_DEVICE": device,
            "FLAGSHIP_NOT_AFTER": f"{now + life:%Y-%m-%dT%H:%M:%SZ}",
            "FLAGSHIP_LIFE_S": f"{life.total_seconds():.0f}",
        }
        name = self._command[0]
        try:
            done = subprocess.run(
                self._command,
                input=csr_pem.encode(),
                capture_output=True,
                timeout=self._timeout_s,
                env={**os.environ, **told},
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise UnreachableError(
                f"issuer {name}: no certificate for {device} within {self._timeout_s:g} s; see that its CA answers"
            ) from error
        except OSError as error:
            raise OperationError(
                f"issuer {name}: cannot be started: {error.strerror}; mend certificates.issue_command"
            ) from error
        if done.returncode != 0:
            said = done.stderr.decode(errors="replace").strip().splitlines() or ["it said nothing"]
            raise OperationError(f"issuer {name}: ended with {done.returncode} for {device}: {said[-1][:300]}")
        if len(done.stdout) > MAX_CERTIFICATE_BYTES:
            raise OperationError(f"issuer {name}: more than {MAX_CERTIFICATE_BYTES} B for {device}")
        return check_issued(done.stdout.decode(errors="replace"), device, key)


def open_issuer(home: Home, settings: Settings) -> Issuer:
    """The issuer that the settings name.

    Raises:
        OperationError: The built-in CA is not there.
    """
    wanted = settings.certificates
    if wanted.issue_command:
        return CommandIssuer(wanted.issue_command, wanted.issue_timeout_s)
    return BuiltInIssuer(load_authority(home.ca, DEVICES_CA))


def check_issued(pem: str, device: str, key: PublicKey) -> Issued:
    """See that a certificate is what was asked for; what stands behind the first one in ``pem`` is left out.

    Raises:
        OperationError: It is for another name or key, not for clients, or a CA's.
    """
    try:
        certificate = x509.load_pem_x509_certificate(pem.encode())
        purposes = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        is_ca = _is_ca(certificate)
    except (ValueError, x509.ExtensionNotFound) as error:
        raise OperationError(f"issuer: what it made for {device} is no certificate for clients in PEM") from error
    names = [name.value for name in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    if names != [device]:
        raise OperationError(f"issuer: expected a certificate for {device}, found {str(names)[:80]}")
    if certificate.public_key() != key:
        raise OperationError(f"issuer: the certificate for {device} is for another key")
    if ExtendedKeyUsageOID.CLIENT_AUTH not in purposes or is_ca:
        raise OperationError(f"issuer: the certificate for {device} must be for TLS clients and not a CA's")
    text = certificate.public_bytes(Encoding.PEM).decode()
    return Issued(text, f"{certificate.serial_number:x}", certificate.not_valid_after_utc)


def _is_ca(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False
