"""A real mosquitto on free loopback ports: TLS with client certificates, and one listener without TLS."""

import asyncio
import shutil
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from protocol.mqtt.connection import ConnectionSettings

MOSQUITTO = shutil.which("mosquitto") or "/usr/sbin/mosquitto"
START_S = 10.0


class Authority:
    """A certificate authority of the test's own."""

    def __init__(self, directory: Path, name: str) -> None:
        self.directory = directory
        self.directory.mkdir(parents=True, exist_ok=True)
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        certificate = self._builder(self._name, self._key.public_key(), ca=True).sign(self._key, hashes.SHA256())
        self.certificate = directory / "ca.pem"
        self.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    def issue(self, name: str) -> tuple[Path, Path]:
        """(certificate, key) files of a server or client; both hold for the loopback address."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        builder = self._builder(subject, key.public_key(), ca=False).add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))]), critical=False
        )
        paths = self.directory / f"{name}.pem", self.directory / f"{name}.key"
        paths[0].write_bytes(builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
        paths[1].write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return paths

    def _builder(self, subject: x509.Name, key: ec.EllipticCurvePublicKey, *, ca: bool) -> x509.CertificateBuilder:
        now = datetime.now(UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
        )


@dataclass
class Broker:
    """A running broker that a test may stop."""

    authority: Authority
    port: int
    plain_port: int
    process: subprocess.Popen[bytes]

    def settings(self, client_id: str, **changes: Any) -> ConnectionSettings:
        """How ``client_id`` reaches this broker with a certificate of its own."""
        certificate, key = self.authority.issue(client_id)
        settings = ConnectionSettings(
            "127.0.0.1", self.port, client_id, self.authority.certificate, certificate, key, timeout_s=5.0
        )
        return replace(settings, **changes)

    def stop(self) -> None:
        """End the process as a crash would."""
        self.process.kill()
        self.process.wait(START_S)


def free_port() -> int:
    """A loopback port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def start_broker(directory: Path) -> Broker:
    """Run one; the caller stops it."""
    authority = Authority(directory / "ca", "test CA")
    certificate, key = authority.issue("server")
    port, plain_port = free_port(), free_port()
    (directory / "acl").write_text("topic readwrite open/#\ntopic readwrite ota/#\ntopic read guarded/#\n")
    configuration = directory / "mosquitto.conf"
    configuration.write_text(
        f"user root\nper_listener_settings false\nallow_anonymous true\nacl_file {directory / 'acl'}\n"
        f"max_queued_messages 0\npersistence false\n"
        f"listener {plain_port} 127.0.0.1\n"
        f"listener {port} 127.0.0.1\ncafile {authority.certificate}\ncertfile {certificate}\nkeyfile {key}\n"
        "require_certificate true\n"
    )
    log = (directory / "log").open("wb")
    process = subprocess.Popen([MOSQUITTO, "-c", str(configuration)], stdout=log, stderr=log)
    log.close()
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", plain_port), timeout=1).close()
        except OSError:
            time.sleep(0.02)
            continue
        return Broker(authority, port, plain_port, process)
    process.kill()
    raise RuntimeError(f"mosquitto did not start: {(directory / 'log').read_text()}")


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """One broker for the tests of a module."""
    running = start_broker(tmp_path_factory.mktemp("broker"))
    yield running
    running.stop()


@pytest.fixture
def mortal_broker(tmp_path: Path) -> Iterator[Broker]:
    """A broker of the test's own, to be stopped at will."""
    running = start_broker(tmp_path)
    yield running
    running.stop()


@pytest.fixture
async def silent_port() -> AsyncIterator[int]:
    """A port that accepts connections and never answers."""
    writers: list[asyncio.StreamWriter] = []

    async def accept(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    for writer in writers:
        writer.transport.abort()
    server.close()
