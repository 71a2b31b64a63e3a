"""Delivery on a real broker: what the database says is what the broker retains, whatever happened in between."""

import asyncio
import base64
import os
import signal
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import func, select, update

from orchestrator.errors import ConflictError, NotFoundError, OperationError
from orchestrator.model.rollout import RolloutState
from orchestrator.storage import dirty, fleet_latch, published
from orchestrator.storage.fleet_latch import FleetLatch
from orchestrator.storage.tables import assignments, releases, rollouts
from orchestrator.storage.tables import dirty as dirty_table
from orchestrator.storage.tables import published as published_table
from protocol.directives import ANNOUNCEMENT_TYPE, OFFER_TYPE, Action, Announcement, Grant, Offer
from protocol.encryption import unwrap_key
from protocol.envelopes import decode, open_envelope
from protocol.status_messages import RolloutStatus, Sync
from protocol.topics import RULES, Kind
from protocol.trust.bundle import unpack_bundle
from protocol.trust.trusted import Trusted
from protocol.trust.workflow import TrustStore
from tests.orchestrator.delivery.lab import CEK, DEADLINE_S, FLEET, RELEASE, Lab, until


async def _empty(lab: Lab) -> bool:
    async with lab.db.read() as conn:
        return not await conn.scalar(select(func.count()).select_from(dirty_table))


async def _marked(lab: Lab) -> bool:
    """Whether the broker's marker says that it has everything."""
    async with lab.db.read() as conn:
        last = await published.last_serial(conn, "main")
    raw = await lab.retained(lab.topics.build(Kind.STATUS_SYNC))
    return raw is not None and decode(raw, Sync).serial == last


async def _trusted(lab: Lab, directory: Path) -> Trusted:
    """What a device makes of the trust topics."""
    files = unpack_bundle(await lab.retained(lab.topics.build(Kind.TRUST_BUNDLE)) or b"")
    files["timestamp.json"] = await lab.retained(lab.topics.build(Kind.TRUST_TIMESTAMP)) or b""
    root = await lab.retained(lab.topics.build(Kind.TRUST_ROOT, n="1")) or b""
    return TrustStore(directory, root).refresh(files, datetime.now(UTC))


async def _offer(lab: Lab, device: str, trusted: Trusted) -> Offer | None:
    raw = await lab.retained(lab.topics.build(Kind.OFFER, device=device, rollout="r-1"))
    if not raw:
        return None
    verify = trusted.verify_director(FLEET)
    return open_envelope(raw, RULES[Kind.OFFER].max_bytes, OFFER_TYPE, verify, Offer)[0]


async def _announcement(lab: Lab, trusted: Trusted) -> Announcement | None:
    raw = await lab.retained(lab.topics.build(Kind.ANNOUNCE, rollout="r-1"))
    if not raw:
        return None
    verify = trusted.verify_director(FLEET)
    return open_envelope(raw, RULES[Kind.ANNOUNCE].max_bytes, ANNOUNCEMENT_TYPE, verify, Announcement)[0]


async def test_a_release_is_published_once_and_proven(lab: Lab) -> None:
    """Every chunk is retained as it stands in the store; publishing again sends nothing."""
    chunks = [os.urandom(1000 + n) for n in range(40)] + [os.urandom(262_000)]
    await lab.add_release(chunks)
    async with lab.running() as delivery:
        assert await delivery.publish_release(RELEASE) == sum(map(len, chunks))
        assert await delivery.publish_release(RELEASE) == 0
        for data in (chunks[0], chunks[-1]):
            assert await lab.retained(lab.topics.build(Kind.CHUNK, cid=lab.put(data))) == data
    async with lab.db.read() as conn:
        row = (await conn.execute(select(releases))).one()
    assert (row.state, row.published_bytes) == ("published", sum(map(len, chunks)))


async def test_trust_metadata_verifies_from_the_topics(lab: Lab, tmp_path: Path) -> None:
    """A device that has only what the topics hold verifies it with python-tuf."""
    await lab.add_release([b"x"])
    async with lab.running() as delivery:
        await delivery.publish_release(RELEASE)
        trusted = await _trusted(lab, tmp_path / "device")
    assert trusted.timestamp_expires > datetime.now(UTC) + timedelta(days=6)


async def test_what_is_marked_is_signed_and_retained(lab: Lab, tmp_path: Path) -> None:
    """An announcement and an offer, signed by the director that the offline keys list, with this device's key."""
    await lab.add_release([])
    await lab.add_rollout(["dev1"])
    async with lab.running():
        await until(lambda: _empty(lab), "no marks left")
        trusted = await _trusted(lab, tmp_path / "device")
        announcement, offer = await _announcement(lab, trusted), await _offer(lab, "dev1", trusted)
    assert announcement is not None and announcement.action is Action.INSTALL
    assert offer is not None and (offer.grant, offer.device, offer.attempt) == (Grant.DOWNLOAD, "dev1", 1)
    wrapped = base64.b64decode(offer.key_wrap or "")
    assert unwrap_key(wrapped, lab.content_key, release=offer.release.sha256, device="dev1") == CEK


@pytest.mark.parametrize("what", ["rollout", "fleet"])
async def test_nothing_is_offered_after_the_barrier_of_a_halt(lab: Lab, what: str) -> None:
    """When the barrier has passed, the offers on the broker are all that there ever will be."""
    names = [f"dev{n}" for n in range(400)]
    await lab.add_release([])
    await lab.add_rollout(names)
    async with lab.observer([(lab.topics.filter(Kind.OFFER), 1)]) as observer, lab.running() as delivery:
        async for _ in observer.messages():
            break  # offers are flowing
        async with lab.db.begin() as conn:
            if what == "fleet":
                await fleet_latch.set_latch(conn, FleetLatch(datetime.now(UTC), "ann", "smoke"))
            else:
                await conn.execute(update(rollouts).values(state=RolloutState.HALTED))
            await dirty.mark(conn, Kind.ANNOUNCE, ["r-1"], datetime.now(UTC))
        await delivery.barrier()
        async with lab.db.read() as conn:
            offered = set(await conn.scalars(select(published_table.c.topic).where(published_table.c.kind == "OFFER")))
        await until(lambda: _empty(lab), "no marks left")
        async with lab.db.read() as conn:
            later = set(await conn.scalars(select(published_table.c.topic).where(published_table.c.kind == "OFFER")))
        assert 0 < len(offered) < len(names), "the halt came in between"
        assert later == offered
        await asyncio.sleep(0)
        assert {message.topic for message in observer.drain()} <= offered


async def test_what_a_halt_kept_back_is_offered_after_the_resume(lab: Lab) -> None:
    """The offer whose first sending the halt stopped goes out once the rollout is announced again."""
    await lab.add_release([])
    await lab.add_rollout(["dev1"], RolloutState.HALTED)
    topic = lab.topics.build(Kind.OFFER, device="dev1", rollout="r-1")
    async with lab.running() as delivery:
        await until(lambda: _empty(lab), "no marks left")
        assert await lab.retained(topic) is None
        async with lab.db.begin() as conn:
            await conn.execute(update(rollouts).values(state=RolloutState.RUNNING, reason="mended"))
            await dirty.mark(conn, Kind.ANNOUNCE, ["r-1"], datetime.now(UTC))
        delivery.wake()

        async def offered() -> bool:
            return await lab.retained(topic) is not None

        await until(offered, "the offer")


async def test_a_wiped_broker_is_made_right_again(lab: Lab, tmp_path: Path) -> None:
    """Killed, its database deleted, started again: chunks, trust, announcement and offer are all there, later ones."""
    chunks = [os.urandom(5000) for _ in range(20)]
    await lab.add_release(chunks)
    await lab.add_rollout(["dev1"])
    cid = lab.put(chunks[7])
    async with lab.running() as delivery:
        await delivery.publish_release(RELEASE)
        await until(lambda: _empty(lab), "no marks left")
        trusted = await _trusted(lab, tmp_path / "device")
        before = await _offer(lab, "dev1", trusted)
        process = lab.broker.process
        assert process is not None and before is not None
        os.kill(process.pid, signal.SIGKILL)
        await process.wait()
        (lab.home.broker / "retained.db").unlink(missing_ok=True)

        async def restarted() -> bool:
            return lab.broker.process is not process and delivery.connected

        await until(restarted, "a new broker")
        await lab.broker.ready()

        async def healed() -> bool:
            return await lab.retained(lab.topics.build(Kind.CHUNK, cid=cid)) == chunks[7]

        await until(healed, "the chunk")
        await until(lambda: _empty(lab), "no marks left")
        trusted = await _trusted(lab, tmp_path / "other")
        after = await _offer(lab, "dev1", trusted)
        assert await _announcement(lab, trusted) is not None
    assert after is not None and after.order > before.order


async def test_a_wanted_chunk_is_there_before_the_rest_of_a_wiped_broker(lab: Lab) -> None:
    """Healing is slow here, so that only the want explains it."""
    slow = lab.settings.broker.model_copy(update={"repair_bytes_s": 1.0})
    lab.settings = lab.settings.model_copy(update={"broker": slow})
    chunks = sorted((os.urandom(60_000) for _ in range(200)), key=lab.put)
    await lab.add_release(chunks)
    async with lab.running() as delivery:
        await delivery.publish_release(RELEASE)
        process = lab.broker.process
        assert process is not None
        os.kill(process.pid, signal.SIGKILL)
        await process.wait()
        (lab.home.broker / "retained.db").unlink(missing_ok=True)

        async def restarted() -> bool:
            return lab.broker.process is not process and delivery.connected

        await until(restarted, "a new broker")
        await lab.broker.ready()
        delivery.want([lab.put(chunks[-1])])

        async def there() -> bool:
            return await lab.retained(lab.topics.build(Kind.CHUNK, cid=lab.put(chunks[-1]))) == chunks[-1]

        await until(there, "the wanted chunk")
        others = [lab.topics.build(Kind.CHUNK, cid=lab.put(data)) for data in chunks[:-1:25]]
        assert None in [await lab.retained(topic) for topic in others]


async def test_a_broker_that_kept_its_state_gets_nothing_twice(lab: Lab) -> None:
    """After a reconnect to a broker whose marker is right, nothing is published again."""
    await lab.add_release([os.urandom(100)])
    await lab.add_rollout(["dev1"])
    async with lab.running() as delivery:
        await delivery.publish_release(RELEASE)
        await until(lambda: _empty(lab), "no marks left")
        await until(lambda: _marked(lab), "the marker")
    async with lab.observer([(lab.topics.filter(Kind.OFFER), 1), (lab.topics.filter(Kind.CHUNK), 1)]) as observer:
        async with lab.running() as delivery:

            async def connected() -> bool:
                return delivery.connected

            await until(connected, "a connection")
            await until(lambda: _empty(lab), "no marks left")
        assert [m.topic for m in observer.drain() if not m.retain] == []


async def test_a_closed_offer_is_cleared_when_all_that_was_signed_has_expired(lab: Lab) -> None:
    """An offer topic that is closed and long expired is emptied and forgotten."""
    await lab.add_release([])
    await lab.add_rollout(["dev1"])
    topic = lab.topics.build(Kind.OFFER, device="dev1", rollout="r-1")
    async with lab.running():
        await until(lambda: _empty(lab), "no marks left")
        await until(lambda: _marked(lab), "the marker")
        assert await lab.retained(topic)
    async with lab.db.begin() as conn:
        await conn.execute(update(assignments).values(grant="closed", nonce="n" * 8))
        long_ago = datetime.now(UTC) - timedelta(hours=1)
        await conn.execute(update(published_table).where(published_table.c.topic == topic).values(expires=long_ago))
    async with lab.running():

        async def cleared() -> bool:
            async with lab.db.read() as conn:
                return await published.get(conn, "main", topic) is None

        await until(cleared, "the topic is forgotten")
        assert await lab.retained(topic) is None


async def test_status_topics_follow_their_marks(lab: Lab) -> None:
    """A marked rollout shows on its status topic."""
    await lab.add_release([])
    await lab.add_rollout(["dev1"])
    async with lab.db.begin() as conn:
        for kind, key in ((Kind.STATUS_ROLLOUT, "r-1"), (Kind.STATUS_FLEET, ""), (Kind.STATUS_DEVICE, "dev1")):
            await dirty.mark(conn, kind, [key], datetime.now(UTC))
    async with lab.running():
        await until(lambda: _empty(lab), "no marks left")
        async with lab.db.read() as conn:
            for kind, values in ((Kind.STATUS_FLEET, {}), (Kind.STATUS_DEVICE, {"device": "dev1"})):
                assert await published.get(conn, "main", lab.topics.build(kind, **values))
        raw = await lab.retained(lab.topics.build(Kind.STATUS_ROLLOUT, rollout="r-1"), "viewer")
    assert raw is not None
    assert decode(raw, RolloutStatus).state == RolloutState.RUNNING


async def test_a_restored_signer_refuses_to_go_on(lab: Lab) -> None:
    """When more was published than the signer's marks know, delivery ends with one sentence."""
    await lab.add_release([])
    await lab.add_rollout(["dev1"])
    async with lab.running():
        await until(lambda: _empty(lab), "no marks left")
    async with lab.db.begin() as conn:
        await published.note_order(conn, (1, 5000))
    with pytest.raises(ConflictError, match="old copy"):
        async with asyncio.timeout(DEADLINE_S):
            await lab.delivery().run()


async def test_what_cannot_be_published_is_one_sentence(lab: Lab) -> None:
    """An unknown release and a lost chunk are named."""
    await lab.add_release([b"a chunk"])
    async with lab.running() as delivery:
        with pytest.raises(NotFoundError, match="gateway/9"):
            await delivery.publish_release("gateway/9")
        lab.chunks.remove([lab.put(b"a chunk")])
        with pytest.raises(OperationError, match="chunk store"):
            await delivery.publish_release(RELEASE)
