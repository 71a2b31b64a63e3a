"""Does an authentic directive hold for this receiver, now?"""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from protocol.directives import Action, Announcement, Grant, Offer, ReleaseRef
from protocol.errors import EnvelopeError, ErrorCode, TrustError
from protocol.manifest import ReleaseInfo
from protocol.trust.checks import (
    Receiver,
    check_announcement,
    check_offer,
    check_passes_through,
    check_quarantine,
    check_release,
    first_skipped,
)
from protocol.trust.floors import Floors, quarantine, raise_counter, raise_order
from protocol.trust.trusted import PassThrough, ReleaseTarget
from tests.protocol.trust.repository import NOW, release_info

PATH = "gateway/1.1.0/manifest"
REF = ReleaseRef(path=PATH, length=10, sha256="cd" * 32, counter=2)
ME = Receiver("north", "dev1", "gateway", "rev-a", {"app": "1.0.0", "os": "5"})


def offer(**changes: Any) -> Offer:
    """A good offer for this device, with changes."""
    fields: dict[str, Any] = {
        "fleet": "north",
        "issued": NOW,
        "rollout": "r1",
        "expires": NOW + timedelta(hours=24),
        "epoch": 1,
        "seq": 5,
        "release": REF,
        "device": "dev1",
        "grant": Grant.DOWNLOAD,
    }
    return Offer(**{**fields, **changes})


def announcement(**changes: Any) -> Announcement:
    """A good announcement, with changes."""
    fields = offer().model_dump(exclude={"type", "device", "attempt", "grant", "nonce", "heard", "reason"})
    return Announcement(**{**fields, "action": Action.INSTALL, **changes})


def judge_offer(message: Offer, floors: Floors = Floors(), now_h: float = 1) -> bool:  # noqa: B008 - frozen
    """The check as a device makes it, on its own topic of rollout r1."""
    now = NOW + timedelta(hours=now_h)
    return check_offer(message, rollout="r1", topic="t", digest="d", receiver=ME, floors=floors, now=now)


def judge_announcement(message: Announcement, floors: Floors = Floors(), now_h: float = 1) -> bool:  # noqa: B008
    """The check as a device makes it, on the topic of rollout r1."""
    now = NOW + timedelta(hours=now_h)
    return check_announcement(message, rollout="r1", topic="t", digest="d", receiver=ME, floors=floors, now=now)


def test_a_good_directive_is_news_once() -> None:
    """The very same message again is not refused, but it is no news."""
    assert judge_offer(offer())
    assert judge_announcement(announcement())
    floors = raise_order(Floors(), "t", (1, 5), "d", NOW)
    assert not judge_offer(offer(), floors)
    assert not judge_announcement(announcement(), floors)


@pytest.mark.parametrize("changes", [{"fleet": "south"}, {"device": "dev2"}, {"rollout": "r2"}], ids=str)
def test_another_ones_offer_is_out_of_scope(changes: dict[str, str]) -> None:
    """An offer for another device, rollout or fleet is refused, whatever topic it was put on."""
    with pytest.raises(EnvelopeError) as caught:
        judge_offer(offer(**changes))
    assert caught.value.code is ErrorCode.SCOPE


@pytest.mark.parametrize("changes", [{"fleet": "south"}, {"rollout": "r2"}], ids=str)
def test_another_ones_announcement_is_out_of_scope(changes: dict[str, str]) -> None:
    """An announcement that was moved to another rollout's topic is refused."""
    with pytest.raises(EnvelopeError) as caught:
        judge_announcement(announcement(**changes))
    assert caught.value.code is ErrorCode.SCOPE


def test_a_replayed_directive_is_refused() -> None:
    """What is older than the newest on its topic is a replay, offers and announcements alike."""
    floors = raise_order(Floors(), "t", (1, 6), "newer", NOW)
    with pytest.raises(EnvelopeError) as caught:
        judge_offer(offer(), floors)
    assert caught.value.code is ErrorCode.REPLAY
    with pytest.raises(EnvelopeError) as caught:
        judge_announcement(announcement(), floors)
    assert caught.value.code is ErrorCode.REPLAY


def test_an_equivocating_director_is_caught() -> None:
    """Another content under the same order is refused by its own word."""
    floors = raise_order(Floors(), "t", (1, 5), "another digest", NOW)
    with pytest.raises(EnvelopeError) as caught:
        judge_offer(offer(), floors)
    assert caught.value.code is ErrorCode.EQUIVOCATION


def test_an_expired_lease_is_refused_to_the_second() -> None:
    """At its expiry a directive holds no more."""
    assert judge_offer(offer(), now_h=23.99)
    with pytest.raises(EnvelopeError) as caught:
        judge_offer(offer(), now_h=24)
    assert caught.value.code is ErrorCode.EXPIRED
    with pytest.raises(EnvelopeError) as caught:
        judge_announcement(announcement(), now_h=24)
    assert caught.value.code is ErrorCode.EXPIRED


def test_scope_is_judged_before_order_and_order_before_expiry() -> None:
    """One message with several faults gets one code, always the same."""
    floors = raise_order(Floors(), "t", (9, 9), "newer", NOW)
    with pytest.raises(EnvelopeError) as caught:
        judge_offer(offer(device="dev2"), floors, now_h=48)
    assert caught.value.code is ErrorCode.SCOPE
    with pytest.raises(EnvelopeError) as caught:
        judge_offer(offer(), floors, now_h=48)
    assert caught.value.code is ErrorCode.REPLAY


def target(**changes: Any) -> ReleaseTarget:
    """What the offline keys signed, with changes to the custom part."""
    info = ReleaseInfo(**{**release_info(counter=2).model_dump(), **changes})
    return ReleaseTarget(PATH, 10, "cd" * 32, info)


def test_a_release_that_fits_is_accepted() -> None:
    """Both keys agree, and product, hardware, software and counter fit."""
    check_release(REF, target(requires={"os": "5"}, conflicts={"os": "4"}), ME, Floors())


@pytest.mark.parametrize(
    ("ref", "listed", "code"),
    [
        (REF, None, ErrorCode.NOT_RELEASED),
        (REF.model_copy(update={"sha256": "ef" * 32}), target(), ErrorCode.MISMATCH),
        (REF.model_copy(update={"length": 11}), target(), ErrorCode.MISMATCH),
        (REF.model_copy(update={"counter": 3}), target(), ErrorCode.MISMATCH),
        (REF, target(product="camera"), ErrorCode.HARDWARE),
        (REF, target(hardware=["rev-b", "rev-c"]), ErrorCode.HARDWARE),
        (REF, target(requires={"os": "6"}), ErrorCode.SOFTWARE),
        (REF, target(requires={"mcu": "1"}), ErrorCode.SOFTWARE),
        (REF, target(conflicts={"os": "5"}), ErrorCode.SOFTWARE),
    ],
    ids=["unlisted", "hash", "length", "counter", "product", "hardware", "requires", "absent", "conflicts"],
)
def test_a_release_that_does_not_fit_is_refused(ref: ReleaseRef, listed: ReleaseTarget | None, code: ErrorCode) -> None:
    """Each way in which a release is not for this device has its code."""
    with pytest.raises(TrustError) as caught:
        check_release(ref, listed, ME, Floors())
    assert caught.value.code is code


def test_a_counter_below_the_floor_is_a_rollback() -> None:
    """Code that must never run again is refused even when both keys agree on it."""
    check_release(REF, target(), ME, raise_counter(Floors(), "app", 2))
    with pytest.raises(TrustError, match="counter 2, expected at least 3") as caught:
        check_release(REF, target(), ME, raise_counter(Floors(), "app", 3))
    assert caught.value.code is ErrorCode.ROLLBACK_RELEASE


def listed(*versions: str, **changes: Any) -> list[ReleaseInfo]:
    """Releases that no device may skip, with changes."""
    return [target(version=version, **({"must_pass_through": True} | changes)).info for version in versions]


@pytest.mark.parametrize(
    ("running", "ordered", "others", "skipped"),
    [
        ("1.0.0", "1.2.0", listed("1.1.0"), "1.1.0"),
        ("1.9.0", "1.11.0", listed("1.10.0"), "1.10.0"),  # as numbers, not as texts
        ("1.0.0", "1.3.0", listed("1.2.0", "1.1.0", "1.0.5~rc1"), "1.0.5~rc1"),  # the oldest comes first
        ("1.1.0~rc1", "1.2.0", listed("1.1.0"), "1.1.0"),
        ("1.0.0", "1.1.0", listed("1.1.0"), None),  # that very one
        ("1.0", "1.1.0", listed("1.0.0-0"), "1.0.0-0"),
        ("1.1.0", "1.2.0", listed("1.1.0"), None),  # it runs
        ("1.01.0", "1.2.0", listed("1.1.0"), None),  # the same by another text
        ("1.2.0", "1.3.0", listed("1.1.0"), None),  # left behind
        ("1.0.0", "1.1.0", listed("1.2.0"), None),  # still ahead
        ("1.2.0", "1.0.0", listed("1.1.0"), None),  # going back
        ("1.0.0", "1.0.0", listed("1.1.0"), None),
        (None, "1.2.0", listed("1.1.0"), None),  # nothing runs yet
        ("1.0.0", "1.2.0", listed("1.1.0", must_pass_through=False), None),
        ("1.0.0", "1.2.0", listed("1.1.0", product="camera"), None),
        ("1.0.0", "1.2.0", listed("1.1.0", component="mcu"), None),
        ("1.0.0", "1.2.0", listed("1.1.0", hardware=["rev-b"]), None),
        ("1.0.0", "1.2.0", listed("1.1.0", hardware=["rev-b", "rev-a"]), "1.1.0"),
        ("1.0.0", "1.2.0", [], None),
    ],
)
def test_what_no_device_may_skip(
    running: str | None, ordered: str, others: list[ReleaseInfo], skipped: str | None
) -> None:
    """Only what lies between the two versions, of the same product and component, for this hardware."""
    info = target(version=ordered).info
    found = first_skipped(info, others, "rev-a", running)
    assert (found.version if found else None) == skipped
    same = [PassThrough.model_validate(one.model_dump()) for one in others]
    assert (first_skipped(info, same, "rev-a", running) is None) == (skipped is None)


def test_an_order_that_skips_is_refused() -> None:
    """Named are the release that has to come first, and what runs; what runs of other components is not asked."""
    me = replace(ME, components={"app": "1.0.0", "mcu": "9"})
    check_passes_through(REF, target(version="1.2.0"), listed("1.3.0"), me)
    check_passes_through(REF, target(version="1.2.0"), listed("1.1.0"), replace(me, components={"mcu": "0.1"}))
    with pytest.raises(TrustError, match=r"may skip app 1\.1\.0, and 1\.0\.0 runs here; 1\.1\.0 comes first") as caught:
        check_passes_through(REF, target(version="1.2.0"), listed("1.1.0"), me)
    assert caught.value.code is ErrorCode.SOFTWARE


def test_a_quarantined_release_waits_for_a_higher_attempt() -> None:
    """What rolled back here is not tried again until the operator says so."""
    floors = quarantine(Floors(), REF.sha256, 1)
    with pytest.raises(TrustError) as caught:
        check_quarantine(REF, 1, floors)
    assert caught.value.code is ErrorCode.HEALTH
    check_quarantine(REF, 2, floors)
