"""From marks to signed messages: whose key, whose release, and what is left out."""

import base64
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from structlog.testing import capture_logs

from orchestrator.delivery.directives import Directives, Rows
from orchestrator.model.assignment import Assignment
from orchestrator.model.plan import RolloutSpec, StageSpec
from orchestrator.model.rollout import Rollout, RolloutState
from orchestrator.signer.keys import load_signer
from orchestrator.storage import releases
from orchestrator.storage.releases import ReleaseFacts
from protocol.directives import ANNOUNCEMENT_TYPE, OFFER_TYPE, Announcement, Grant, Offer, ReleaseRef
from protocol.encryption import unwrap_key
from protocol.envelopes import open_envelope, verify_with
from protocol.topics import RULES, Kind
from tests.orchestrator.delivery.lab import CEK, FLEET, RELEASE, Lab

NOW = datetime.now(UTC)
SPEC = RolloutSpec(release=RELEASE, stages=[StageSpec(name="all", percent=100)])
ROLLOUT = Rollout(id="r-1", release=RELEASE, state=RolloutState.RUNNING, spec=SPEC, created_at=NOW)


async def rows(lab: Lab, *names: str, **changes: Any) -> Rows:
    """Devices that have the same content key, each with an open download grant."""
    await lab.add_release([])
    async with lab.db.read() as conn:
        directives = Directives(lab.topics, lab.settings, lab.signer)
        empty = await directives.load(conn, "main", [])
        facts = await releases.release_facts(conn, [RELEASE])
    key = base64.b64encode(lab.content_key.public_key().public_bytes_raw()).decode()
    found = {
        ("r-1", name): Assignment(
            rollout="r-1", device=name, stage=0, place=0, state="offered", grant="download", offered_at=NOW
        )
        for name in names
    }
    filled = Rows({"r-1": ROLLOUT}, facts, found, dict.fromkeys(names, key), empty.held)
    return replace(filled, **changes)


def offer_marks(*names: str) -> list[tuple[Kind, str, datetime]]:
    """Marks of these devices' offers."""
    return [(Kind.OFFER, f"{name}/r-1", NOW) for name in names]


def opened(lab: Lab, payload: bytes) -> Offer:
    """An offer, its signature checked."""
    verify = verify_with(load_signer(lab.home.signer / "director.key").public_key)
    return open_envelope(payload, RULES[Kind.OFFER].max_bytes, OFFER_TYPE, verify, Offer)[0]


async def test_two_devices_with_one_content_key_get_each_its_own_wrap(lab: Lab) -> None:
    """A device that was enrolled with another's content key cannot take the wrap that was made for it.

    A wrap binds the device: what was made for one opens on no other, so handing it on would end the other's updates.
    """
    directives = Directives(lab.topics, lab.settings, lab.signer)
    found = await rows(lab, "dev1", "dev2")
    signed = await directives.sign(directives.draft(offer_marks("dev1", "dev2"), found, NOW), found, NOW)
    offers = [opened(lab, item.payload) for item in signed.messages]
    assert [offer.device for offer in offers] == ["dev1", "dev2"]
    for offer in offers:
        wrapped = base64.b64decode(offer.key_wrap or "")
        assert unwrap_key(wrapped, lab.content_key, release=offer.release.sha256, device=offer.device) == CEK


async def test_a_wrap_is_made_once(lab: Lab) -> None:
    """The second offer of a device carries the same wrap: HPKE is what costs."""
    directives = Directives(lab.topics, lab.settings, lab.signer)
    found = await rows(lab, "dev1")
    batches = [await directives.sign(directives.draft(offer_marks("dev1"), found, NOW), found, NOW) for _ in range(2)]
    twice = [opened(lab, batch.messages[0].payload) for batch in batches]
    assert twice[0].key_wrap == twice[1].key_wrap
    assert twice[0].order < twice[1].order


async def test_a_closed_offer_carries_no_key(lab: Lab) -> None:
    """Who is done gets nothing that it could still open."""
    directives = Directives(lab.topics, lab.settings, lab.signer)
    found = await rows(lab, "dev1")
    closed = replace(found.assignments["r-1", "dev1"], grant="closed", state="failed", nonce="n" * 8)
    found.assignments["r-1", "dev1"] = closed
    (signed,) = (await directives.sign(directives.draft(offer_marks("dev1"), found, NOW), found, NOW)).messages
    offer = opened(lab, signed.payload)
    assert (offer.grant, offer.key_wrap) == (Grant.CLOSED, None)
    assert signed.expires == offer.expires


@pytest.mark.parametrize(
    "gone",
    [{"content_keys": {}}, {"assignments": {}}, {"rollouts": {}}, {"releases": {}}],
    ids=["revoked device", "no member", "no rollout", "no release"],
)
async def test_what_has_no_row_gets_no_offer(lab: Lab, gone: dict[str, Any]) -> None:
    """A revoked device has no key here: nothing is signed for it."""
    directives = Directives(lab.topics, lab.settings, lab.signer)
    found = await rows(lab, "dev1", **gone)
    assert directives.draft(offer_marks("dev1"), found, NOW) == []


async def test_one_that_cannot_be_signed_keeps_nobody_waiting(lab: Lab) -> None:
    """A content key that is none is logged, without the key; the next device's offer is signed."""
    directives = Directives(lab.topics, lab.settings, lab.signer)
    found = await rows(lab, "dev1", "dev2")
    found.content_keys["dev1"] = "not a key"
    with capture_logs() as lines:
        signed = await directives.sign(directives.draft(offer_marks("dev1", "dev2"), found, NOW), found, NOW)
    assert [item.topic for item in signed.messages] == [lab.topics.build(Kind.OFFER, device="dev2", rollout="r-1")]
    assert "dev1" in lines[0]["why"]
    assert "not a key" not in str(lines)


async def test_a_foreign_content_key_of_a_release_is_one_line(lab: Lab) -> None:
    """The package key was replaced: no offer is signed, an announcement still is."""
    directives = Directives(lab.topics, lab.settings, lab.signer)
    ref = ReleaseRef(path=f"{RELEASE}/manifest", length=1, sha256="1" * 64, counter=1)
    found = await rows(lab, "dev1", releases={RELEASE: ReleaseFacts(ref, b"garbage", "published")})
    marks = [(Kind.ANNOUNCE, "r-1", NOW), *offer_marks("dev1")]
    (signed,) = (await directives.sign(directives.draft(marks, found, NOW), found, NOW)).messages
    verify = verify_with(load_signer(lab.home.signer / "director.key").public_key)
    message, _ = open_envelope(signed.payload, RULES[Kind.ANNOUNCE].max_bytes, ANNOUNCEMENT_TYPE, verify, Announcement)
    assert (message.rollout, message.fleet) == ("r-1", FLEET)


async def test_an_offer_that_was_sent_before_is_drafted_in_a_halt(lab: Lab) -> None:
    """A halt stops first offers; who has one is still told what was heard."""
    directives = Directives(lab.topics, lab.settings, lab.signer)
    halted = {"rollouts": {"r-1": replace(ROLLOUT, state=RolloutState.HALTED)}}
    found = await rows(lab, "dev1", "dev2", **halted)
    topic = lab.topics.build(Kind.OFFER, device="dev1", rollout="r-1")
    found.held.add(topic)
    drafted = directives.draft(offer_marks("dev1", "dev2"), found, NOW)
    assert [item.topic for item in drafted] == [topic]


@pytest.mark.parametrize("key", ["", "a", "a/b/c", "a//b", "a/+"])
async def test_a_mark_that_fits_no_topic_is_a_mistake_of_ours(lab: Lab, key: str) -> None:
    """It never becomes a topic."""
    with pytest.raises(ValueError, match=r"not a directive|expected 1 to 64"):
        Directives(lab.topics, lab.settings, lab.signer).topic_of(Kind.OFFER, key)
