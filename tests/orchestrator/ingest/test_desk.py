"""The desk: floods are counted and dropped, everything else is answered on the claim's own topic."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import pytest

from orchestrator.fleet.admission import Admission
from orchestrator.ingest.desk import RENEWALS_PER_MINUTE, Desk
from orchestrator.storage import renewals
from protocol.enrolment import ClaimAnswer
from protocol.envelopes import decode
from protocol.mqtt.connection import Message, Session
from protocol.topics import RULES, Kind, Topics
from tests.orchestrator.fleet.asking import CLAIM, FLEET, Keys, Office, claim_request, open_office, signed_renewal
from tests.orchestrator.fleet.test_renewal import add_device

TOPICS = Topics(FLEET)
REQUEST = TOPICS.build(Kind.ENROL_REQUEST, claim=CLAIM)


class Counter:
    """Stands where the connection stands, and remembers what was said."""

    def __init__(self, office: Office) -> None:
        self.office = office
        self.said: list[tuple[str, ClaimAnswer]] = []
        self.changed: list[str] = []
        self.woken = 0
        admission = Admission(office.db, office.home, office.settings, office.clock, self.changed.append)
        self.desk = Desk(
            office.db, office.home, office.settings, office.clock, admission, self._wake, self.changed.append
        )

    def _wake(self) -> None:
        self.woken += 1

    async def publish(self, topic: str, payload: bytes, *, qos: int = 1, retain: bool = False) -> None:
        """An answer; never retained."""
        assert not retain and len(payload) <= RULES[Kind.ENROL_ANSWER].max_bytes
        self.said.append((topic, decode(payload, ClaimAnswer)))

    async def take(self, topic: str, payload: bytes) -> None:
        """A message arrives."""
        await self.desk.take(cast(Session, cast(Any, self)), Message(topic, payload, False, 1))


@pytest.fixture
async def counter(tmp_path: Path) -> AsyncIterator[Counter]:
    """A desk over an empty database."""
    office = await open_office(tmp_path)
    yield Counter(office)
    await office.db.close()


async def test_a_request_is_answered_on_its_claims_topic(counter: Counter) -> None:
    """With a certificate, or with why there is none."""
    await counter.office.claim("SN-1")
    await counter.take(REQUEST, claim_request(Keys()))
    await counter.take(REQUEST, claim_request(Keys(), "SN-2"))
    assert [topic for topic, _ in counter.said] == [TOPICS.build(Kind.ENROL_ANSWER, claim=CLAIM)] * 2
    assert [answer.status for _, answer in counter.said] == ["issued", "refused"]
    assert (counter.changed, counter.woken) == (["dev-SN-1"], 1)


async def test_a_flood_of_one_claim_is_dropped_and_costs_no_other(counter: Counter) -> None:
    """Beyond its rate nothing is parsed or answered; another claim's device still comes in."""
    await counter.office.claim("SN-1", per_minute=5)
    await counter.office.claim("SN-2", name="claim.quiet")
    for _ in range(50):
        await counter.take(REQUEST, claim_request(Keys(), "SN-9"))
    assert len(counter.said) == 5
    assert counter.desk.rejects.counts["rate"] == 45
    quiet = TOPICS.build(Kind.ENROL_REQUEST, claim="claim.quiet")
    await counter.take(quiet, claim_request(Keys(), "SN-2", claim="claim.quiet"))
    assert counter.said[-1][1].status == "issued"


@pytest.mark.parametrize(
    ("topic", "payload", "reason"),
    [
        (REQUEST, b"x" * 16_385, "E_OVERSIZE"),
        (REQUEST, b"x", "E_FORMAT"),
        (REQUEST, claim_request(Keys(), claim="claim.other"), "E_SCOPE"),
        (TOPICS.build(Kind.RENEW, device="d1"), b"x" * 16_385, "E_OVERSIZE"),
        (TOPICS.build(Kind.RENEW, device="nobody"), b"x", "E_SCOPE"),
        (TOPICS.build(Kind.RENEW, device="d1"), signed_renewal("d1", Keys(), Keys()), "E_SIGNATURE"),
        (TOPICS.build(Kind.STATE, device="d1"), b"x", "E_SCOPE"),
        ("elsewhere", b"x", "E_SCOPE"),
    ],
)
async def test_what_is_wrong_is_counted_and_not_answered(
    counter: Counter, topic: str, payload: bytes, reason: str
) -> None:
    """Nothing that anybody sends ends the desk."""
    await counter.office.claim("SN-1")
    await add_device(counter.office, Keys())
    await counter.take(topic, payload)
    assert counter.said == []
    assert counter.desk.rejects.counts == {reason: 1}


async def test_a_renewal_is_taken_from_its_own_device_alone(counter: Counter) -> None:
    """Signed by its present key, on its own topic, and not too often."""
    old, new = Keys(), Keys()
    await add_device(counter.office, old)
    await add_device(counter.office, Keys(), "d2")
    raw = signed_renewal("d1", old, new)
    await counter.take(TOPICS.build(Kind.RENEW, device="d2"), raw)
    assert counter.desk.rejects.counts == {"E_SIGNATURE": 1}
    for _ in range(RENEWALS_PER_MINUTE + 3):
        await counter.take(TOPICS.build(Kind.RENEW, device="d1"), raw)
    assert counter.desk.rejects.counts["rate"] == 3
    assert set(counter.changed) == {"d1"}
    async with counter.office.db.read() as conn:
        assert await renewals.get(conn, "d2") is None
        assert await renewals.get(conn, "d1") is not None


async def test_a_ca_that_does_not_issue_costs_no_answer(counter: Counter) -> None:
    """The device hears nothing and asks again; the desk goes on."""
    await counter.office.claim("SN-1")
    key = counter.office.home.ca / "devices-ca.key"
    moved = key.rename(key.with_suffix(".away"))
    raw = claim_request(Keys())
    await counter.take(REQUEST, raw)
    assert counter.said == [] and counter.desk.rejects.counts == {"not issued": 1}
    moved.rename(key)
    await counter.take(REQUEST, raw)
    assert counter.said[0][1].status == "issued"
