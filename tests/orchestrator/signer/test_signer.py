"""What the signer signs verifies and carries its own numbers; what it refuses uses up none; no key leaves it."""

import base64
import hashlib
import os
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Any

import pytest
from tuf.api.metadata import Metadata, Timestamp

from orchestrator.config import Home, Settings, SignerSettings
from orchestrator.errors import ConflictError, NotAllowedError, NotFoundError, OperationError, UsageError
from orchestrator.signer.keys import load_signer
from orchestrator.signer.seam import MAX_BATCH, Refusal, Refused, Request, Signed
from orchestrator.signer.signer import TIMESTAMP_LIFE, Signer
from protocol.clock import ManualClock
from protocol.directives import ANNOUNCEMENT_TYPE, OFFER_TYPE, Announcement, Offer
from protocol.encryption import seal_manifest, unpack_manifest, unwrap_key, wrap_key
from protocol.envelopes import open_envelope, verify_with
from protocol.errors import ContentError
from tests.orchestrator.signer.conftest import CEK, NOW, SHA, Asker


def signed(signer: Signer, request: Request) -> Signed:
    """The answer to a request that must be signed."""
    (answer,) = signer.sign([request])
    assert isinstance(answer, Signed), answer
    return answer


def refused(signer: Signer, request: Request) -> Refused:
    """Why a request is not signed; the sentence names what is refused."""
    (answer,) = signer.sign([request])
    assert isinstance(answer, Refusal), "it was signed"
    assert answer.why
    return answer.code


def over_a_restart(home: Home, signer: Signer) -> Iterator[Signer]:
    """The signer, and then one that was started after it."""
    yield signer
    yield Signer.open(home, Settings(fleet="north"), ManualClock(NOW))


def offer_in(home: Home, answer: Signed) -> Offer:
    """The offer, its signature checked."""
    verify = verify_with(load_signer(home.signer / "director.key").public_key)
    return open_envelope(answer.envelope, 8192, OFFER_TYPE, verify, Offer)[0]


def test_an_announcement_is_filled_in_and_signed(home: Home, signer: Signer, asks: Asker) -> None:
    """Fleet, issued, epoch and seq are the signer's; the signature is the director's."""
    answer = signed(signer, asks.announcement(fleet="other", seq=99, epoch=9))
    verify = verify_with(load_signer(home.signer / "director.key").public_key)
    message, _ = open_envelope(answer.envelope, 8192, ANNOUNCEMENT_TYPE, verify, Announcement)
    assert (message.fleet, message.issued, message.order) == ("north", NOW, (answer.epoch, answer.seq))
    assert message.epoch == 1 and message.seq != 99


def test_a_batch_is_answered_in_order_with_rising_numbers(signer: Signer, asks: Asker) -> None:
    """Announcements and offers share one order; a refusal in the middle uses up no number."""
    batch: list[Request] = [asks.announcement(), asks.offer(device="a/b"), asks.offer(), asks.offer("closed", "dev2")]
    answers = signer.sign(batch)
    assert [type(answer) for answer in answers] == [Signed, Refusal, Signed, Signed]
    numbers = [answer.seq for answer in answers if isinstance(answer, Signed)]
    assert numbers == list(range(numbers[0], numbers[0] + 3))


def test_a_batch_has_a_bound(signer: Signer, asks: Asker) -> None:
    """More is a caller's bug."""
    with pytest.raises(ValueError, match="at most"):
        signer.sign([asks.offer("closed")] * (MAX_BATCH + 1))


def test_an_offer_carries_the_key_for_its_device_alone(home: Home, signer: Signer, asks: Asker) -> None:
    """Its device opens it; under another name it does not open."""
    offer = offer_in(home, signed(signer, asks.offer()))
    wrapped = base64.b64decode(offer.key_wrap or "")
    assert unwrap_key(wrapped, asks.device_key, release=SHA, device="dev1") == CEK
    with pytest.raises(ContentError):
        unwrap_key(wrapped, asks.device_key, release=SHA, device="dev2")


def test_a_wrap_is_made_once_per_device_and_release(home: Home, signer: Signer, asks: Asker) -> None:
    """A re-sign has the same wrap; a device with another's content key gets one of its own."""
    first, again, other = (
        offer_in(home, signed(signer, request)).key_wrap
        for request in (asks.offer(), asks.offer("activate"), asks.offer(device="dev2"))
    )
    assert first == again != other


def test_a_closed_offer_carries_no_key(home: Home, signer: Signer, asks: Asker) -> None:
    """Who is done gets nothing that it could still open."""
    assert offer_in(home, signed(signer, asks.offer("closed"))).key_wrap is None


def test_a_manifest_is_unsealed_for_the_import(home: Home, signer: Signer) -> None:
    """The packed manifest comes out; with another package's key, or other bytes, it does not."""
    cek, sealed = seal_manifest(b'{"a":1}')
    sha256 = hashlib.sha256(sealed).hexdigest()
    package = signer._keys.package.public_key()
    sealed_key = wrap_key(cek, package, release=sha256, device="package")
    assert unpack_manifest(signer.unseal(sealed_key, sealed)) == b'{"a":1}'
    with pytest.raises(ContentError, match="E_KEY"):
        signer.unseal(sealed_key, sealed + b"x")
    with pytest.raises(ContentError, match="E_KEY"):
        signer.unseal(os.urandom(80), seal_manifest(b"{}")[1])


MISFITS: dict[str, dict[str, Any]] = {
    "no id": {"device": "a/b"},
    "a key wrap of its own": {"key_wrap": "AAAA"},
    "expired": {"expires": NOW - timedelta(seconds=1)},
    "longer than a week": {"expires": NOW + timedelta(days=8)},
    "no release": {"release": None},
    "activate without a nonce": {"grant": "activate", "nonce": None},
    "activate without an end": {"grant": "activate", "nonce": "n" * 8, "grant_s": None},
}


@pytest.mark.parametrize("draft", MISFITS.values(), ids=MISFITS)
def test_a_draft_that_does_not_fit_is_refused(signer: Signer, asks: Asker, draft: dict[str, Any]) -> None:
    """By its form, its life, or what it lacks; no number is used up."""
    before = signed(signer, asks.offer("closed")).seq
    assert refused(signer, asks.offer(**draft)) is Refused.MISFIT
    assert signed(signer, asks.offer("closed")).seq == before + 1


def test_a_rollout_keeps_its_release(home: Home, signer: Signer, asks: Asker) -> None:
    """What was signed first binds, over restarts, for announcements and offers."""
    signed(signer, asks.announcement())
    other: dict[str, Any] = {
        "release": {"path": "gateway/9.9.9/manifest", "length": 3, "sha256": "b" * 64, "counter": 0}
    }
    for room in over_a_restart(home, signer):
        assert refused(room, asks.announcement(**other)) is Refused.MISFIT
        assert refused(room, asks.offer("closed", **other)) is Refused.MISFIT


def test_a_sealed_key_of_another_release_is_refused(signer: Signer, asks: Asker) -> None:
    """Content of one release cannot be had under the name of another."""
    other: dict[str, Any] = {
        "release": {"path": "gateway/9.9.9/manifest", "length": 3, "sha256": "b" * 64, "counter": 0}
    }
    assert refused(signer, asks.offer(rollout="r-2", **other)) is Refused.KEY


def test_a_device_without_a_usable_key_is_named(signer: Signer, asks: Asker) -> None:
    """The sentence says which device must be enrolled again, and not its key."""
    for key in ("no key", "AAAA"):
        asks.content_key = key
        (answer,) = signer.sign([asks.offer()])
        assert isinstance(answer, Refusal)
        assert answer.code is Refused.MISFIT and "dev1" in answer.why and key not in answer.why


def test_a_halted_rollout_gets_nothing_new(home: Home, signer: Signer, asks: Asker) -> None:
    """No install, no activate, no first offer, no new key; who was offered is still answered. Over restarts."""
    signed(signer, asks.announcement())
    signed(signer, asks.offer())
    signed(signer, asks.announcement("hold", halts=1, reason="three failures"))
    heard: dict[str, Any] = {"heard": {"nonce": "n" * 8}}
    assert offer_in(home, signed(signer, asks.offer(**heard))).key_wrap is not None, "it has had this one"
    for room in over_a_restart(home, signer):
        assert refused(room, asks.announcement()) is Refused.HALTED
        assert refused(room, asks.offer("activate")) is Refused.HALTED
        assert refused(room, asks.offer(device="dev2")) is Refused.HALTED
        assert offer_in(home, signed(room, asks.offer(device="dev2", **heard))).key_wrap is None
        signed(room, asks.offer("closed"))
        signed(room, asks.announcement("hold", halts=1))


def test_a_halt_is_lifted_by_who_knows_it_and_says_why(signer: Signer, asks: Asker) -> None:
    """An older database does not know the second halt; without a reason nothing goes on."""
    signed(signer, asks.announcement("hold", halts=2))
    assert refused(signer, asks.announcement(halts=1, reason="mended")) is Refused.HALTED
    assert refused(signer, asks.announcement(halts=2)) is Refused.HALTED
    assert signed(signer, asks.announcement(halts=2, reason="mended")).lifted
    assert not signed(signer, asks.announcement()).lifted
    signed(signer, asks.offer("activate"))


def test_a_person_lifts_a_halt_that_the_database_does_not_know(signer: Signer, asks: Asker) -> None:
    """With a reason; what is not halted, and what was aborted, is not lifted."""
    signed(signer, asks.announcement("hold", halts=1, reason="smoke"))
    with pytest.raises(UsageError, match="smoke"):
        signer.lift("r-1", " ")
    signer.lift("r-1", "looked at it")
    signed(signer, asks.announcement())
    with pytest.raises(NotFoundError, match="not halted"):
        signer.lift("r-1", "again")
    signed(signer, asks.announcement("abort", halts=2))
    with pytest.raises(ConflictError, match="aborted"):
        signer.lift("r-1", "please")


def test_nothing_lifts_an_abort(signer: Signer, asks: Asker) -> None:
    """Neither a higher count nor a hold after it."""
    signed(signer, asks.announcement("abort", halts=1))
    signed(signer, asks.announcement("hold", halts=2))
    assert refused(signer, asks.announcement(halts=9, reason="please")) is Refused.HALTED


def test_a_revoked_device_is_offered_nothing(home: Home, signer: Signer, asks: Asker) -> None:
    """For good, over restarts; its offers may be closed, and other devices go on."""
    signed(signer, asks.offer())
    signer.revoke(["dev1", "dev9"], "stolen")
    signer.revoke(["dev1"], "stolen")
    for room in over_a_restart(home, signer):
        assert refused(room, asks.offer()) is Refused.REVOKED
        assert refused(room, asks.offer("activate")) is Refused.REVOKED
        signed(room, asks.offer("closed"))
        signed(room, asks.offer(device="dev2"))


def test_offers_beyond_the_rate_wait(home: Home, clock: ManualClock, asks: Asker) -> None:
    """A burst, then as many as time brings; closing and holding is never limited."""
    limits = SignerSettings(offers_per_minute=60, offers_burst=3)
    signer = Signer.open(home, Settings(fleet="north", signer=limits), clock)
    answers = signer.sign([asks.offer(device=f"dev{number}") for number in range(5)])
    assert [isinstance(answer, Signed) for answer in answers] == [True] * 3 + [False] * 2
    assert isinstance(answers[4], Refusal) and answers[4].code is Refused.LATER and 0 < answers[4].retry_s <= 1
    signed(signer, asks.offer("closed"))
    signed(signer, asks.announcement("hold"))
    clock.advance(2)
    assert _signed_of(signer.sign([asks.offer(rollout="r-2", device=f"dev{number}") for number in range(5)])) == 2


def _signed_of(answers: Sequence[Signed | Refusal]) -> int:
    return sum(isinstance(answer, Signed) for answer in answers)


def test_a_timestamp_rises_and_verifies(home: Home, signer: Signer) -> None:
    """Each has a higher version, names the snapshot and lives seven days."""
    first = Metadata[Timestamp].from_bytes(signer.bump_timestamp(4))
    second = Metadata[Timestamp].from_bytes(signer.bump_timestamp(4))
    assert second.signed.version == first.signed.version + 1 == signer.highest_timestamp()
    assert first.signed.snapshot_meta.version == 4 and first.signed.expires == NOW + TIMESTAMP_LIFE
    key = load_signer(home.signer / "timestamp.key").public_key
    key.verify_signature(first.signatures[key.keyid], first.signed_bytes)


def test_a_database_that_is_up_to_date_goes_on_in_its_epoch(home: Home, signer: Signer, asks: Asker) -> None:
    """It knows the last number that was signed; also after a restart of the signer."""
    assert not signer.begin((0, 0), 1).raised
    last = signed(signer, asks.announcement())
    for room in over_a_restart(home, signer):
        begun = room.begin((last.epoch, last.seq), 1)
        assert (begun.raised, begun.order) == (False, (last.epoch, last.seq))


@pytest.mark.parametrize("restarted", [False, True])
def test_an_older_database_goes_on_under_a_new_epoch(
    home: Home, signer: Signer, asks: Asker, *, restarted: bool
) -> None:
    """Once: what was begun is known at the next start. Rollouts' ids may be given again; halts stay."""
    old = signed(signer, asks.announcement())
    signed(signer, asks.announcement("hold", halts=1))
    newest = signed(signer, asks.announcement(rollout="r-2"))
    if restarted:
        signer = Signer.open(home, Settings(fleet="north"), ManualClock(NOW))
    begun = signer.begin((old.epoch, old.seq), 1)
    assert begun.raised and begun.order == (newest.epoch + 1, newest.seq)
    assert list(begun.halted) == ["r-1"]
    assert not signer.begin(begun.order, 1).raised
    other: dict[str, Any] = {
        "release": {"path": "gateway/9.9.9/manifest", "length": 3, "sha256": "b" * 64, "counter": 0}
    }
    again = signed(signer, asks.announcement(rollout="r-2", **other))
    assert (again.epoch, again.seq) > begun.order
    assert refused(signer, asks.announcement()) is Refused.HALTED


def test_a_lost_log_counts_as_the_highest_that_may_have_been_signed(home: Home, signer: Signer, asks: Asker) -> None:
    """Whoever removes the log gets a new epoch, not old numbers."""
    last = signed(signer, asks.announcement())
    (home.signer / "requests.log").unlink()
    assert Signer.open(home, Settings(fleet="north")).begin((last.epoch, last.seq), 1).raised


def test_old_marks_are_refused(home: Home, asks: Asker) -> None:
    """A copy of the signer's folder from before what was published signs nothing."""
    with pytest.raises(ConflictError, match="old copy"):
        Signer.open(home, Settings(fleet="north")).begin((1, 5), 1)
    with pytest.raises(ConflictError, match="old copy"):
        Signer.open(home, Settings(fleet="north")).begin((0, 0), 2)


def test_a_full_disk_signs_nothing(signer: Signer, asks: Asker, monkeypatch: pytest.MonkeyPatch) -> None:
    """No signature leaves without its line in the log; with space again it goes on."""
    signed(signer, asks.announcement())

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(OperationError, match=r"requests\.log: No space left"):
            signer.sign([asks.announcement()])
    signed(signer, asks.announcement())


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
