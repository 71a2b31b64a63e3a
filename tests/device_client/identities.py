"""A CA and devices under it, for tests of identities."""

import base64
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from device_client import identity
from device_client.config import DeviceHome, DeviceSection, DeviceSettings, write
from device_client.durable import write_durably
from device_client.identity import Enrolment
from device_client.identity_files import IdentityFiles, load_device_key
from protocol.enrolment import BrokerAddress

NOW = datetime(2026, 11, 25, tzinfo=UTC)
BROKERS = [BrokerAddress(host="broker.example", port=8883)]
SETTINGS = DeviceSettings(device=DeviceSection(id="d1", serial="SN-1", product="cam", hardware="rev-b"))


class TestCa:
    """Issues whatever it is asked for."""

    __test__ = False

    def __init__(self, name: str = "ca") -> None:
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self._key = ec.generate_private_key(ec.SECP256R1())
        self.pem = self._sign(self._name, self._key.public_key(), NOW + timedelta(days=3650), ca=True)

    def issue(self, public: Any, name: str = "d1", days: float = 90) -> str:
        """A certificate in PEM, from NOW on."""
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        return self._sign(subject, public, NOW + timedelta(days=days), ca=False)

    def _sign(self, subject: x509.Name, public: Any, end: datetime, *, ca: bool) -> str:
        builder = x509.CertificateBuilder(self._name, subject, public, x509.random_serial_number(), NOW, end)
        builder = builder.add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        return builder.sign(self._key, hashes.SHA256()).public_bytes(Encoding.PEM).decode()


def enrolled(place: Path, ca: TestCa, settings: DeviceSettings = SETTINGS) -> DeviceHome:
    """A device with keys and a certificate."""
    home = DeviceHome(place)
    identity.make_keys(home)
    write(home, settings)
    files = IdentityFiles(home)
    certificate = ca.issue(load_device_key(files).public_key(), settings.device.id)
    write_durably(files.ca, ca.pem.encode())
    write_durably(files.root, b'{"signed":{"_type":"root"}}')
    write_durably(files.certificate, certificate.encode())
    enrolment = Enrolment(fleet="north", device=settings.device.id, brokers=BROKERS, since=NOW)
    write_durably(files.enrolment, enrolment.model_dump_json().encode())
    return home


def public_content_key(key: Any) -> str:
    """As a request says it."""
    return base64.b64encode(key.public_key().public_bytes_raw()).decode()
