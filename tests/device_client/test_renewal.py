"""Renewal on the device: asked at two thirds, said until answered, and only the right answer counts."""

import hashlib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any, cast

import pytest

from device_client import identity, new_identity
from device_client.clock import FlooredClock
from device_client.config import TimingSection
from device_client.identity_files import IdentityFiles, load_device_key
from device_client.renewal import Renewal, renewal_times
from device_client.reporter import Reporter
from protocol.clock import ManualClock
from protocol.enrolment import IssuedCertificate
from protocol.envelopes import encode, open_envelope, parse, verify_with
from protocol.mqtt.connection import Message, Session
from protocol.reports import RENEWAL_TYPE
from protocol.reports import Renewal as Request
from protocol.topics import Kind, Topics
from tests.device_client.identities import NOW, SETTINGS, TestCa, enrolled

CA = TestCa()
TOPICS = Topics("north")
CERT, RENEW = TOPICS.build(Kind.CERT, device="d1"), TOPICS.build(Kind.RENEW, device="d1")
QUICK = SETTINGS.model_copy(update={"timing": TimingSection(readiness_retry_s=1)})


class Device:
    """An enrolled device with a connection that remembers what was said."""

    def __init__(self, place: Path) -> None:
        self.home = enrolled(place, CA)
        self.clock = ManualClock(NOW)
        self.said: list[bytes] = []
        self.whole: list[str] = []
        signer = identity.load_report_signer(self.home)
        self.key = signer.public_key
        self.believed = FlooredClock(self.clock)
        self.reporter = Reporter(TOPICS, "d1", signer, self.believed)
        self.reporter.attach(cast(Session, cast(Any, self)), 7)
        self.renewal = self.begin()

    def begin(self) -> Renewal:
        """As after a start of the agent."""
        return Renewal(self.home, QUICK, TOPICS, self.reporter, self.believed, Random(1), self.whole.append)

    async def publish(self, topic: str, payload: bytes, *, qos: int = 1) -> None:
        """What is said."""
        assert topic == RENEW
        self.said.append(payload)

    async def pass_time(self, seconds: float, step_s: float) -> None:
        """Ticks while time goes by."""
        for _ in range(int(seconds / step_s)):
            self.clock.advance(step_s)
            await self.renewal.tick()

    def answer(self, **changes: Any) -> bytes:
        """The right certificate, or one with something changed."""
        found = new_identity.find(self.home)
        assert found is not None
        asked = parse(self.said[-1], 16_384, RENEWAL_TYPE)
        values = {
            "fleet": "north",
            "device": "d1",
            "request": hashlib.sha256(asked.payload).hexdigest(),
            "certificate": CA.issue(load_device_key(found.files).public_key()),
        }
        return encode(IssuedCertificate.model_validate(values | changes))

    async def hear(self, payload: bytes) -> bool:
        """A message on the certificate's topic; whether a new identity is whole then."""
        assert self.renewal.receive(Message(CERT, payload, True, 1))
        self.clock.advance(1)
        await self.renewal.tick()
        found = new_identity.find(self.home)
        return found is not None and found.is_whole


@pytest.fixture
def device(tmp_path: Path) -> Device:
    """Enrolled NOW for ninety days."""
    return Device(tmp_path / "home")


async def asking(device: Device) -> None:
    """Time passes until it asks."""
    await device.pass_time(70 * 86_400, 86_400)
    assert device.said


def test_renewals_are_spread() -> None:
    """Between two thirds and a twentieth of the life more, the same for the same device."""
    end = NOW + timedelta(days=90)
    times = [renewal_times(NOW, end, 2 / 3, f"d{number}").renew_at for number in range(200)]
    assert all(NOW + timedelta(days=60) <= at <= NOW + timedelta(days=64.5) for at in times)
    assert max(times) - min(times) > timedelta(days=4)
    assert times[0] == renewal_times(NOW, end, 2 / 3, "d0").renew_at


async def test_nothing_is_asked_before_two_thirds(device: Device) -> None:
    """And then new keys are asked for, signed with the old one, verbatim until there is an answer."""
    await device.pass_time(59 * 86_400, 86_400)
    assert device.said == [] and new_identity.find(device.home) is None
    await device.pass_time(11 * 86_400, 3600)
    assert len(device.said) > 3 and len(set(device.said)) == 1
    verify = verify_with(device.key)
    request, _ = open_envelope(device.said[0], 16_384, RENEWAL_TYPE, verify, Request)
    assert (request.device, request.session) == ("d1", 7)
    device.renewal = device.begin()
    await device.pass_time(86_400, 3600)
    assert len(set(device.said)) == 1  # a restart asks with the same bytes


async def test_the_right_certificate_makes_the_new_identity_whole(device: Device) -> None:
    """It is told once; the present identity stays until a broker took the new one, and nothing more is asked."""
    await asking(device)
    before = IdentityFiles(device.home).device_key.read_bytes()
    assert await device.hear(device.answer())
    assert device.whole == ["a renewed certificate came"]
    assert IdentityFiles(device.home).device_key.read_bytes() == before
    said = len(device.said)
    device.renewal = device.begin()
    await device.pass_time(86_400, 3600)
    assert len(device.said) == said


def _another_key(device: Device) -> bytes:
    return device.answer(certificate=CA.issue(load_device_key(IdentityFiles(device.home)).public_key()))


def _another_ca(device: Device) -> bytes:
    found = new_identity.find(device.home)
    assert found is not None
    return device.answer(certificate=TestCa().issue(load_device_key(found.files).public_key()))


def _another_name(device: Device) -> bytes:
    found = new_identity.find(device.home)
    assert found is not None
    return device.answer(certificate=CA.issue(load_device_key(found.files).public_key(), "d2"))


@pytest.mark.parametrize(
    "forged",
    [
        pytest.param(_another_key, id="another key"),
        pytest.param(_another_ca, id="another CA"),
        pytest.param(_another_name, id="another name"),
        pytest.param(lambda device: device.answer(device="d2"), id="for another device"),
        pytest.param(lambda device: device.answer(fleet="south"), id="of another fleet"),
        pytest.param(lambda device: device.answer(request="0" * 64), id="another request"),
        pytest.param(lambda device: device.answer(certificate="x" * 50), id="no certificate"),
        pytest.param(lambda device: b"[" * 20_000, id="deep"),
        pytest.param(lambda device: b"x" * 40_000, id="oversized"),
        pytest.param(lambda device: b"", id="cleared"),
    ],
)
async def test_what_a_hostile_broker_answers_counts_for_nothing(
    device: Device, forged: Callable[[Device], bytes]
) -> None:
    """The device goes on asking, and the right answer is taken afterwards."""
    await asking(device)
    assert not await device.hear(forged(device))
    assert device.whole == []
    said = len(device.said)
    await device.pass_time(86_400, 600)
    assert len(device.said) > said
    assert await device.hear(device.answer())


async def test_a_clock_that_is_not_believed_begins_no_renewal(device: Device) -> None:
    """A clock in 2099 would have every device renew at once, or for ever."""
    device.clock.set_wall(datetime(2020, 1, 1, tzinfo=UTC))
    await device.pass_time(100, 1)
    assert device.said == []
    assert device.renewal.receive(Message("elsewhere", b"x", False, 1)) is False


async def test_a_device_without_a_clock_renews_by_what_signed_messages_prove(device: Device) -> None:
    """It lives in 1970, and yet does not wait until its certificate ran out; 2099 does not hurry it."""
    device.clock.set_wall(datetime(1970, 1, 1, tzinfo=UTC))
    device.believed.set_floor(NOW + timedelta(days=10))
    await device.pass_time(100, 1)
    assert device.said == []
    device.clock.set_wall(datetime(2099, 1, 1, tzinfo=UTC))
    await device.pass_time(100, 1)
    assert device.said == []
    device.believed.set_floor(NOW + timedelta(days=70))
    await device.pass_time(100, 1)
    assert device.said


async def test_a_disk_that_does_not_take_new_keys_costs_a_try(device: Device) -> None:
    """The present identity is untouched, the agent goes on, and asks when there is room."""
    blocker = device.home.identities / "2"
    blocker.write_text("in the way")
    await device.pass_time(70 * 86_400, 86_400)
    assert device.said == [] and identity.load_content_keys(device.home)
    blocker.unlink()
    await device.pass_time(86_400, 3600)
    assert device.said
