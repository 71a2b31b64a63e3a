"""Issuers: the built-in CA, and a program that stands for one kept elsewhere. Whatever they make is looked at."""

import sys
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from orchestrator.config import CertificateSettings
from orchestrator.errors import OperationError, UnreachableError, UsageError
from orchestrator.fleet.issuer import BuiltInIssuer, CommandIssuer, open_issuer
from tests.orchestrator.fleet.asking import NOW, Keys, Office, csr_of

LIFE = timedelta(days=7)
PROGRAM = """
import os, sys
from datetime import datetime, timedelta
from pathlib import Path
from orchestrator.fleet.authority import issue_device, load_authority
name, life = os.environ["FLAGSHIP_DEVICE"], timedelta(seconds=float(os.environ["FLAGSHIP_LIFE_S"]))
end = datetime.fromisoformat(os.environ["FLAGSHIP_NOT_AFTER"])
authority = load_authority(Path(sys.argv[1]), "devices-ca")
{change}
sys.stdout.write(issue_device(authority, sys.stdin.read(), name, life, end - life)[0])
"""


def command(office: Office, change: str = "", timeout_s: float = 30) -> CommandIssuer:
    """A program that issues from the office's CA, with one thing changed."""
    words = [sys.executable, "-c", PROGRAM.format(change=change), str(office.home.ca)]
    return CommandIssuer(words, timeout_s)


async def test_both_issue_the_same_kind_of_certificate(bureau: Office) -> None:
    """The device's name, its key, the life that was asked for, by the CA."""
    keys = Keys()
    ca = x509.load_pem_x509_certificate(bureau.home.devices_ca.read_bytes())
    for issuer in (open_issuer(bureau.home, bureau.settings), command(bureau)):
        issued = issuer.issue(csr_of(keys.device), "d1", LIFE, NOW)
        certificate = x509.load_pem_x509_certificate(issued.certificate.encode())
        certificate.verify_directly_issued_by(ca)
        assert certificate.subject.rfc4514_string() == "CN=d1"
        assert certificate.public_key() == keys.device.public_key()
        assert issued.expires == certificate.not_valid_after_utc == NOW + LIFE
        assert issued.serial == f"{certificate.serial_number:x}"


def test_the_settings_choose(bureau: Office) -> None:
    """A command that is set stands in the place of the built-in CA, which then need not be there."""
    assert isinstance(open_issuer(bureau.home, bureau.settings), BuiltInIssuer)
    outside = bureau.settings.model_copy(update={"certificates": CertificateSettings(issue_command=["step"])})
    (bureau.home.ca / "devices-ca.key").unlink()
    assert isinstance(open_issuer(bureau.home, outside), CommandIssuer)


_SERVER = """
from cryptography.x509.oid import ExtendedKeyUsageOID as usage
usage.CLIENT_AUTH = usage.SERVER_AUTH
"""
_ANOTHER_KEY = """
sys.stdin = open(sys.argv[1] + "/other.csr")
"""


@pytest.mark.parametrize(
    ("change", "says"),
    [
        pytest.param('name = "d2"', "expected a certificate for d1, found", id="another name"),
        pytest.param(_ANOTHER_KEY, "is for another key", id="another key"),
        pytest.param(_SERVER, "must be for TLS clients", id="for servers"),
        pytest.param('print("hello"); sys.exit()', "no certificate for clients in PEM", id="no certificate"),
        pytest.param('print((Path(sys.argv[1]) / "devices-ca.pem").read_text()); sys.exit()', "no cert", id="the CA"),
        pytest.param('sys.exit("the CA is on holiday")', "ended with 1 for d1: the CA is on holiday", id="fails"),
        pytest.param('print("x" * 20_000); sys.exit()', "more than 16384 B", id="endless"),
    ],
)
def test_a_program_that_makes_something_else(bureau: Office, change: str, says: str) -> None:
    """It is one sentence, and no device gets what was not asked for."""
    (bureau.home.ca / "other.csr").write_text(csr_of(Keys().device))
    with pytest.raises(OperationError, match=says):
        command(bureau, change).issue(csr_of(Keys().device), "d1", LIFE, NOW)


def test_a_program_that_hangs_or_is_not_there(bureau: Office, tmp_path: Path) -> None:
    """The wait has an end, and what cannot be started is named."""
    with pytest.raises(UnreachableError, match="no certificate for d1 within"):
        command(bureau, "import time; time.sleep(60)", timeout_s=0.2).issue(csr_of(Keys().device), "d1", LIFE, NOW)
    with pytest.raises(OperationError, match="cannot be started"):
        CommandIssuer([str(tmp_path / "none")], 1).issue(csr_of(Keys().device), "d1", LIFE, NOW)


def test_a_request_that_is_none_reaches_no_program(bureau: Office) -> None:
    """A P-384 key is refused before anything is started."""
    with pytest.raises(UsageError, match="P-256"):
        CommandIssuer(["/none"], 1).issue(csr_of(ec.generate_private_key(ec.SECP384R1())), "d1", LIFE, NOW)


def test_the_documented_script_issues(bureau: Office) -> None:
    """``docs/how-to/issue-with-openssl.sh`` is a program of that kind: the inventory's name, the request's key."""
    script = Path(__file__).parents[3] / "docs" / "how-to" / "issue-with-openssl.sh"
    ca = [str(bureau.home.ca / f"devices-ca.{end}") for end in ("pem", "key")]
    keys = Keys()
    issued = CommandIssuer([str(script), *ca], 30).issue(csr_of(keys.device), "d1", LIFE, NOW)
    certificate = x509.load_pem_x509_certificate(issued.certificate.encode())
    certificate.verify_directly_issued_by(x509.load_pem_x509_certificate(bureau.home.devices_ca.read_bytes()))
    assert certificate.subject.rfc4514_string() == "CN=d1"
    assert certificate.public_key() == keys.device.public_key()
    with pytest.raises(OperationError, match=r"issue-with-openssl\.sh: ended with 1"):
        CommandIssuer([str(script), ca[0], "/none"], 30).issue(csr_of(keys.device), "d1", LIFE, NOW)
