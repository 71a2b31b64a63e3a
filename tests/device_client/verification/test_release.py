"""What this device believes: one order of checks, floors that rise only after all of them, and never fall."""

from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from securesystemslib.signer import CryptoSigner

from device_client.errors import StorageError
from protocol.directives import Action, Announcement
from protocol.errors import ErrorCode, ProtocolError
from tests.device_client.lab import Lab
from tests.protocol.trust.repository import DIRECTOR, NOW


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    """A device with one release listed."""
    made = Lab(tmp_path / "home")
    made.factory()
    return made


def _refused(lab: Lab, message: Announcement, rollout: str = "r", signer: str = DIRECTOR) -> ErrorCode:
    before = lab.verifier.floors
    with pytest.raises(ProtocolError) as error:
        lab.verifier.accept_announcement(rollout, lab.signed(message, signer))
    assert lab.verifier.floors == before, "a refusal moved a floor"
    return error.value.code


def test_without_trust_nothing_is_believed(lab: Lab) -> None:
    """Before metadata was verified, and after its freshness ran out, every word waits."""
    release = lab.publish()
    announcement = lab.announcement(release, expires=NOW + timedelta(days=20))
    assert (lab.verifier.stale, lab.verifier.root_version) == (True, 0)
    assert _refused(lab, announcement) is ErrorCode.WITHHELD
    lab.refresh()
    assert (lab.verifier.stale, lab.verifier.root_version) == (False, 1)
    lab.clock.advance(8 * 86_400)
    assert lab.verifier.stale
    assert _refused(lab, announcement) is ErrorCode.FREEZE
    with pytest.raises(ProtocolError) as error:
        lab.verifier.check(release.ref)
    assert error.value.code is ErrorCode.FREEZE


@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        (("signature", "scope", "order", "expiry"), ErrorCode.SIGNATURE),
        (("scope", "order", "expiry"), ErrorCode.SCOPE),
        (("order", "expiry"), ErrorCode.REPLAY),
        (("expiry",), ErrorCode.EXPIRED),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, tuple) else None,
)
def test_the_order_of_checks(lab: Lab, wrong: tuple[str, ...], code: ErrorCode) -> None:
    """Of several things that are wrong the first one names the refusal: an expired forgery is a forgery."""
    release = lab.publish()
    lab.refresh()
    old, newest = lab.announcement(release), lab.announcement(release)
    lab.verifier.accept_announcement("r", lab.signed(newest))
    lab.repository.signers["forger"] = CryptoSigner.generate_ed25519()
    message = old if "order" in wrong else lab.announcement(release)
    if "expiry" in wrong:
        message = message.model_copy(update={"expires": NOW})
    rollout = "another" if "scope" in wrong else "r"
    assert _refused(lab, message, rollout, "forger" if "signature" in wrong else DIRECTOR) is code


def test_the_first_of_two_with_one_order_stays(lab: Lab) -> None:
    """A second content under one order is E_EQUIVOCATION, before and after a restart; the first one is still known."""
    release = lab.publish()
    lab.refresh()
    first = lab.announcement(release)
    second = first.model_copy(update={"action": Action.ABORT})
    assert lab.verifier.accept_announcement("r", lab.signed(first)).news
    for _ in range(2):
        assert _refused(lab, second) is ErrorCode.EQUIVOCATION
        assert not lab.verifier.accept_announcement("r", lab.signed(first)).news
        lab.verifier = lab.new_verifier()
        lab.verifier.refresh({})


def test_offers_and_announcements_have_orders_of_their_own(lab: Lab) -> None:
    """The same order on another topic is no replay; an offer for another device is E_SCOPE."""
    release = lab.publish()
    lab.refresh()
    announcement = lab.announcement(release)
    lab.verifier.accept_announcement("r", lab.signed(announcement))
    offer = lab.offer(release, seq=announcement.seq)
    assert lab.verifier.accept_offer("r", lab.signed(offer)).news
    with pytest.raises(ProtocolError) as error:
        lab.verifier.accept_offer("r", lab.signed(lab.offer(release, device="d2")))
    assert error.value.code is ErrorCode.SCOPE
    with pytest.raises(ProtocolError) as error:
        lab.verifier.accept_offer("r", lab.signed(announcement))
    assert error.value.code is ErrorCode.TYPE


def test_floors_survive_a_restart_and_a_wiped_trust_store(lab: Lab) -> None:
    """Orders, counters, quarantine and the clock are outside of what an attacker with the cache can take away."""
    release = lab.publish(counter=4)
    old_files = lab.repository.files()
    lab.repository.bump()
    lab.refresh()
    announcement = lab.announcement(release)
    lab.verifier.accept_announcement("r", lab.signed(announcement))
    lab.verifier.committed("app", 4)
    lab.verifier.set_aside(release.ref.sha256, 2)
    floors = lab.verifier.floors
    for file in [*lab.home.trust.rglob("*")]:
        if not file.is_dir():
            file.unlink()
    lab.verifier = lab.new_verifier()
    assert lab.verifier.floors == floors
    with pytest.raises(ProtocolError) as error:
        lab.verifier.refresh(old_files)
    assert error.value.code is ErrorCode.ROLLBACK_METADATA
    lab.refresh()
    assert lab.verifier.floors == floors
    with pytest.raises(ProtocolError) as error:
        lab.verifier.check(release.ref, attempt=2)
    assert error.value.code is ErrorCode.HEALTH
    assert lab.verifier.check(release.ref, attempt=3).info.version == "1.1.0"


def test_older_code_never_runs_again(lab: Lab) -> None:
    """A release below the counter that was committed is refused, however it is signed."""
    older, newer = lab.publish("1.1.0", counter=1), lab.publish("1.2.0", counter=2)
    lab.refresh()
    assert lab.verifier.check(older.ref).info.version == "1.1.0"
    lab.verifier.committed("app", newer.ref.counter)
    with pytest.raises(ProtocolError) as error:
        lab.verifier.check(older.ref)
    assert error.value.code is ErrorCode.ROLLBACK_RELEASE
    lab.verifier.committed("app", 1)
    assert lab.verifier.floors.counters == {"app": 2}


def test_no_device_skips_what_it_must_pass_through(lab: Lab) -> None:
    """The way leads over each of them, as long as the offline keys list it; the way back does not."""
    stone = lab.publish("1.9.0", must_pass_through=True)
    newer, older = lab.publish("1.10.0"), lab.publish("0.9.0")
    lab.refresh()
    with pytest.raises(ProtocolError, match=r"may skip app 1\.9\.0, and 1\.0\.0 runs here") as error:
        lab.verifier.check(newer.ref, attempt=1)
    assert error.value.code is ErrorCode.SOFTWARE
    assert lab.verifier.check(stone.ref).info.version == "1.9.0"
    assert lab.verifier.check(older.ref).info.version == "0.9.0"
    del lab.repository.releases.targets[stone.ref.path]
    lab.repository.bump()
    lab.refresh()
    assert lab.verifier.check(newer.ref).info.version == "1.10.0", "a withdrawn one may be skipped"


@pytest.mark.parametrize("running", ["1.9.0", "2.0.0"])
def test_what_was_passed_through_is_behind(tmp_path: Path, running: str) -> None:
    """A device that runs it, or something newer, takes what comes after it and what comes before."""
    lab = Lab(tmp_path / "home")
    lab.factory(running)
    lab.publish("1.9.0", must_pass_through=True)
    releases = [lab.publish("1.10.0"), lab.publish("0.9.0")]
    lab.refresh()
    assert [lab.verifier.check(release.ref).info.version for release in releases] == ["1.10.0", "0.9.0"]


@pytest.mark.parametrize(("field", "value"), [("length", 1), ("sha256", "cd" * 32), ("counter", 7)])
def test_two_keys_must_name_the_same_bytes(lab: Lab, field: str, value: Any) -> None:
    """A director that names other bytes, or another counter, than the offline keys is E_MISMATCH."""
    release = lab.publish()
    lab.refresh()
    with pytest.raises(ProtocolError) as error:
        lab.verifier.check(release.ref.model_copy(update={field: value}))
    assert error.value.code is ErrorCode.MISMATCH


def test_a_clock_set_back_revives_nothing(lab: Lab) -> None:
    """What was issued once is the floor of time: an expired directive stays expired, and is so after a restart."""
    release = lab.publish()
    lab.refresh()
    short = lab.announcement(release, expires=NOW + timedelta(hours=1))
    lab.clock.advance(2 * 3600)
    lab.verifier.accept_announcement("later", lab.signed(lab.announcement(release, rollout="later")))
    lab.clock.set_wall(NOW)
    lab.verifier = lab.new_verifier()
    lab.verifier.refresh({})
    assert lab.verifier.now() == NOW + timedelta(hours=2)
    assert _refused(lab, short) is ErrorCode.EXPIRED


def test_a_director_from_the_future_locks_nothing(lab: Lab) -> None:
    """A stolen director key that signs from 2036 is refused, and moves neither an order nor the clock."""
    release = lab.publish()
    lab.refresh()
    future = lab.announcement(release, issued=NOW + timedelta(days=3650), expires=NOW + timedelta(days=3660))
    assert _refused(lab, future) is ErrorCode.CLOCK
    assert lab.verifier.now() == NOW


def test_other_director_keys_begin_anew(lab: Lab) -> None:
    """After the offline keys list another director, orders that the former one drove up do not stand in the way."""
    release = lab.publish()
    lab.refresh()
    lab.verifier.accept_announcement("r", lab.signed(lab.announcement(release, epoch=2**40)))
    old, new = lab.repository.signers[DIRECTOR], CryptoSigner.generate_ed25519()
    lab.repository.targets.revoke_key(old.public_key.keyid, DIRECTOR)
    lab.repository.targets.add_key(new.public_key, DIRECTOR)
    lab.repository.signers |= {"stolen": old, DIRECTOR: new}
    lab.repository.bump()
    lab.refresh()
    assert lab.verifier.accept_announcement("r", lab.signed(lab.announcement(release))).news
    assert _refused(lab, lab.announcement(release, epoch=2**41), signer="stolen") is ErrorCode.SIGNATURE


def test_a_floor_that_cannot_be_kept_believes_nothing(lab: Lab) -> None:
    """What is not on the disk is not accepted: after a power cut it could be replayed."""
    release = lab.publish()
    lab.refresh()
    before = lab.verifier.floors
    blocked = lab.home.state / ".floors-b.json.new"
    blocked.mkdir()
    raw = lab.signed(lab.announcement(release))
    with pytest.raises(StorageError):
        lab.verifier.accept_announcement("r", raw)
    assert lab.verifier.floors == before
    blocked.rmdir()
    assert lab.verifier.accept_announcement("r", raw).news


@settings(max_examples=40)
@given(
    steps=st.lists(
        st.tuples(st.integers(1, 3), st.integers(1, 4), st.sampled_from(list(Action)), st.booleans()), max_size=12
    )
)
def test_an_order_never_falls(steps: list[tuple[int, int, Action, bool]]) -> None:
    """Any sequence of directives and restarts: what is accepted as news only ever rises, with one content each."""
    with TemporaryDirectory() as directory:
        lab = Lab(Path(directory) / "home")
        release = lab.publish()
        lab.refresh()
        seen: dict[tuple[int, int], Action] = {}
        for epoch, seq, action, restart in steps:
            message = lab.announcement(release, action, epoch=epoch, seq=seq)
            highest = max(seen, default=(0, 0))
            try:
                news = lab.verifier.accept_announcement("r", lab.signed(message)).news
            except ProtocolError as error:
                assert error.code is (ErrorCode.REPLAY if message.order < highest else ErrorCode.EQUIVOCATION)
                assert message.order <= highest
                continue
            assert news == (message.order > highest)
            assert seen.setdefault(message.order, action) is action
            if restart:
                lab.verifier = lab.new_verifier()
                lab.verifier.refresh({})
