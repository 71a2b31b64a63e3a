"""When to answer an announcement: on change, and then ever more rarely."""

from datetime import UTC, datetime
from itertools import pairwise
from random import Random

from device_client.availability import Availability
from protocol.directives import Action, Announcement, ReleaseRef
from protocol.reports import Reason

NOW = datetime(2026, 11, 24, tzinfo=UTC)
LOW = Reason(gate="power", code="battery_low", detail="12 %")


def announcement(action: Action = Action.INSTALL) -> Announcement:
    release = ReleaseRef(path="gateway/1.1.0/manifest", length=1, sha256="0" * 64, counter=1)
    return Announcement(
        fleet="f", issued=NOW, rollout="r-1", expires=NOW, epoch=1, seq=1, release=release, action=action
    )


def said(availability: Availability, now: float, reasons: list[Reason], nonce: str = "nonce-00") -> str | None:
    return availability.due(announcement(), reasons, ready=not reasons, nonce=nonce, now=now)


def test_what_is_new_is_said_at_once() -> None:
    """A first answer and each change go out at once, with a fresh nonce."""
    availability = Availability(5, 900, Random(1))
    assert said(availability, 0, [LOW], "nonce-01") == "nonce-01"
    assert said(availability, 0.1, [], "nonce-02") == "nonce-02"


def test_what_was_said_is_repeated_ever_more_rarely() -> None:
    """Repeats carry the old nonce; the time between two grows up to the level interval and never beyond."""
    availability = Availability(5, 60, Random(1))
    said(availability, 0, [])
    times = [now for now in range(1, 2000) if said(availability, now, [], "nonce-99") == "nonce-00"]
    gaps = [later - earlier for earlier, later in pairwise(times)]
    assert gaps[0] <= 11
    assert max(gaps) <= 61
    assert min(gaps[-10:]) >= 29


def test_everything_is_said_again_when_reports_may_be_lost() -> None:
    """A new generation of ingest hears every level within the base interval."""
    availability = Availability(5, 900, Random(1))
    for now in (0, 100, 200, 300):
        said(availability, now, [])
    availability.repeat_all(1000)
    assert said(availability, 1005.1, []) == "nonce-00"


def test_a_forgotten_rollout_begins_anew() -> None:
    """After an offer took its place, nothing of it is left."""
    availability = Availability(5, 900, Random(1))
    said(availability, 0, [], "nonce-01")
    availability.forget("r-1")
    assert said(availability, 0.1, [], "nonce-02") == "nonce-02"
