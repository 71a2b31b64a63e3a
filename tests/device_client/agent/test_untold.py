"""Outcomes that wait for a link: durable, told in turn, forgotten when they were heard, bounded."""

from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any

import pytest

from device_client.agent.journal import Update
from device_client.agent.untold import MAX_UNTOLD, Untold
from device_client.config import TimingSection
from protocol.directives import Grant, Heard, Offer, ReleaseRef
from protocol.states import State

NOW = datetime(2026, 11, 23, tzinfo=UTC)
TIMING = TimingSection(readiness_retry_s=4, readiness_level_s=100)


def _offer(rollout: str = "r", **changes: Any) -> Offer:
    values: dict[str, Any] = {
        "fleet": "f", "issued": NOW, "rollout": rollout, "expires": NOW, "epoch": 1, "seq": 1, "device": "d",
        "grant": Grant.DOWNLOAD, "release": ReleaseRef(path="cam/1/manifest", length=1, sha256="ab" * 32, counter=0),
    }  # fmt: skip
    return Offer(**(values | changes))


def _outcome(rollout: str = "r", nonce: str = "outcome-1", **changes: Any) -> Update:
    return Update(offer=_offer(rollout, key_wrap="k"), state=State.SUCCEEDED, nonce=nonce, **changes)


def _heard(rollout: str = "r", nonce: str = "outcome-1") -> Offer:
    return _offer(rollout, grant=Grant.CLOSED, heard=Heard(nonce=nonce, outcome="cd" * 32))


def test_an_outcome_survives_a_restart_without_its_key(tmp_path: Path) -> None:
    """What it says is kept; the content key, and most of a long log, serve nobody any more."""
    untold = Untold(tmp_path / "untold.json")
    untold.load()
    assert untold.add(_outcome(log="x" * 9_000))
    again = Untold(tmp_path / "untold.json")
    again.load()
    (kept,) = again.outcomes
    assert (kept.state, kept.nonce, kept.offer.key_wrap, len(kept.log)) == (State.SUCCEEDED, "outcome-1", None, 2_000)


def test_only_its_own_words_end_it(tmp_path: Path) -> None:
    """Another nonce, another rollout, or a nonce without the outcome do not."""
    untold = Untold(tmp_path / "untold.json")
    untold.add(_outcome())
    for other in (_heard(nonce="outcome-2"), _heard("q"), _offer(heard=Heard(nonce="outcome-1"))):
        assert not untold.hear(other)
    assert untold.hear(_heard())
    again = Untold(tmp_path / "untold.json")
    again.load()
    assert untold.outcomes == again.outcomes == []


def test_what_is_over_is_not_begun_again(tmp_path: Path) -> None:
    """Whoever still offers it has not heard of the outcome; a higher attempt is another matter, and ends the former."""
    untold = Untold(tmp_path / "untold.json")
    untold.add(_outcome())
    assert untold.covers(_offer(seq=9))
    assert not untold.covers(_offer("q"))
    assert not untold.covers(_offer(attempt=2))
    assert untold.hear(_offer(attempt=2))
    assert untold.outcomes == []


def test_they_are_told_in_turn_and_ever_more_rarely(tmp_path: Path) -> None:
    """One that nobody answers does not stand before the others, and does not make a device talk for ever."""
    untold = Untold(tmp_path / "untold.json")
    for name in ("a", "b"):
        untold.add(_outcome(name))
    now, told, pauses = 0.0, [], []
    for _ in range(40):
        last = now
        while (outcome := untold.due(now, TIMING, Random(1))) is None:
            now += 0.5
        told.append(outcome.offer.rollout)
        pauses.append(now - last)
    assert told == ["a", "b"] * 20
    assert max(pauses[:3]) <= 4.5 and 50 <= pauses[-1] <= 100.5
    untold.hurry()
    assert untold.due(now, TIMING, Random(1)) is not None


def test_there_is_a_bound(tmp_path: Path) -> None:
    """The oldest is given up; one of the same rollout takes the former one's place."""
    untold = Untold(tmp_path / "untold.json")
    for number in range(MAX_UNTOLD + 2):
        untold.add(_outcome(f"r-{number}"))
    untold.add(_outcome("r-5", "outcome-5"))
    names = [item.offer.rollout for item in untold.outcomes]
    assert (len(names), names[0], names[-1]) == (MAX_UNTOLD, "r-2", "r-5")


@pytest.mark.parametrize("damage", [b"{", b"[1]", b"3", b"[" * 100_000])
def test_a_damaged_file_keeps_nothing_from_starting(tmp_path: Path, damage: bytes) -> None:
    """What it said is lost, which is logged; the device goes on."""
    (tmp_path / "untold.json").write_bytes(damage)
    untold = Untold(tmp_path / "untold.json")
    untold.load()
    assert untold.outcomes == []
    assert untold.add(_outcome())
