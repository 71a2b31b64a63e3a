"""Announcements and offers: bounds of their fields, and when a lease is renewed."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import ValidationError

from protocol.directives import Announcement, Grant, Heard, Offer, ReleaseRef, superseded_by
from protocol.envelopes import decode, encode

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
REF = {"path": "gateway/1.1.0/manifest", "length": 10, "sha256": "ab" * 32, "counter": 0}
OFFER: dict[str, Any] = {
    "fleet": "north",
    "issued": NOW,
    "rollout": "r1",
    "expires": NOW + timedelta(hours=24),
    "epoch": 1,
    "seq": 2,
    "release": REF,
    "device": "dev1",
    "grant": "download",
}


def test_an_offer_reads_back() -> None:
    """What is encoded is decoded to the same offer, and its order is the pair."""
    offer = Offer(**{**OFFER, "grant": Grant.ACTIVATE, "nonce": "n" * 8, "grant_s": 900, "heard": Heard(nonce="n" * 8)})
    assert decode(encode(offer), Offer) == offer
    assert offer.order == (1, 2)


@pytest.mark.parametrize(
    "changes",
    [
        {"device": "a/b"},
        {"device": "+"},
        {"grant": "install"},
        {"grant_s": 0},
        {"grant_s": 3601},
        {"nonce": "short"},
        {"nonce": "n" * 65},
        {"nonce": "with blank"},
        {"attempt": 0},
        {"seq": 0},
        {"epoch": 0},
        {"key_wrap": "x" * 4097},
        {"reason": "x" * 201},
        {"type": "announcement"},
        {"v": "2.0"},
        {"expires": "2026-11-23T12:00:00"},
        {"release": {**REF, "sha256": "AB" * 32}},
        {"release": {**REF, "length": 0}},
        {"release": {**REF, "counter": -1}},
        {"heard": {"outcome": "not a digest"}},
    ],
    ids=str,
)
def test_an_offer_out_of_bounds_is_refused(changes: dict[str, Any]) -> None:
    """Every field has its bounds; an activate grant lasts an hour at most."""
    Offer(**OFFER)
    with pytest.raises(ValidationError):
        Offer(**{**OFFER, **changes})


@pytest.mark.parametrize("action", ["", "download", "INSTALL", None])
def test_an_announcement_knows_three_actions(action: str | None) -> None:
    """Install, hold and abort, and nothing that looks like them."""
    fields = {name: value for name, value in OFFER.items() if name not in {"device", "grant"}}
    for known in ("install", "hold", "abort"):
        assert Announcement(**fields, action=known).action == known
    with pytest.raises(ValidationError):
        Announcement(**fields, action=action)


def test_a_directive_does_not_change() -> None:
    """What was checked stays as it was checked."""
    with pytest.raises(ValidationError):
        Offer(**OFFER).seq = 9  # type: ignore[misc]


def test_a_release_is_named_the_same_by_both_keys() -> None:
    """A reference has exactly the four facts that the offline keys sign."""
    assert set(ReleaseRef.model_fields) == {"path", "length", "sha256", "counter"}


@pytest.mark.parametrize(
    ("grant", "reason", "expected"),
    [
        ("closed", superseded_by("r2"), True),
        ("closed", superseded_by("r" * 64), True),
        ("closed", "superseded", True),
        ("closed", "the rollout has ended", False),
        ("closed", "not superseded", False),
        ("closed", "", False),
        ("download", superseded_by("r2"), False),
    ],
)
def test_an_offer_says_that_it_makes_way(grant: str, reason: str, expected: bool) -> None:
    """By how its reason begins, and only once it is closed."""
    assert Offer(**{**OFFER, "grant": Grant(grant), "reason": reason}).is_superseded is expected
