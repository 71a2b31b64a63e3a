"""A device's identity: keys that stay, an answer that fits or changes nothing, sessions that only rise."""

import json
from base64 import b64decode
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from device_client.config import DeviceHome, DeviceSection, DeviceSettings, write
from device_client.errors import ConflictError, DeviceError, NotFoundError, StorageError, UsageError
from device_client.identity import (
    accept,
    certificate_expiry,
    load_content_key,
    load_enrolment,
    load_report_signer,
    make_keys,
    make_request,
    next_session,
)
from device_client.identity_files import IdentityFiles
from protocol.encryption import unwrap_key, wrap_key
from protocol.enrolment import EnrolmentRequest

DiesAt = Callable[[int, Path, Callable[[], object]], bool]
SETTINGS = DeviceSettings(device=DeviceSection(id="d1", product="cam", hardware="rev-b", labels={"site": "Ulm"}))
EXPIRES = datetime(2027, 1, 1, tzinfo=UTC)
CA_KEY = ec.generate_private_key(ec.SECP256R1())


@pytest.fixture
def home(tmp_path: Path) -> DeviceHome:
    """A device with keys and no certificate."""
    home = DeviceHome(tmp_path / "home")
    home.create()
    write(home, SETTINGS)
    make_keys(home)
    return home


def _certificate(public: Any, name: str, issuer: str = "ca") -> str:
    def named(text: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])

    builder = x509.CertificateBuilder(named(issuer), named(name), public, 7, EXPIRES - timedelta(days=400), EXPIRES)
    return builder.sign(CA_KEY, hashes.SHA256()).public_bytes(Encoding.PEM).decode()


def _answer(home: DeviceHome, **changes: Any) -> dict[str, Any]:
    csr = x509.load_pem_x509_csr(make_request(home, SETTINGS).csr.encode())
    return {
        "fleet": "f",
        "device": "d1",
        "certificate": _certificate(csr.public_key(), "d1"),
        "ca": _certificate(CA_KEY.public_key(), "ca"),
        "root": json.dumps({"signed": {"_type": "root", "version": 1}}),
        "brokers": [{"host": "localhost", "port": 8883}],
    } | changes


def test_mirrors_of_the_answer_are_kept(home: DeviceHome) -> None:
    """With the fleet and its brokers; an answer that names none is as good."""
    accept(home, _file(home, _answer(home)))
    assert load_enrolment(home).mirrors == []
    accept(home, _file(home, _answer(home, mirrors=[{"url": "https://m.example"}])))
    assert [(one.url, one.ca) for one in load_enrolment(home).mirrors] == [("https://m.example", "fleet")]


def _file(home: DeviceHome, *answers: dict[str, Any]) -> Path:
    path = home.path.parent / "answers.json"
    path.write_text(json.dumps({"answers": answers}))
    return path


def _identity(home: DeviceHome) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in home.identity.iterdir()}


def test_keys_are_private_and_stay(home: DeviceHome) -> None:
    """Both keys are for this user only; making them again keeps them, for the certificate belongs to them."""
    files = IdentityFiles(home)
    before = _identity(home)
    for path in (files.device_key, files.content_key):
        assert path.stat().st_mode & 0o777 == 0o600
    make_keys(home)
    assert _identity(home) == before
    files.content_key.unlink()
    make_keys(home)
    assert files.device_key.read_bytes() == before["device.key"]
    assert files.content_key.read_bytes() != before["content.key"]


def test_the_request_proves_possession_and_holds_no_private_key(home: DeviceHome) -> None:
    """The CSR is signed by the device key; the content key in it opens what was wrapped for it."""
    request = make_request(home, SETTINGS)
    csr = x509.load_pem_x509_csr(request.csr.encode())
    assert csr.is_signature_valid
    text = request.model_dump_json()
    assert "PRIVATE" not in text
    assert EnrolmentRequest.model_validate_json(text) == request
    assert (request.device, request.product, request.hardware, request.labels) == (
        "d1",
        "cam",
        "rev-b",
        {"site": "Ulm"},
    )
    public = X25519PublicKey.from_public_bytes(b64decode(request.content_key))
    wrapped = wrap_key(b"k" * 32, public, release="ab" * 32, device="d1")
    assert unwrap_key(wrapped, load_content_key(home), release="ab" * 32, device="d1") == b"k" * 32


def test_accept(home: DeviceHome) -> None:
    """Of many answers the device's own is kept, and names fleet, brokers and the end of the certificate."""
    path = _file(home, _answer(home, device="d0"), _answer(home))
    enrolment = accept(home, path)
    assert enrolment == load_enrolment(home)
    assert (enrolment.fleet, enrolment.device, enrolment.brokers[0].port) == ("f", "d1", 8883)
    assert certificate_expiry(home) == EXPIRES
    assert load_report_signer(home).public_key.keyid
    accept(home, path)


def test_the_first_root_stays(home: DeviceHome) -> None:
    """A renewed certificate does not replace the root of trust that everything since was verified from."""
    accept(home, _file(home, _answer(home)))
    root = IdentityFiles(home).root.read_bytes()
    other = json.dumps({"signed": {"_type": "root", "version": 9}})
    accept(home, _file(home, _answer(home, root=other, brokers=[{"host": "b2", "port": 1}])))
    assert IdentityFiles(home).root.read_bytes() == root
    assert load_enrolment(home).brokers[0].host == "b2"


def _stranger() -> str:
    return _certificate(ec.generate_private_key(ec.SECP256R1()).public_key(), "d1")


@pytest.mark.parametrize(
    ("changes", "error", "named"),
    [
        ({"device": "d2"}, NotFoundError, "no answer for device d1"),
        ({"device": "a/b"}, UsageError, "not an answers file"),
        ({"certificate": "x" * 50}, UsageError, "no certificate in PEM"),
        ({"certificate": _stranger()}, ConflictError, "does not fit"),
        ({"ca": "y" * 50}, UsageError, "the CA is not a certificate"),
        ({"root": "{"}, UsageError, "not TUF metadata"),
        ({"root": "[" * 9000}, UsageError, "not TUF metadata"),
        ({"root": '{"signed": {"_type": "timestamp"}}'}, UsageError, "expected TUF root"),
        ({"brokers": []}, UsageError, "brokers"),
        ({"brokers": [{"host": "h", "port": 70000}]}, UsageError, "port"),
    ],
)
def test_an_answer_that_does_not_fit_changes_nothing(
    home: DeviceHome, changes: dict[str, Any], error: type[DeviceError], named: str
) -> None:
    """One sentence that names the file and what is wrong; no file of the identity is touched."""
    before = _identity(home)
    path = _file(home, _answer(home, **changes))
    with pytest.raises(error, match=r"answers\.json") as refused:
        accept(home, path)
    assert named in str(refused.value)
    assert "\n" not in str(refused.value)
    assert _identity(home) == before
    with pytest.raises(NotFoundError, match="not enrolled"):
        load_enrolment(home)


def test_a_certificate_of_another_device(home: DeviceHome) -> None:
    """The name in the certificate must be this device's, whatever the answer says."""
    csr = x509.load_pem_x509_csr(make_request(home, SETTINGS).csr.encode())
    path = _file(home, _answer(home, certificate=_certificate(csr.public_key(), "d2")))
    with pytest.raises(ConflictError, match="not for device d1"):
        accept(home, path)


def test_another_fleet(home: DeviceHome) -> None:
    """A device does not change its fleet by an answers file."""
    accept(home, _file(home, _answer(home)))
    before = _identity(home)
    with pytest.raises(ConflictError, match="belongs to fleet f"):
        accept(home, _file(home, _answer(home, fleet="g")))
    assert _identity(home) == before


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b"\xff", b"[" * 100_000, b'{"answers": []}'])
def test_no_answers_file(home: DeviceHome, content: bytes) -> None:
    """What is no answers file is said to be none."""
    path = home.path.parent / "answers.json"
    path.write_bytes(content)
    with pytest.raises(UsageError, match="not an answers file"):
        accept(home, path)
    with pytest.raises(NotFoundError):
        accept(home, path.with_name("absent"))


def test_accept_cut_off_anywhere(home: DeviceHome, dies_at: DiesAt) -> None:
    """A device is enrolled only when everything else is there; a cut enrolment is repeated."""
    files = IdentityFiles(home)
    path = _file(home, _answer(home))
    kept = (files.root, files.ca, files.certificate)
    for number in range(100):
        for file in (*kept, files.enrolment):
            file.unlink(missing_ok=True)
        cut = dies_at(number, home.path, lambda: accept(home, path))
        if files.enrolment.exists():
            assert all(file.exists() for file in kept)
        if not cut:
            return
        accept(home, path)
    pytest.fail("enrolment never ended")


def test_missing_and_wrong_keys(home: DeviceHome) -> None:
    """One sentence with the file; nothing of a key is shown."""
    files = IdentityFiles(home)
    device_key = files.device_key.read_bytes()
    files.device_key.write_bytes(files.content_key.read_bytes())
    with pytest.raises(UsageError, match=r"device\.key: expected a P-256 key"):
        load_report_signer(home)
    files.content_key.write_bytes(device_key)
    with pytest.raises(UsageError, match=r"content\.key: expected an X25519 key"):
        load_content_key(home)
    files.device_key.write_bytes(device_key[:-60] + b"\n-----END PRIVATE KEY-----\n")
    with pytest.raises(StorageError, match=r"device\.key: not a private key") as refused:
        load_report_signer(home)
    assert device_key[60:90].decode() not in str(refused.value)
    files.device_key.unlink()
    with pytest.raises(NotFoundError, match="flagship-device enrol"):
        make_request(home, SETTINGS)


def test_sessions_rise(home: DeviceHome, dies_at: DiesAt) -> None:
    """Each session is higher than every one before it, also when the process died while raising it."""
    last = 0
    for number in range(30):
        cut = dies_at(number, home.path, lambda: next_session(home))
        session = next_session(home)
        assert session > last + (0 if cut else 1)
        last = session
        if not cut:
            return
    pytest.fail("raising the session never ended")


@pytest.mark.parametrize("content", [b"", b"-4", b"x", b"\xff", b"9" * 40, "²".encode()])
def test_a_damaged_session_is_not_guessed(home: DeviceHome, content: bytes) -> None:
    """Starting again at one would look like a replay: a person must say."""
    home.session.write_bytes(content)
    with pytest.raises(StorageError, match="session"):
        next_session(home)
    assert home.session.read_bytes() == content


def test_a_damaged_enrolment(home: DeviceHome) -> None:
    """A fleet file that cannot be read is one sentence."""
    IdentityFiles(home).enrolment.write_bytes(b"{")
    with pytest.raises(DeviceError, match=r"fleet\.json") as refused:
        load_enrolment(home)
    assert "\n" not in str(refused.value)
