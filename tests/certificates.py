"""Certificates for tests, also such as ours would never be issued; and free ports."""

import ipaddress
import socket
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID


def free_ports() -> tuple[int, int]:
    """Two loopback ports that nobody listens on."""
    with socket.socket() as one, socket.socket() as two:
        one.bind(("127.0.0.1", 0))
        two.bind(("127.0.0.1", 0))
        return one.getsockname()[1], two.getsockname()[1]


class Authority:
    """A certificate authority that signs whatever name it is asked for, as ours never would."""

    def __init__(self, path: Path, name: str) -> None:
        self.path = path
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self._key = ec.generate_private_key(ec.SECP256R1())
        path.write_bytes(self._build(name, self._key.public_key(), ca=True).public_bytes(Encoding.PEM))
        now = datetime.now(UTC)
        empty = x509.CertificateRevocationListBuilder().issuer_name(self._name).last_update(now - timedelta(hours=1))
        crl = empty.next_update(now + timedelta(days=2)).sign(self._key, hashes.SHA256())
        path.with_suffix(".crl").write_bytes(crl.public_bytes(Encoding.PEM))

    def issue(self, certificate: Path, key: Path, name: str, shift: timedelta = timedelta()) -> None:
        """A certificate for ``name``, good for client and server at 127.0.0.1; ``shift`` moves its two days."""
        private = ec.generate_private_key(ec.SECP256R1())
        certificate.parent.mkdir(parents=True, exist_ok=True)
        certificate.write_bytes(self._build(name, private.public_key(), shift, ca=False).public_bytes(Encoding.PEM))
        key.write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        key.chmod(0o600)

    def _build(
        self, name: str, public: ec.EllipticCurvePublicKey, shift: timedelta = timedelta(), *, ca: bool
    ) -> x509.Certificate:
        now = datetime.now(UTC) + shift
        names: list[x509.GeneralName] = [x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
            .issuer_name(self._name)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + timedelta(days=2))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
            .add_extension(
                x509.KeyUsage(
                    digital_signature=not ca,
                    key_cert_sign=ca,
                    crl_sign=ca,
                    content_commitment=False,
                    key_encipherment=False,
                    data_encipherment=False,
                    key_agreement=False,
                    encipher_only=False,
                    decipher_only=False,
                ),
                critical=True,
            )
        )
        if not ca:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return builder.sign(self._key, hashes.SHA256())
