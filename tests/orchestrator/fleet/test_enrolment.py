"""Admitting devices: all of them or none, each id under one pair of keys."""

import asyncio
import base64
import dataclasses
import json
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.x509.oid import NameOID
from securesystemslib.signer import Key

from orchestrator.config import Home, MirrorSettings, Settings
from orchestrator.config_brokers import BrokerSettings
from orchestrator.errors import ConflictError, NotFoundError, OperationError, UsageError
from orchestrator.fleet.authority import create_authority
from orchestrator.fleet.enrolment import enrol
from orchestrator.model.device import DeviceState
from orchestrator.storage import devices, dirty, events
from orchestrator.storage.database import Database
from protocol.clock import ManualClock
from protocol.enrolment import EnrolmentAnswers, EnrolmentRequest
from protocol.topics import Kind

NOW = datetime(2026, 11, 24, tzinfo=UTC)
ROOT = json.dumps({"signed": {"_type": "root", "version": 2}})


@dataclasses.dataclass
class Office:
    """Where devices are admitted."""

    db: Database
    home: Home
    settings: Settings

    async def enrol(self, *requests: EnrolmentRequest) -> EnrolmentAnswers:
        """Admit them."""
        return await enrol(self.db, self.home, self.settings, ManualClock(NOW), requests)

    async def ids(self) -> list[str]:
        """Who was admitted."""
        async with self.db.read() as conn:
            return [device.id for device in await devices.page(conn)]

    async def set_state(self, state: DeviceState) -> None:
        """Revoke or retire everybody."""
        async with self.db.begin() as conn:
            await conn.exec_driver_sql("UPDATE devices SET state = ?", (state.value,))


@pytest.fixture
async def office(tmp_path: Path) -> AsyncIterator[Office]:
    """An empty database, a CA and two generations of root metadata."""
    home = Home(tmp_path)
    await asyncio.to_thread(create_authority, home.ca, "devices-ca")
    home.trust.mkdir()
    (home.trust / "1.root.json").write_text("{}")
    (home.trust / "2.root.json").write_text(ROOT)
    (home.trust / "x.root.json").write_text("{}")
    db = await Database.open(home.database)
    broker = BrokerSettings(host="10.0.0.1", advertised_host="broker.example", device_port=1883)
    yield Office(db, home, Settings(fleet="harbour", broker=broker))
    await db.close()


async def test_answers_name_the_mirrors_of_the_settings(office: Office) -> None:
    """None without a word; else each with the CA that its certificate is by."""
    assert (await office.enrol(request("d1"))).answers[0].mirrors == []
    mirror = MirrorSettings(advertised=("https://m.example/ota/",), advertised_ca="system")
    office.settings = office.settings.model_copy(update={"mirror": mirror})
    answer = (await office.enrol(request("d2"))).answers[0]
    assert [(one.url, one.ca) for one in answer.mirrors] == [("https://m.example/ota", "system")]


def request(device: str, key: Any = None, content: X25519PrivateKey | None = None, **changes: Any) -> EnrolmentRequest:
    """What a device asks; its certificate request names somebody else."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "orch-delivery")])
    key = key or ec.generate_private_key(ec.SECP256R1())
    csr = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA256())
    public = (content or X25519PrivateKey.generate()).public_key()
    raw = public.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    values: dict[str, Any] = {
        "device": device,
        "product": "gateway",
        "hardware": "rev-a",
        "labels": {"site": "lab"},
        "csr": csr.public_bytes(serialization.Encoding.PEM).decode(),
        "content_key": base64.b64encode(raw).decode(),
    }
    return EnrolmentRequest.model_validate(values | changes)


async def test_an_answer_has_all_that_a_device_needs(office: Office) -> None:
    """The certificate under the id that it asked for, the CA, the newest root, and where devices reach the broker."""
    key = ec.generate_private_key(ec.SECP256R1())
    answer = (await office.enrol(request("d1", key))).answers[0]
    certificate = x509.load_pem_x509_certificate(answer.certificate.encode())
    certificate.verify_directly_issued_by(x509.load_pem_x509_certificate(answer.ca.encode()))
    assert certificate.subject.rfc4514_string() == "CN=d1"
    assert certificate.public_key() == key.public_key()
    assert (answer.device, answer.fleet, answer.root) == ("d1", "harbour", ROOT)
    assert [(broker.host, broker.port) for broker in answer.brokers] == [("broker.example", 1883)]
    assert "PRIVATE" not in answer.model_dump_json()


async def test_what_is_kept_of_a_device(office: Office) -> None:
    """Its inventory and the keys by which its reports are checked and its content keys are sealed."""
    key = ec.generate_private_key(ec.SECP256R1())
    asked = request("d1", key)
    answer = (await office.enrol(asked)).answers[0]
    serial = x509.load_pem_x509_certificate(answer.certificate.encode()).serial_number
    async with office.db.begin() as conn:
        device = await devices.get(conn, "d1")
        report_key, content_key = (await devices.keys(conn, ["d1"]))["d1"]
        marks = {(kind, name) for kind, name, _ in await dirty.take(conn, "main", list(Kind), 10)}
        kinds = [event["kind"] for event in await events.page(conn, device="d1")]
    assert device is not None
    assert (device.product, device.hardware, device.labels) == ("gateway", "rev-a", {"site": "lab"})
    assert (device.enrolled_at, device.certificate_serial) == (NOW, f"{serial:x}")
    assert content_key == asked.content_key
    loaded = Key.from_dict(report_key.pop("keyid"), report_key)
    pem = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    assert loaded.keyval["public"].strip() == pem.decode().strip()
    assert marks == {(Kind.STATUS_DEVICE, "d1"), (Kind.STATUS_FLEET, "")}
    assert kinds == ["device_enrolled"]


async def test_the_same_request_again(office: Office) -> None:
    """An answer that was lost is made again, with a new certificate; the device is there once."""
    asked = request("d1")
    first, second = await office.enrol(asked), await office.enrol(asked)
    assert first.answers[0].certificate != second.answers[0].certificate
    serial = x509.load_pem_x509_certificate(second.answers[0].certificate.encode()).serial_number
    async with office.db.read() as conn:
        device = await devices.get(conn, "d1")
    assert device is not None
    assert device.certificate_serial == f"{serial:x}"
    assert await office.ids() == ["d1"]


async def test_another_device_does_not_get_the_id(office: Office) -> None:
    """Neither with another report key nor with another content key."""
    key, content = ec.generate_private_key(ec.SECP256R1()), X25519PrivateKey.generate()
    await office.enrol(request("d1", key, content))
    for other in (request("d1", key), request("d1", None, content), request("d1")):
        with pytest.raises(ConflictError, match="device d1: is enrolled with other keys"):
            await office.enrol(other)


async def test_revoked_and_retired(office: Office) -> None:
    """A revoked id is never given again, not even to its own keys; a retired one is."""
    asked = request("d1")
    await office.enrol(asked)
    await office.set_state(DeviceState.REVOKED)
    with pytest.raises(ConflictError, match="device d1: was revoked"):
        await office.enrol(asked)
    await office.set_state(DeviceState.RETIRED)
    await office.enrol(request("d1"))
    async with office.db.read() as conn:
        device = await devices.get(conn, "d1")
    assert device is not None
    assert device.state == DeviceState.ENROLLED


_P384 = ec.generate_private_key(ec.SECP384R1())


@pytest.mark.parametrize(
    ("bad", "error", "says"),
    [
        pytest.param(request("d2", _P384), UsageError, "device d2: certificate request: expected a P-256", id="key"),
        pytest.param(request("d2", csr="x" * 40), UsageError, "device d2: certificate request: not PKCS#10", id="csr"),
        pytest.param(request("d2", content_key="!" * 44), UsageError, "device d2: its content key", id="content"),
        pytest.param(
            request("d2", content_key=base64.b64encode(bytes(31)).decode()),
            UsageError,
            "device d2: its content",
            id="short",
        ),
        pytest.param(request("d1"), ConflictError, "device d1: two requests name it", id="twice"),
        pytest.param(request("taken"), ConflictError, "device taken: is enrolled with other keys", id="taken"),
    ],
)
async def test_one_bad_request_admits_nobody(
    office: Office, bad: EnrolmentRequest, error: type[OperationError], says: str
) -> None:
    """The sentence names the device; the good request beside it can be sent again as it is."""
    await office.enrol(request("taken"))
    good = request("d1")
    with pytest.raises(error) as refused:
        await office.enrol(good, bad)
    assert says in str(refused.value)
    assert await office.ids() == ["taken"]
    await office.enrol(good, request("d3"))
    assert await office.ids() == ["d1", "d3", "taken"]


def _without_root(home: Home) -> None:
    for path in home.trust.glob("*.root.json"):
        path.unlink()


def _damaged_key(home: Home) -> None:
    (home.ca / "devices-ca.key").write_text("nonsense")


def _without_key(home: Home) -> None:
    (home.ca / "devices-ca.key").unlink()


@pytest.mark.parametrize(
    ("spoil", "error", "says"),
    [
        (_without_root, NotFoundError, "holds no root metadata; restore it"),
        (_damaged_key, OperationError, "expected a certificate and its key in PEM"),
        (_without_key, NotFoundError, "is missing; restore it"),
    ],
)
async def test_a_home_that_lacks_something(
    office: Office, spoil: Callable[[Home], None], error: type[OperationError], says: str
) -> None:
    """Nobody is admitted without a CA or a root; the sentence says what to restore."""
    await asyncio.to_thread(spoil, office.home)
    with pytest.raises(error, match=says):
        await office.enrol(request("d1"))
    assert await office.ids() == []
