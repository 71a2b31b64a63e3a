"""A device's identity for the time of one check: made with the home's own CA, gone with its folder."""

import contextlib
import tempfile
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from orchestrator.fleet.authority import issue_device, load_authority
from orchestrator.private_files import write_private

LIFE = timedelta(minutes=10)


@contextlib.contextmanager
def passing_device(ca: Path, name: str) -> Iterator[tuple[Path, Path] | None]:
    """(certificate, key) of a device that no database knows; None where the home does not hold the devices' CA key.

    Args:
        ca: Folder with ``devices-ca.pem`` and ``devices-ca.key``.
    """
    if not (ca / "devices-ca.key").is_file():
        yield None
        return
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    csr = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    certificate, _ = issue_device(
        load_authority(ca, "devices-ca"), csr.public_bytes(Encoding.PEM).decode(), name, life=LIFE
    )
    with tempfile.TemporaryDirectory(prefix="flagship-check-") as folder:
        place = Path(folder)
        (place / "device.pem").write_text(certificate)
        write_private(place / "device.key", key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        yield place / "device.pem", place / "device.key"
