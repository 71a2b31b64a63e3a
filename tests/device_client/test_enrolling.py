"""Taking a certificate that came under a claim: for our key, by a CA we know, for who we are; or nothing changes."""

import json
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest

from device_client import identity, new_identity
from device_client.claim import FILES, Claim, load_claim
from device_client.clock import FlooredClock
from device_client.config import DeviceHome, DeviceSettings, load
from device_client.enrolling import (
    RETURN_AFTER_FAILURES,
    Newcomer,
    Returning,
    accept_first,
    accept_return,
    first_question,
    return_question,
    settings_for,
)
from device_client.errors import ConflictError
from device_client.identity_files import IdentityFiles, load_device_key
from protocol.clock import ManualClock
from protocol.enrolment import ENROLMENT_TYPE, ClaimAnswer, ClaimRequest
from protocol.envelopes import open_envelope, parse, verify_with
from tests.device_client.identities import NOW, SETTINGS, TestCa, enrolled

DiesAt = Callable[[int, Path, Callable[[], object]], bool]
CA = TestCa()
CLOCK = ManualClock(NOW)
WHO = Newcomer("SN-1", "cam", "rev-b")


def claim_in(place: Path) -> Claim:
    """A claim folder of this fleet."""
    place.mkdir(parents=True)
    brokers = [{"host": "127.0.0.1", "port": 9}]
    says = {"fleet": "north", "claim": "claim.line-1", "enrol": brokers, "brokers": brokers}
    texts = {"claim.json": json.dumps(says), "ca.pem": CA.pem, "root.json": '{"signed":{"_type":"root"}}'}
    for name in FILES:
        (place / name).write_text(texts.get(name, name))
    return load_claim(place)


def issued(certificate: str) -> ClaimAnswer:
    """An answer with this certificate."""
    return ClaimAnswer(fleet="north", request="1f" * 32, nonce="n" * 32, status="issued", certificate=certificate)


def settings(home: DeviceHome, present: DeviceSettings | None = None) -> Callable[[str], DeviceSettings]:
    """As the command line makes them."""
    return lambda device: settings_for(home, WHO, device, present, {"device": {"component": "app"}})


@pytest.fixture
def newcomer(tmp_path: Path) -> DeviceHome:
    """A device with keys and nothing else."""
    home = DeviceHome(tmp_path / "home")
    identity.make_keys(home)
    return home


def test_the_first_certificate_says_who_the_device_is(newcomer: DeviceHome, tmp_path: Path) -> None:
    """Its id comes from the certificate; what it is made as, from itself; everything else from the claim folder."""
    claim = claim_in(tmp_path / "claim")
    asked = first_question(newcomer, claim, WHO, CLOCK)
    key = identity.load_report_signer(newcomer).public_key
    request, _ = open_envelope(asked.envelope, 16_384, ENROLMENT_TYPE, verify_with(key), ClaimRequest)
    assert (request.serial, request.device, request.nonce) == ("SN-1", None, asked.nonce)
    certificate = CA.issue(load_device_key(IdentityFiles(newcomer)).public_key(), "cam-7")
    accept_first(newcomer, claim, issued(certificate), settings(newcomer), CLOCK)
    _, kept = load(newcomer.config)
    assert (kept.device.id, kept.device.serial, kept.device.product) == ("cam-7", "SN-1", "cam")
    assert identity.load_enrolment(newcomer).brokers == claim.says.brokers
    assert load_claim(newcomer.claim).says == claim.says


@pytest.mark.parametrize(
    ("make", "says"),
    [
        pytest.param(lambda key: CA.issue(TestCa()._key.public_key(), "cam-7"), "another key", id="another key"),
        pytest.param(lambda key: TestCa().issue(key, "cam-7"), "not by a CA", id="another CA"),
        pytest.param(lambda key: CA.issue(key, "a/b"), "no device id", id="an id with a slash"),
        pytest.param(lambda key: CA.issue(key, "other"), "is the home of device cam-7", id="another device"),
    ],
)
def test_a_certificate_that_is_not_ours_changes_nothing(
    newcomer: DeviceHome, tmp_path: Path, make: Callable[[object], str], says: str
) -> None:
    """Not even the claim folder is kept."""
    claim, key = claim_in(tmp_path / "claim"), load_device_key(IdentityFiles(newcomer)).public_key()
    present = SETTINGS.model_copy(update={"device": SETTINGS.device.model_copy(update={"id": "cam-7"})})
    with pytest.raises(ConflictError, match=says):
        accept_first(newcomer, claim, issued(make(key)), settings(newcomer, present), CLOCK)
    assert not newcomer.config.exists() and not newcomer.claim.exists()
    assert {path.name for path in newcomer.identity.iterdir()} == {"device.key", "content.key"}


def test_accepting_cut_off_anywhere(tmp_path: Path, dies_at: DiesAt) -> None:
    """Either the device is enrolled and everything is there, or it asks again and then is."""
    claim = claim_in(tmp_path / "claim")
    for number in range(0, 200, 5):  # every fifth change of the disk: each costs a process
        home = DeviceHome(tmp_path / str(number))
        identity.make_keys(home)
        certificate = CA.issue(load_device_key(IdentityFiles(home)).public_key(), "cam-7")

        def take(home: DeviceHome = home, certificate: str = certificate) -> None:
            present = load(home.config)[1] if home.config.is_file() else None
            accept_first(home, claim, issued(certificate), settings(home, present), CLOCK)

        cut = dies_at(number, home.path, take)
        if not IdentityFiles(home).enrolment.is_file():
            take()
        assert load(home.config)[1].device.id == identity.load_enrolment(home).device == "cam-7"
        assert load_claim(home.claim).says == claim.says
        if not cut:
            assert number > 20
            return
    pytest.fail("accepting never ended")


def test_a_return_is_signed_by_old_and_new_keys(tmp_path: Path) -> None:
    """Asked again before an answer came, it is for the same new keys; the certificate is tried, not taken in use."""
    home, claim = enrolled(tmp_path / "home", CA), claim_in(tmp_path / "claim")
    asked = return_question(home, claim, SETTINGS, CLOCK)
    signatures = parse(asked.envelope, 16_384, ENROLMENT_TYPE).signatures
    found = new_identity.find(home)
    assert found is not None
    new = identity.load_report_signer(home, found.files.directory).public_key.keyid
    assert set(signatures) == {identity.load_report_signer(home).public_key.keyid, new}
    again = parse(return_question(home, claim, SETTINGS, CLOCK).envelope, 16_384, ENROLMENT_TYPE).signatures
    assert set(again) == set(signatures)
    key = load_device_key(found.files).public_key()
    for bad in (CA.issue(key, "d2"), TestCa().issue(key), CA.issue(load_device_key(IdentityFiles(home)).public_key())):
        with pytest.raises(ConflictError):
            accept_return(home, claim, issued(bad), CLOCK)
        assert not found.is_whole
    accept_return(home, claim, issued(CA.issue(key)), CLOCK)
    assert found.is_whole and home.identity.resolve().name == "1"


def test_without_a_serial_nobody_comes_back(tmp_path: Path) -> None:
    """The sentence says what to set."""
    home, claim = enrolled(tmp_path / "home", CA), claim_in(tmp_path / "claim")
    bare = SETTINGS.model_copy(update={"device": SETTINGS.device.model_copy(update={"serial": None})})
    with pytest.raises(ConflictError, match=r"device\.serial is not set"):
        return_question(home, claim, bare, CLOCK)


async def test_the_agent_asks_only_when_its_certificate_ran_out(tmp_path: Path) -> None:
    """Not before, not with a clock that is not believed, and nothing that fails ends it."""
    home, clock = enrolled(tmp_path / "home", CA), ManualClock(NOW)
    claim_in(home.claim)
    returning = Returning(home, SETTINGS, FlooredClock(clock), Random(1))
    await returning.step(0)
    assert new_identity.find(home) is None
    clock.advance(91 * 86_400)
    await returning.step(0)  # the claim's certificate is nonsense here: told, and tried again later
    assert new_identity.find(home) is not None


async def test_an_agent_without_a_clock_asks_when_nothing_connects(tmp_path: Path) -> None:
    """It cannot know that its certificate ran out while it was off; being refused again and again is its sign."""
    home, clock = enrolled(tmp_path / "home", CA), ManualClock(NOW.replace(year=1970))
    claim_in(home.claim)
    returning = Returning(home, SETTINGS, FlooredClock(clock), Random(1))
    await returning.step(RETURN_AFTER_FAILURES - 1)
    assert new_identity.find(home) is None
    await returning.step(RETURN_AFTER_FAILURES)
    assert new_identity.find(home) is not None
