"""An update that goes on unasked stands on the trust that it was taken with; everything that is news needs more."""

import shutil
from datetime import timedelta
from pathlib import Path

import pytest

from protocol.errors import ErrorCode, ProtocolError
from tests.device_client.lab import Lab, SealedRelease
from tests.protocol.trust.repository import NOW

WEEK = timedelta(days=7)


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    """A device that runs 1.0.0."""
    made = Lab(tmp_path / "home")
    made.factory()
    return made


@pytest.fixture
def release(lab: Lab) -> SealedRelease:
    """One that is listed, and known to the device."""
    made = lab.publish()
    lab.refresh()
    return made


def _code(lab: Lab, release: SealedRelease) -> ErrorCode | None:
    try:
        lab.verifier.check(release.ref)
    except ProtocolError as error:
        return error.code
    return None


def test_it_goes_on_after_freshness_ran_out(lab: Lab, release: SealedRelease) -> None:
    """Until its time is over; without such an update the device waits, as ever."""
    until = NOW + 2 * WEEK
    lab.clock.advance(8 * 86_400)
    assert _code(lab, release) is ErrorCode.FREEZE
    lab.verifier.unasked_until = lambda: until
    assert _code(lab, release) is None
    assert lab.verifier.stale, "it is said all the same"
    lab.clock.advance(6 * 86_400)
    assert _code(lab, release) is ErrorCode.FREEZE


def test_not_beyond_what_the_offline_keys_said(lab: Lab, release: SealedRelease) -> None:
    """The snapshot's life is theirs: no online key makes it longer."""
    lab.verifier.unasked_until = lambda: NOW + timedelta(days=60)
    lab.clock.advance(29 * 86_400)
    assert _code(lab, release) is None
    lab.clock.advance(2 * 86_400)
    assert _code(lab, release) is ErrorCode.FREEZE


def test_the_same_words_again_are_taken_and_news_is_not(lab: Lab, release: SealedRelease) -> None:
    """A hostile broker, or another medium, brings nothing in on old trust."""
    far = NOW + timedelta(days=20)
    known, news = (lab.signed(lab.announcement(release, expires=far)) for _ in range(2))
    lab.verifier.accept_announcement("r", known)
    lab.verifier.unasked_until = lambda: far
    lab.clock.advance(8 * 86_400)
    before = lab.verifier.floors
    assert not lab.verifier.accept_announcement("r", known).news
    for accept, raw in (
        (lab.verifier.accept_announcement, news),
        (lab.verifier.accept_offer, lab.signed(lab.offer(release, expires=far))),
    ):
        with pytest.raises(ProtocolError, match="E_FREEZE"):
            accept("r", raw)
    assert lab.verifier.floors == before


def test_a_start_recalls_it(lab: Lab, release: SealedRelease) -> None:
    """By the instant at which it was fresh; only for an update that goes on unasked, and only while its time lasts."""
    lab.clock.advance(8 * 86_400)
    lab.verifier = lab.new_verifier()
    with pytest.raises(ProtocolError, match="E_FREEZE"):
        lab.verifier.refresh({})
    for until in (None, lab.clock.now()):
        lab.verifier.unasked_until = lambda until=until: until  # type: ignore[misc]
        lab.verifier.recall(NOW)
        assert _code(lab, release) is ErrorCode.WITHHELD
    lab.verifier.unasked_until = lambda: NOW + 2 * WEEK
    lab.verifier.recall(NOW)
    assert _code(lab, release) is None


def test_an_older_store_is_not_recalled(lab: Lab, release: SealedRelease, tmp_path: Path) -> None:
    """Somebody who puts a former cache in place of the present one meets the floors."""
    shutil.copytree(lab.home.trust, tmp_path / "former")
    lab.repository.bump()
    lab.refresh()
    shutil.rmtree(lab.home.trust)
    shutil.copytree(tmp_path / "former", lab.home.trust)
    lab.clock.advance(8 * 86_400)
    lab.verifier = lab.new_verifier()
    lab.verifier.unasked_until = lambda: NOW + 2 * WEEK
    with pytest.raises(ProtocolError, match="E_ROLLBACK_METADATA"):
        lab.verifier.recall(NOW)
    assert _code(lab, release) is ErrorCode.WITHHELD
