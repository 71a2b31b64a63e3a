"""A new identity beside the present one: cut anywhere or on a full disk, the device still has a whole one."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from device_client import identity, new_identity
from device_client.config import DeviceHome
from device_client.identity_files import IdentityFiles, check_certificate, load_device_key
from protocol.encryption import unwrap_key, wrap_key
from tests.device_client.identities import NOW, TestCa, enrolled

DiesAt = Callable[[int, Path, Callable[[], object]], bool]
CA = TestCa()


@pytest.fixture
def home(tmp_path: Path) -> DeviceHome:
    """An enrolled device."""
    return enrolled(tmp_path / "home", CA)


def prepare(home: DeviceHome) -> new_identity.NewIdentity:
    """New keys, and a request that is not looked at here."""
    return new_identity.prepare(home, lambda _: b"request")


def complete(new: new_identity.NewIdentity, home: DeviceHome) -> None:
    """Its certificate comes."""
    certificate = CA.issue(load_device_key(new.files).public_key(), days=180)
    new_identity.complete(new, certificate, identity.load_enrolment(home), NOW)


def is_whole(home: DeviceHome) -> bool:
    """Whether the present certificate fits the present key, and the rest is there."""
    certificate = IdentityFiles(home).certificate.read_bytes().decode()
    key = load_device_key(IdentityFiles(home)).public_key()
    assert identity.load_enrolment(home).device == "d1"
    assert identity.load_root(home) and identity.load_content_keys(home)
    return check_certificate(certificate, "present", key=key, cas=IdentityFiles(home).ca.read_bytes()) == "d1"


def test_from_keys_to_the_switch(home: DeviceHome) -> None:
    """The present identity changes at the switch alone; then the old folder is gone and its content key is kept."""
    before = load_device_key(IdentityFiles(home)).public_key()
    (former,) = identity.load_content_keys(home)
    assert new_identity.find(home) is None
    new = prepare(home)
    assert not new.is_whole and new.request == b"request"
    complete(new, home)
    found = new_identity.find(home)
    assert found is not None and found.is_whole
    assert load_device_key(IdentityFiles(home)).public_key() == before
    new_identity.adopt(home, found)
    assert load_device_key(IdentityFiles(home)).public_key() != before
    assert [path.name for path in home.identities.iterdir()] == ["2"]
    assert new_identity.find(home) is None
    wrapped = wrap_key(b"k" * 32, former.public_key(), release="ab" * 32, device="d1")
    opened = [unwrap_key(wrapped, key, release="ab" * 32, device="d1") for key in identity.load_content_keys(home)[1:]]
    assert opened == [b"k" * 32]
    new_identity.forget_former_keys(home)
    assert len(identity.load_content_keys(home)) == 1
    assert is_whole(home)


def test_former_content_keys_are_bounded(home: DeviceHome) -> None:
    """After many renewals three former keys are there, the newest ones first."""
    seen = [identity.load_content_key(home)]
    for _ in range(5):
        new = prepare(home)
        complete(new, home)
        new_identity.adopt(home, new)
        seen.insert(0, identity.load_content_key(home))
    raw = [key.private_bytes_raw() for key in identity.load_content_keys(home)]
    assert raw == [key.private_bytes_raw() for key in seen[:4]]


def test_a_second_preparation_begins_anew(home: DeviceHome) -> None:
    """What was half done, or answered never, is removed."""
    first = prepare(home).files.device_key.read_bytes()
    assert prepare(home).files.device_key.read_bytes() != first
    assert sorted(path.name for path in home.identities.iterdir()) == ["1", "2"]


def test_a_renewal_cut_off_anywhere(tmp_path: Path, dies_at: DiesAt) -> None:
    """Whatever the disk has at that instant, there is one whole identity, and the renewal goes on from there."""
    for number in range(0, 400, 3):  # every third change of the disk: each costs two processes
        home = enrolled(tmp_path / str(number), CA)

        def renew(home: DeviceHome = home) -> None:
            found = new_identity.find(home) or prepare(home)
            if not found.is_whole:
                complete(found, home)
            new_identity.adopt(home, found)

        cut = dies_at(number, home.path, renew)
        assert is_whole(home)
        if not cut:
            assert number > 20
            return
        renew()
        assert is_whole(home)
        present = home.identity.resolve().name
        assert [path.name for path in home.identities.iterdir() if path.name != present] == []
    pytest.fail("the renewal never ended")


_FULL = """
import resource, signal, sys
from pathlib import Path
from device_client import new_identity
from device_client.config import DeviceHome
from device_client.errors import StorageError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), int(sys.argv[2])))
try:
    new_identity.prepare(DeviceHome(Path(sys.argv[1])), lambda _: b"r" * 4000)
except StorageError as error:
    sys.exit(str(error))
"""


@pytest.mark.parametrize("room_bytes", [0, 200, 1000])
def test_a_full_disk_costs_a_try(home: DeviceHome, room_bytes: int) -> None:
    """The sentence names the file; the present identity is whole and in use, and with room the renewal is made."""
    words = [sys.executable, "-c", _FULL, str(home.path), str(room_bytes)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1, done.stderr
    assert "cannot be written: File too large" in done.stderr and "Traceback" not in done.stderr
    assert is_whole(home)
    assert new_identity.find(home) is None
    complete(prepare(home), home)
    found = new_identity.find(home)
    assert found is not None and found.is_whole
