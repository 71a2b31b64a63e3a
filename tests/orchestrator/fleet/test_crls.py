"""Revocation lists: numbered, never forgetting, whole or not at all."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from orchestrator.errors import NotFoundError, OperationError
from orchestrator.fleet.authority import Authority, create_authority
from orchestrator.fleet.crls import CRL_KEPT, CRL_LIFE, make_probe, read_crl, write_crl

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)


@pytest.fixture(scope="module")
def ca(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """A CA."""
    return create_authority(tmp_path_factory.mktemp("ca"), "devices-ca")


def test_a_list_says_what_was_written(ca: Authority, tmp_path: Path) -> None:
    """Signed by the CA, valid from a little before now for seven days."""
    path = tmp_path / "devices-ca.crl"
    crl = write_crl(path, ca, {7: NOW, 5: NOW}, NOW)
    assert (crl.revoked, crl.expires) == ({7: NOW, 5: NOW}, NOW + CRL_LIFE)
    assert crl.issued < NOW
    assert read_crl(path) == crl
    assert x509.load_pem_x509_crl(path.read_bytes()).is_signature_valid(ca.key.public_key())
    assert [file.name for file in tmp_path.iterdir()] == ["devices-ca.crl"]


def test_numbers_rise_also_when_the_file_is_lost(ca: Authority, tmp_path: Path) -> None:
    """RFC 5280, 5.2.3."""
    path = tmp_path / "crl"
    first = write_crl(path, ca, {}, NOW)
    assert write_crl(path, ca, {}, NOW).number == first.number + 1
    path.write_bytes(b"damaged")
    assert write_crl(path, ca, {}, NOW + timedelta(days=1)).number > first.number + 1


def test_what_was_named_stays_named_until_no_certificate_can_live(ca: Authority, tmp_path: Path) -> None:
    """Whatever the database says by then; afterwards the list gets shorter."""
    path = tmp_path / "crl"
    write_crl(path, ca, {5: NOW}, NOW)
    assert write_crl(path, ca, {6: NOW}, NOW).revoked == {5: NOW, 6: NOW}
    assert write_crl(path, ca, {}, NOW + CRL_KEPT).revoked == {}


def test_only_the_newest_probe_is_named(ca: Authority, tmp_path: Path) -> None:
    """It is revoked, it is no device, and lists do not grow by one a day."""
    path = tmp_path / "crl"
    probes = [make_probe(ca, NOW) for _ in range(2)]
    for probe in probes:
        assert write_crl(path, ca, {}, NOW, probe).revoked == {}
    named = {entry.serial_number for entry in x509.load_pem_x509_crl(path.read_bytes())}
    assert named == {probes[1].serial}
    certificate = x509.load_pem_x509_certificate(probes[1].pem)
    assert "." in certificate.subject.rfc4514_string()


def test_a_list_that_cannot_be_written_leaves_the_old_one(ca: Authority, tmp_path: Path) -> None:
    """One sentence; the old list is whole."""
    path = tmp_path / "crl"
    old = write_crl(path, ca, {5: NOW}, NOW)
    (tmp_path / ".crl.new").mkdir()
    with pytest.raises(OperationError, match="cannot be written"):
        write_crl(path, ca, {6: NOW}, NOW)
    assert read_crl(path) == old


def test_what_is_no_list_is_said(tmp_path: Path) -> None:
    """Missing, and damaged."""
    with pytest.raises(NotFoundError, match="there is no revocation list"):
        read_crl(tmp_path / "none")
    (tmp_path / "bad").write_text("x")
    with pytest.raises(OperationError, match="expected a numbered revocation list"):
        read_crl(tmp_path / "bad")
