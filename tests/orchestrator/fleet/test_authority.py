"""Certificates: who they name, what they may do, and which requests are refused."""

import ssl
import stat
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from orchestrator.errors import ConflictError, NotFoundError, OperationError, UsageError
from orchestrator.fleet.authority import (
    Authority,
    create_authority,
    issue_client,
    issue_device,
    issue_server,
    load_authority,
)

NAME = "devices-ca"


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """A CA in ``ca/``."""
    return create_authority(tmp_path / "ca", NAME)


def request(
    name: str = "gw-1",
    key: "ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey | None" = None,
    *extensions: x509.ExtensionType,
) -> str:
    """A certificate request in PEM."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject)
    for extension in extensions:
        builder = builder.add_extension(extension, critical=True)
    digest = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return builder.sign(key, digest).public_bytes(Encoding.PEM).decode()


def read(path: Path) -> x509.Certificate:
    """A certificate file."""
    return x509.load_pem_x509_certificate(path.read_bytes())


def common_names(certificate: x509.Certificate) -> list[str | bytes]:
    """Every common name of the subject."""
    return [name.value for name in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]


def test_an_authority_is_one_and_no_more(authority: Authority, tmp_path: Path) -> None:
    """It signs leaves, not further CAs; its key is private and comes back."""
    certificate = authority.certificate
    constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    assert (constraints.critical, constraints.value) == (True, x509.BasicConstraints(ca=True, path_length=0))
    usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    assert (usage.key_cert_sign, usage.crl_sign, usage.digital_signature) == (True, True, False)
    assert stat.S_IMODE((tmp_path / "ca" / f"{NAME}.key").stat().st_mode) == 0o600
    loaded = load_authority(tmp_path / "ca", NAME)
    assert loaded.certificate == certificate
    assert loaded.key.public_key() == certificate.public_key()


def test_a_server_certificate_holds_for_its_hosts(authority: Authority, tmp_path: Path) -> None:
    """Names and addresses, for servers only; a strict verifier accepts the chain."""
    issue_server(authority, tmp_path / "tls", "broker", ["broker.example", "192.0.2.7", "2001:db8::1"])
    certificate = read(tmp_path / "tls" / "broker.pem")
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["broker.example"]
    assert names.get_values_for_type(x509.IPAddress) == [ip_address("192.0.2.7"), ip_address("2001:db8::1")]
    purposes = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(purposes) == [ExtendedKeyUsageOID.SERVER_AUTH]
    assert stat.S_IMODE((tmp_path / "tls" / "broker.key").stat().st_mode) == 0o600
    policy = PolicyBuilder().store(Store([authority.certificate]))
    policy.build_server_verifier(x509.DNSName("broker.example")).verify(certificate, [])
    with pytest.raises(VerificationError):
        policy.build_server_verifier(x509.DNSName("other.example")).verify(certificate, [])


@pytest.mark.parametrize("host", ["", "a b", "a/b", "http://a", "a:1", 'a"b', "*", "\u00e4.example", "-", "a\n"])
def test_what_is_no_host_is_refused(authority: Authority, tmp_path: Path, host: str) -> None:
    """Before anything is written."""
    with pytest.raises(UsageError, match="expected a host name or an IP address"):
        issue_server(authority, tmp_path / "tls", "broker", [host])
    assert not (tmp_path / "tls").exists()


def test_a_client_certificate(authority: Authority, tmp_path: Path) -> None:
    """Names the service, holds for clients only, fits its key, and names its issuer's key."""
    issue_client(authority, tmp_path / "tls", "orch-delivery")
    certificate = read(tmp_path / "tls" / "orch-delivery.pem")
    assert common_names(certificate) == ["orch-delivery"]
    purposes = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(purposes) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    issuer = certificate.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
    subject = authority.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    assert issuer.key_identifier == subject.digest
    certificate.verify_directly_issued_by(authority.certificate)
    ssl.create_default_context().load_cert_chain(
        tmp_path / "tls" / "orch-delivery.pem", tmp_path / "tls" / "orch-delivery.key"
    )


def test_a_devices_name_comes_from_the_inventory(authority: Authority) -> None:
    """Whatever the request calls itself or asks for, a second device or a CA included."""
    key = ec.generate_private_key(ec.SECP256R1())
    wish = x509.BasicConstraints(ca=True, path_length=None)
    also = x509.SubjectAlternativeName([x509.DNSName("broker")])
    pem, serial = issue_device(authority, request("gw-2", key, wish, also), "gw-1")
    certificate = x509.load_pem_x509_certificate(pem.encode())
    assert common_names(certificate) == ["gw-1"]
    assert certificate.public_key() == key.public_key()
    assert f"{certificate.serial_number:x}" == serial
    constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
    assert constraints.ca is False
    with pytest.raises(x509.ExtensionNotFound):
        certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    certificate.verify_directly_issued_by(authority.certificate)


def test_a_devices_certificate_runs_out(authority: Authority) -> None:
    """After 90 days unless told otherwise, and it holds for a clock that is a little late."""
    now = datetime.now(UTC)
    for days, words in ((90, ()), (7, (timedelta(days=7),))):
        pem, _ = issue_device(authority, request(), "gw-1", *words)
        certificate = x509.load_pem_x509_certificate(pem.encode())
        assert abs(certificate.not_valid_after_utc - now - timedelta(days=days)) < timedelta(minutes=1)
        assert certificate.not_valid_before_utc <= now - timedelta(minutes=4)


def _forged() -> str:
    """A request whose signature is of another key's request."""
    der = bytearray(x509.load_pem_x509_csr(request().encode()).public_bytes(Encoding.DER))
    name = der.index(b"gw-1")
    der[name : name + 4] = b"gw-9"
    return x509.load_der_x509_csr(bytes(der)).public_bytes(Encoding.PEM).decode()


@pytest.mark.parametrize(
    ("csr", "words"),
    [
        pytest.param(lambda: "", "not PKCS#10 in PEM", id="empty"),
        pytest.param(lambda: "gw-1", "not PKCS#10 in PEM", id="text"),
        pytest.param(lambda: request()[:200], "not PKCS#10 in PEM", id="cut short"),
        pytest.param(lambda: "x" * 20_000, "at most 16384 B, found 20000", id="too long"),
        pytest.param(_forged, "not signed by its own key", id="changed after signing"),
        pytest.param(lambda: request("a", ec.generate_private_key(ec.SECP384R1())), "P-256 key", id="P-384"),
        pytest.param(lambda: request("a", ed25519.Ed25519PrivateKey.generate()), "P-256 key", id="Ed25519"),
        pytest.param(lambda: request("a", rsa.generate_private_key(65537, 2048)), "P-256 key", id="RSA"),
    ],
)
def test_requests_that_are_refused(authority: Authority, csr: Callable[[], str], words: str) -> None:
    """With one sentence that shows nothing of the request."""
    with pytest.raises(UsageError, match=words) as refused:
        issue_device(authority, csr(), "gw-1")
    assert str(refused.value).startswith("certificate request: ")


def test_an_authority_is_never_made_again(authority: Authority, tmp_path: Path) -> None:
    """Every device's certificate hangs on the key; certificate and key stay a pair."""
    with pytest.raises(ConflictError, match="exists already"):
        create_authority(tmp_path / "ca", NAME)
    loaded = load_authority(tmp_path / "ca", NAME)
    assert loaded.certificate == authority.certificate
    assert loaded.key.public_key() == loaded.certificate.public_key()


def test_an_authority_that_is_missing_or_damaged(authority: Authority, tmp_path: Path) -> None:
    """Names the file, what was expected and what to do."""
    place = tmp_path / "ca"
    with pytest.raises(NotFoundError, match=r"services-ca\.key: is missing; restore it"):
        load_authority(place, "services-ca")
    (place / f"{NAME}.pem").write_text("nothing")
    with pytest.raises(OperationError, match="expected a certificate and its key in PEM; restore them"):
        load_authority(place, NAME)


def test_a_key_of_another_ca(tmp_path: Path) -> None:
    """In the middle of a rollover the first certificate must be the one whose key is there; several may follow."""
    one, other = (create_authority(tmp_path / name, "devices-ca") for name in ("one", "other"))
    both = (tmp_path / "one" / "devices-ca.pem").read_text() + (tmp_path / "other" / "devices-ca.pem").read_text()
    (tmp_path / "one" / "devices-ca.pem").write_text(both)
    assert load_authority(tmp_path / "one", "devices-ca").certificate == one.certificate != other.certificate
    (tmp_path / "other" / "devices-ca.pem").write_text(both)
    with pytest.raises(OperationError, match="its first certificate is not that of"):
        load_authority(tmp_path / "other", "devices-ca")
