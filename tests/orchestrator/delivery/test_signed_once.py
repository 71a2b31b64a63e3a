"""What was signed for one broker goes to another as it is, exactly when it still says just what would be signed."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from orchestrator.delivery.directives import Directives, Rows
from orchestrator.delivery.publisher import Outgoing
from orchestrator.delivery.signed_once import MAX_KEPT, Drafted, SignedOnce
from orchestrator.model.assignment import Assignment
from orchestrator.model.rollout import RolloutState
from orchestrator.signer.seam import AnnouncementRequest, OfferRequest
from orchestrator.storage import published
from orchestrator.storage.published import Publication
from protocol.topics import Kind
from tests.orchestrator.delivery.lab import Lab

SINCE = datetime(2026, 11, 24, 12, tzinfo=UTC)
NOW = SINCE + timedelta(minutes=1)
EXPIRES = NOW + timedelta(hours=24)
TOPIC = "ota/v1/fleet/offer/dev1/r-1"
EPOCH = 3


def _draft(**values: Any) -> dict[str, Any]:
    return {"rollout": "r-1", "device": "dev1", "attempt": 1, "grant": "download", "expires": EXPIRES} | values


def _drafted(since: datetime = SINCE, key: str = "key", **values: Any) -> Drafted:
    return Drafted((Kind.OFFER, "dev1/r-1", since), TOPIC, OfferRequest(_draft(**values), b"sealed", key))


MESSAGE = Outgoing(
    kind=Kind.OFFER, topic=TOPIC, payload=b"signed", epoch=EPOCH, seq=9, expires=EXPIRES, since=SINCE
)  # fmt: skip


def _kept(*brokers: str) -> SignedOnce:
    once = SignedOnce(brokers)
    once.keep(_drafted(), MESSAGE)
    return once


@pytest.mark.parametrize(
    ("item", "is_found"),
    [
        pytest.param(_drafted(), True, id="the very same"),
        pytest.param(_drafted(SINCE - timedelta(seconds=1)), True, id="an earlier mark"),
        pytest.param(_drafted(SINCE + timedelta(microseconds=1)), False, id="marked again since"),
        pytest.param(_drafted(attempt=2), False, id="it says something else"),
        pytest.param(_drafted(key="another"), False, id="for another key of the device"),
        pytest.param(replace(_drafted(), may_repeat=False), False, id="halted meanwhile"),
        pytest.param(_drafted(expires=EXPIRES + timedelta(hours=23)), True, id="it lasts more than half as long"),
        pytest.param(_drafted(expires=EXPIRES + timedelta(hours=25)), False, id="it is about to expire"),
    ],
)
def test_what_is_kept_is_taken_when_nothing_changed(item: Drafted, is_found: bool) -> None:
    """By instant, words, key, halt and time left."""
    assert _kept("main", "b").find(item, None, EPOCH, NOW) == (MESSAGE if is_found else None)


def test_it_is_not_taken_under_another_epoch() -> None:
    """A database that was restored goes on under a new one, and devices refuse the old."""
    assert _kept("main", "b").find(_drafted(), None, EPOCH + 1, NOW) is None


def test_for_one_broker_nothing_is_kept() -> None:
    """It is signed when it is marked."""
    once = _kept("main")
    assert not once.knows(TOPIC)
    assert once.find(_drafted(), None, EPOCH, NOW) is None


def test_what_is_kept_is_bounded() -> None:
    """The oldest is forgotten; the database has it."""
    once = _kept("main", "b")
    for number in range(MAX_KEPT):
        once.keep(replace(_drafted(), topic=f"t{number}"), MESSAGE)
    assert not once.knows(TOPIC)
    assert once.knows("t0")


def test_an_announcement_of_another_halt_is_another_one() -> None:
    """The words alone do not say which halt it follows."""
    draft = {"rollout": "r-1", "action": "install", "expires": EXPIRES}
    mark = (Kind.ANNOUNCE, "r-1", SINCE)
    once = SignedOnce(["main", "b"])
    once.keep(Drafted(mark, TOPIC, AnnouncementRequest(draft, 0)), MESSAGE)
    assert once.find(Drafted(mark, TOPIC, AnnouncementRequest(draft, 0)), None, EPOCH, NOW) == MESSAGE
    assert once.find(Drafted(mark, TOPIC, AnnouncementRequest(draft, 1)), None, EPOCH, NOW) is None


@pytest.fixture
async def stored(lab: Lab) -> tuple[Directives, Rows, list[Drafted], dict[str, Publication]]:
    """A rollout's announcement and an offer, as they were signed and stand in the database; nothing in memory."""
    await lab.add_release([])
    await lab.add_rollout(["dev1"])
    now = datetime.now(UTC)
    marks = [(Kind.ANNOUNCE, "r-1", now), (Kind.OFFER, "dev1/r-1", now)]
    signing = Directives(lab.topics, lab.settings, lab.signer, SignedOnce(["main", "b"]))
    async with lab.db.read() as conn:
        rows = await signing.load(conn, "main", marks)
    drafted = signing.draft(marks, rows, now)
    batch = await signing.sign(drafted, rows, now)
    items = [message.publication(keep_payload=True) for message in batch.messages]
    async with lab.db.begin() as conn:
        await published.record(conn, "main", items)
        found = await published.signed(conn, ["main", "b"], [item.topic for item in items])
    return Directives(lab.topics, lab.settings, lab.signer, SignedOnce(["main", "b"])), rows, drafted, found


async def test_what_only_the_database_knows_is_read_from_its_bytes(
    stored: tuple[Directives, Rows, list[Drafted], dict[str, Publication]],
) -> None:
    """After a restart the other brokers get the same bytes; what says something else now is signed anew."""
    signing, rows, drafted, found = stored
    now = datetime.now(UTC)
    epoch = next(iter(found.values())).epoch
    again = await signing.sign(drafted, replace(rows, signed=found, epoch=epoch), now)
    assert [message.payload for message in again.messages] == [found[item.topic].payload for item in drafted]
    assert again.announced == ["r-1"]
    changed: Assignment = replace(rows.assignments["r-1", "dev1"], attempt=2)
    other = replace(rows, assignments={("r-1", "dev1"): changed}, signed=found, epoch=epoch)
    signing.once = SignedOnce(["main", "b"])
    anew = await signing.sign(signing.draft([item.mark for item in drafted], other, now), other, now)
    assert [message.payload == found[message.topic].payload for message in anew.messages] == [True, False]


async def test_in_a_halt_no_offer_of_before_is_sent(
    stored: tuple[Directives, Rows, list[Drafted], dict[str, Publication]],
) -> None:
    """Whatever the mark says: it has the content key."""
    signing, rows, drafted, found = stored
    halted = replace(rows.rollouts["r-1"], state=RolloutState.HALTED)
    rows = replace(rows, rollouts={"r-1": halted}, signed=found, epoch=1)
    rows.held.add(drafted[1].topic)
    (offer,) = signing.draft([drafted[1].mark], rows, datetime.now(UTC))
    assert signing.once.find(offer, found[offer.topic], 1, datetime.now(UTC)) is None
    batch = await signing.sign([offer], rows, datetime.now(UTC))
    assert [message.payload == found[offer.topic].payload for message in batch.messages] in ([], [False])
