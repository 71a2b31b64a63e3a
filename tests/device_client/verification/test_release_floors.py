"""What signed messages do to floors: time moves no more than honest ones need, counters fall by offline keys only."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from securesystemslib.signer import CryptoSigner

from device_client.floors_file import DeviceFloors
from device_client.verification.release import Verifier
from protocol.clock import ManualClock
from protocol.directives import ANNOUNCEMENT_TYPE, Action, Announcement, ReleaseRef
from protocol.envelopes import encode, sign
from protocol.errors import ErrorCode, ProtocolError
from protocol.trust.checks import Receiver
from protocol.trust.workflow import TrustStore
from tests.protocol.trust.repository import DIRECTOR, FLEET, NOW, PRODUCT, Repository

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
RELEASE = ReleaseRef(path=f"{PRODUCT}/1.1.0/manifest", length=5, sha256="ab" * 32, counter=0)


class Lab:
    """A device that believes what a repository signs."""

    def __init__(self, place: Path, wall: datetime = NOW) -> None:
        self.place = place
        (place / "state").mkdir()
        self.repository = Repository()
        self.repository.add_release()
        self.first_root = self.repository.root_bytes()
        self.wall = ManualClock(wall)
        self.verifier = self.restarted()

    def restarted(self) -> Verifier:
        """The agent after a restart: only files are left."""
        trust = TrustStore(self.place / "trust", self.first_root)
        receiver = Receiver(FLEET, "dev1", PRODUCT, "rev-a", {})
        return Verifier(trust, DeviceFloors(self.place / "state"), lambda: receiver, self.wall)

    def announce(self, issued: datetime, *, seq: int, expires: datetime | None = None) -> None:
        """Let the device take an announcement."""
        message = Announcement(
            fleet=FLEET,
            rollout="r-1",
            issued=issued,
            expires=expires or issued + timedelta(days=1),
            epoch=1,
            seq=seq,
            release=RELEASE,
            action=Action.INSTALL,
        )
        raw = sign(encode(message), ANNOUNCEMENT_TYPE, self.repository.signers[DIRECTOR])
        self.verifier.accept_announcement("r-1", raw)

    def refusal(self, **order: Any) -> ErrorCode:
        """The code with which an announcement is refused."""
        with pytest.raises(ProtocolError) as caught:
            self.announce(**order)
        return caught.value.code


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    """A device with fresh trust."""
    made = Lab(tmp_path)
    made.verifier.refresh(made.repository.files())
    return made


def test_a_director_message_from_2036_moves_nothing_and_locks_nobody_out(lab: Lab) -> None:
    """A stolen director key signs from far in the future: E_CLOCK, and the honest one is heard as before."""
    lab.announce(NOW, seq=1)
    before = lab.verifier.floors
    future = datetime(2036, 1, 1, tzinfo=UTC)
    assert lab.refusal(issued=future, seq=2**31) is ErrorCode.CLOCK
    assert lab.verifier.floors == before
    assert lab.restarted().floors == before
    lab.announce(NOW + timedelta(hours=1), seq=2)


def test_a_director_that_is_days_ahead_does_not_make_fresh_metadata_old(lab: Lab) -> None:
    """Within the timestamp's life a stolen key may move the floor, but the next timestamp is taken all the same."""
    ahead = NOW + timedelta(days=6, hours=23)
    lab.announce(ahead, seq=9)
    assert lab.verifier.now() == ahead
    lab.wall.advance(3600)
    lab.repository.timestamp.version += 1
    lab.repository.timestamp.expires = NOW + timedelta(days=8)
    lab.verifier.refresh(lab.repository.files())
    assert not lab.verifier.stale


def test_new_timestamp_keys_take_back_what_stolen_ones_did_to_the_clock(lab: Lab) -> None:
    """With both online keys a thief moved the floor by weeks; a new root ends that, on the device's own clock."""
    thief = lab.repository
    thief.timestamp.version, thief.timestamp.expires = 1000, NOW + timedelta(days=3650)
    lab.verifier.refresh(thief.files())
    lab.announce(NOW + timedelta(days=400), seq=5, expires=NOW + timedelta(days=500))
    assert lab.verifier.now() == thief.snapshot.expires - timedelta(days=1)

    owner = lab.repository
    old_root_key = owner.signers["root"]
    owner.root.revoke_key(owner.signers["timestamp"].public_key.keyid, "timestamp")
    owner.signers["timestamp"] = CryptoSigner.generate_ed25519()
    owner.root.add_key(owner.signers["timestamp"].public_key, "timestamp")
    owner.root.version += 1
    assert owner.signers["root"] is old_root_key
    owner.snapshot.version += 1
    owner.timestamp.version, owner.timestamp.expires = 1, NOW + timedelta(days=7)
    lab.verifier.refresh(owner.files())
    assert lab.verifier.now() == NOW
    assert not lab.verifier.stale
    assert lab.restarted().now() == NOW


def test_a_freeze_with_the_clock_set_back_ends_at_the_floor(lab: Lab) -> None:
    """1970 revives no directive that had expired before the clock was set back, nor after a restart."""
    lab.wall.advance(2 * 86_400)
    lab.announce(lab.wall.now(), seq=2)
    lab.wall.set_wall(EPOCH)
    assert lab.refusal(issued=NOW, seq=3, expires=NOW + timedelta(days=1)) is ErrorCode.EXPIRED
    lab.verifier = lab.restarted()
    lab.verifier.refresh({})
    assert lab.refusal(issued=NOW, seq=3, expires=NOW + timedelta(days=1)) is ErrorCode.EXPIRED


def test_a_clock_set_forward_blocks_says_so_and_recovers(lab: Lab) -> None:
    """2099: everything looks expired and the clock is doubted; nothing is kept of it when it is right again."""
    lab.announce(NOW, seq=1)
    lab.wall.set_wall(datetime(2099, 1, 1, tzinfo=UTC))
    with pytest.raises(ProtocolError) as caught:
        lab.verifier.refresh(lab.repository.files())
    assert caught.value.code is ErrorCode.FREEZE
    assert "2099" in lab.verifier.clock.doubt
    assert lab.verifier.stale
    lab.wall.set_wall(NOW + timedelta(hours=2))
    lab.verifier.refresh(lab.repository.files())
    assert (lab.verifier.stale, lab.verifier.clock.doubt) == (False, "")
    lab.announce(NOW + timedelta(hours=2), seq=2)


def test_a_device_without_a_clock_takes_orders(tmp_path: Path) -> None:
    """It starts in 1970, believes what is signed, and knows from then on what has passed."""
    lab = Lab(tmp_path, EPOCH)
    lab.verifier.refresh(lab.repository.files())
    assert lab.verifier.clock.doubt
    lab.announce(NOW, seq=1)
    assert lab.verifier.now() == NOW
    assert lab.restarted().now() == NOW


def test_only_the_offline_keys_lower_a_counter(lab: Lab) -> None:
    """A reset in the signed targets metadata is taken once and kept; what is not understood is refused as a whole."""
    lab.verifier.committed("app", 9)
    lab.repository.targets.unrecognized_fields["flagship"] = {"counter_resets": {"app": {"number": 1, "counter": 4}}}
    lab.repository.bump()
    lab.verifier.refresh(lab.repository.files())
    assert lab.verifier.floors.counters == {"app": 4}
    lab.verifier.committed("app", 6)
    lab.verifier = lab.restarted()
    lab.verifier.refresh({})
    assert lab.verifier.floors.counters == {"app": 6}
    lab.repository.targets.unrecognized_fields["flagship"] = {"counter_resets": {"app": {"counter": 0}}}
    lab.repository.bump()
    with pytest.raises(ProtocolError) as caught:
        lab.verifier.refresh(lab.repository.files())
    assert caught.value.code is ErrorCode.FORMAT
    assert lab.verifier.floors.counters == {"app": 6}


def test_damaged_floors_stop_updates_until_they_are_restored(lab: Lab) -> None:
    """Both copies are lost to the disk: nothing is believed, nothing is overwritten, and a backup ends it by itself."""
    lab.announce(NOW, seq=1)
    copies = sorted((lab.place / "state").iterdir())
    backup = copies[0].read_bytes()
    for copy in copies:
        copy.write_bytes(b"\0" * 100)
    lab.verifier = lab.restarted()
    with pytest.raises(ProtocolError, match="no whole copy") as caught:
        lab.verifier.refresh(lab.repository.files())
    assert caught.value.code is ErrorCode.METADATA
    assert lab.refusal(issued=NOW, seq=2) is ErrorCode.METADATA
    assert [copy.read_bytes() for copy in copies] == [b"\0" * 100] * 2
    copies[1].write_bytes(backup)
    lab.verifier.refresh(lab.repository.files())
    assert lab.refusal(issued=NOW - timedelta(hours=1), seq=0 + 1) is ErrorCode.EQUIVOCATION
    lab.announce(NOW, seq=2)
