"""What the signer signs verifies, carries its own numbers, and its keys are guarded."""

import base64
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from tuf.api.metadata import Metadata, Timestamp

from orchestrator.config import Home, Settings
from orchestrator.errors import NotAllowedError, NotFoundError, OperationError
from orchestrator.signer.keys import load_signer, load_x25519
from orchestrator.signer.signer import TIMESTAMP_LIFE, Signer
from protocol.clock import ManualClock
from protocol.directives import ANNOUNCEMENT_TYPE, OFFER_TYPE, Announcement, Offer
from protocol.encryption import PACKAGE_RECIPIENT, unwrap_key, wrap_key
from protocol.envelopes import open_envelope, verify_with
from protocol.errors import ContentError
from tests.orchestrator.delivery.lab import make_keys

NOW = datetime(2026, 11, 24, 12, 0, 0, tzinfo=UTC)
SHA = "a" * 64
DRAFT: dict[str, Any] = {
    "rollout": "r-1",
    "expires": NOW + timedelta(hours=1),
    "release": {"path": "gateway/1.1.0/manifest", "length": 3, "sha256": SHA, "counter": 0},
}


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """A home with the signer's keys."""
    home = Home(tmp_path)
    make_keys(home)
    return home


@pytest.fixture
def signer(home: Home) -> Signer:
    """A signer at a fixed time."""
    return Signer.open(home, Settings(fleet="north"), ManualClock(NOW))


def test_an_announcement_is_filled_in_and_signed(home: Home, signer: Signer) -> None:
    """Fleet, issued, epoch and seq are the signer's; the signature is the director's."""
    signed = signer.sign_announcement({**DRAFT, "action": "install", "fleet": "other", "seq": 99, "epoch": 9})
    verify = verify_with(load_signer(home.signer / "director.key").public_key)
    message, payload = open_envelope(signed.envelope, 8192, ANNOUNCEMENT_TYPE, verify, Announcement)
    assert payload == signed.payload
    assert (message.fleet, message.issued, message.order) == ("north", NOW, (signed.epoch, signed.seq))
    assert message.epoch == 1 and message.seq != 99


def test_every_directive_has_a_higher_seq(signer: Signer) -> None:
    """Announcements and offers share one order."""
    first = signer.sign_announcement({**DRAFT, "action": "hold"})
    second = signer.sign_offer({**DRAFT, "device": "dev1", "grant": "closed"})
    assert second.seq == first.seq + 1


def test_an_offer_verifies_as_an_offer_only(home: Home, signer: Signer) -> None:
    """The payload type is signed too."""
    signed = signer.sign_offer({**DRAFT, "device": "dev1", "grant": "download"})
    verify = verify_with(load_signer(home.signer / "director.key").public_key)
    assert open_envelope(signed.envelope, 8192, OFFER_TYPE, verify, Offer)[0].device == "dev1"


def test_a_bad_draft_uses_up_no_number(signer: Signer) -> None:
    """What cannot be signed is a caller's bug."""
    before = signer.marks.next_order()
    with pytest.raises(ValueError, match="mistakes in the draft"):
        signer.sign_offer({**DRAFT, "device": "a/b", "grant": "download"})
    assert signer.marks.next_order() == (before[0], before[1] + 1)


def test_a_package_key_is_wrapped_again_for_one_device(home: Home, signer: Signer) -> None:
    """The device opens it; another device or release does not."""
    cek, device_key = b"c" * 32, X25519PrivateKey.generate()
    package = load_x25519(home.signer / "package.key").public_key()
    wrapped = wrap_key(cek, package, release=SHA, device=PACKAGE_RECIPIENT)
    assert signer.open_package_key(wrapped, SHA) == cek
    with pytest.raises(ContentError):
        signer.open_package_key(wrapped, "b" * 64)
    public = base64.b64encode(device_key.public_key().public_bytes_raw()).decode()
    offered = base64.b64decode(signer.wrap(cek, public, SHA, "dev1"))
    assert unwrap_key(offered, device_key, release=SHA, device="dev1") == cek
    with pytest.raises(ContentError):
        unwrap_key(offered, device_key, release=SHA, device="dev2")


def test_a_device_without_a_usable_key_is_named(signer: Signer) -> None:
    """The message says which device must be enrolled again."""
    with pytest.raises(OperationError, match="device dev1"):
        signer.wrap(b"c" * 32, "no key", SHA, "dev1")


def test_a_timestamp_rises_and_verifies(home: Home, signer: Signer) -> None:
    """Each has a higher version, names the snapshot and lives seven days."""
    first = Metadata[Timestamp].from_bytes(signer.bump_timestamp(4))
    second = Metadata[Timestamp].from_bytes(signer.bump_timestamp(4))
    assert second.signed.version == first.signed.version + 1
    assert first.signed.snapshot_meta.version == 4 and first.signed.expires == NOW + TIMESTAMP_LIFE
    key = load_signer(home.signer / "timestamp.key").public_key
    key.verify_signature(first.signatures[key.keyid], first.signed_bytes)


def test_a_key_that_others_may_read_is_refused(home: Home) -> None:
    """The message says which mode is expected."""
    (home.signer / "director.key").chmod(0o640)
    with pytest.raises(NotAllowedError, match="make it 600"):
        Signer.open(home, Settings())


def test_missing_and_foreign_keys_are_named(home: Home) -> None:
    """One sentence each."""
    (home.signer / "package.key").write_bytes((home.signer / "director.key").read_bytes())
    with pytest.raises(OperationError, match=r"package\.key: expected an X25519"):
        Signer.open(home, Settings())
    (home.signer / "timestamp.key").write_text("nothing")
    with pytest.raises(OperationError, match=r"timestamp\.key"):
        Signer.open(home, Settings())
    (home.signer / "director.key").unlink()
    with pytest.raises(NotFoundError, match=r"director\.key"):
        Signer.open(home, Settings())
