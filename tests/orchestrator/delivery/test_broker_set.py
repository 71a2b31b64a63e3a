"""Two real brokers, one of them somebody else's: each is made right, and none holds up the other."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import update

from orchestrator.delivery.broker_set import LATE, BrokerSet
from orchestrator.delivery.delivery import Delivery, Shared
from orchestrator.delivery.signed_once import SignedOnce
from orchestrator.delivery.signer_watch import SignerWatch
from orchestrator.errors import OperationError
from orchestrator.model.rollout import RolloutState
from orchestrator.storage import brokers, chunk_keeping, dirty, published, removals
from orchestrator.storage.tables import assignments
from orchestrator.storage.tables import published as published_table
from protocol.clock import SystemClock
from protocol.directives import ANNOUNCEMENT_TYPE, Action, Announcement
from protocol.envelopes import decode, parse
from protocol.status_messages import RolloutStatus, Sync
from protocol.topics import RULES, Kind
from tests.orchestrator.delivery.lab import RELEASE, Lab, until
from tests.orchestrator.delivery.second_broker import NAME, SecondBroker
from tests.orchestrator.rollouts import ordering

LONG_AGO = datetime.now(UTC) - timedelta(hours=1)
DEVICES = ["dev1", "dev2"]
SOON_S = 1.0


@dataclass
class Two:
    """A lab whose settings name a second broker, which runs; deliveries run within ``delivering``."""

    lab: Lab
    other: SecondBroker

    @property
    def there(self) -> Lab:
        """The lab as the second broker sees it."""
        return replace(self.lab, settings=self.lab.settings.for_broker(self.other.settings))

    @contextlib.asynccontextmanager
    async def delivering(self) -> AsyncIterator[BrokerSet]:
        """The deliveries of both."""
        lab, settings, clock = self.lab, self.lab.settings, SystemClock()
        names = [broker.name for broker in settings.all_brokers]
        await brokers.use(lab.db, names, lab.topics, clock.now())
        shared = Shared(SignerWatch(lab.db, lab.home, lab.signer, clock), SignedOnce(names))
        each = [
            Delivery(lab.db, lab.home, settings.for_broker(one), lab.signer, lab.chunks, clock, shared=shared)
            for one in settings.all_brokers
        ]
        tasks = [asyncio.create_task(delivery.run()) for delivery in each]
        try:
            yield BrokerSet(lab.db, each, settings.timing, clock)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def is_right(self, name: str) -> bool:
        """Whether a broker has everything that it is to have, as far as rows and its marker say."""
        async with self.lab.db.read() as conn:
            if (await dirty.count(conn)).get(name) or (await brokers.all_lacking(conn)).get(name):
                return False
            last = await published.last_serial(conn, name)
        lab = self.lab if name == "main" else self.there
        raw = await lab.retained(lab.topics.build(Kind.STATUS_SYNC))
        return raw is not None and decode(raw, Sync).serial == last

    async def both_right(self) -> None:
        """Wait until both are."""
        await until(lambda: self.is_right("main"), "the first broker is right")
        await until(lambda: self.is_right(NAME), "the second broker is right")

    async def signed(self, lab: Lab) -> dict[str, bytes | None]:
        """What a broker retains of the rollout's announcement and offers."""
        topics = [lab.topics.build(Kind.ANNOUNCE, rollout="r-1")]
        topics += [lab.topics.build(Kind.OFFER, device=name, rollout="r-1") for name in DEVICES]
        return {topic: await lab.retained(topic) for topic in topics}


@pytest.fixture
async def two(lab: Lab, tmp_path: Path) -> AsyncIterator[Two]:
    """Two running brokers; a release and a rollout over two devices that nobody was told of yet."""
    other = SecondBroker(lab.home, tmp_path / "second", lab.settings.fleet)
    timing = lab.settings.timing.model_copy(update={"barrier_wait_s": SOON_S, "publish_wait_s": SOON_S})
    lab.settings = lab.settings.model_copy(update={"brokers": [other.settings], "timing": timing})
    await other.start()
    await lab.add_release([os.urandom(5000) for _ in range(20)])
    await lab.add_rollout(DEVICES)
    try:
        yield Two(lab, other)
    finally:
        await other.end()


async def _halt(lab: Lab, delivery: BrokerSet) -> list[str]:
    cut: list[str] = []

    async def barrier() -> None:
        cut.extend(await delivery.barrier())

    await ordering.halt(lab.db, SystemClock(), "r-1", "smoke", barrier=barrier)
    delivery.wake()
    return cut


async def _close_and_expire(lab: Lab, device: str) -> str:
    """A device's offer is closed, and all that was signed for it has expired long ago."""
    topic = lab.topics.build(Kind.OFFER, device=device, rollout="r-1")
    async with lab.db.begin() as conn:
        await conn.execute(update(assignments).where(assignments.c.device == device).values(grant="closed"))
        await conn.execute(update(published_table).where(published_table.c.topic == topic).values(expires=LONG_AGO))
    return topic


def _action(raw: bytes | None) -> Action:
    assert raw
    return decode(parse(raw, RULES[Kind.ANNOUNCE].max_bytes, ANNOUNCEMENT_TYPE).payload, Announcement).action


async def _state(lab: Lab, topic: str) -> str:
    raw = await lab.retained(topic, "viewer")
    assert raw
    return decode(raw, RolloutStatus).state


async def test_both_get_the_same_bytes_and_everything_is_signed_once(two: Two) -> None:
    """A device that changes brokers meets no other order for the same thing."""
    async with two.delivering() as delivery:
        assert (await delivery.publish_release(RELEASE)).behind == {}
        delivery.wake()
        await two.both_right()
        here, there = await two.signed(two.lab), await two.signed(two.there)
        assert None not in here.values()
        assert here == there
        bundle = two.lab.topics.build(Kind.TRUST_BUNDLE)
        assert await two.lab.retained(bundle) == await two.there.retained(bundle) is not None
        async with two.lab.db.read() as conn:
            _, seq = await published.highest_order(conn)
        assert seq == len(here)


async def test_what_a_broker_missed_is_made_right_when_it_returns(two: Two) -> None:
    """It was down while a release was published, offers went out and topics were cleared; the other did not wait."""
    async with two.delivering() as delivery:
        await two.both_right()
        await two.other.end()
        sent = await delivery.publish_release(RELEASE)
        assert sent.sent_bytes == 20 * 5000
        assert list(sent.behind) == [NAME]
        assert str(two.other.settings.service_port) in sent.behind[NAME]
        gone = await _close_and_expire(two.lab, "dev1")
        async with two.lab.db.begin() as conn:
            await dirty.mark(conn, Kind.OFFER, ["dev2/r-1"], datetime.now(UTC))
        delivery.wake()
        await until(lambda: two.is_right("main"), "the first broker")
        behind = {broker.name: broker for broker in await delivery.standing()}
        assert not behind[NAME].connected and behind[NAME].releases == [RELEASE] and behind[NAME].topics
        assert behind["main"].connected and behind["main"].releases == [] and behind["main"].topics == 0
        await two.other.start()
        await two.both_right()
    async with two.delivering():  # the upkeep of a new connection comes at once

        async def cleared() -> bool:
            async with two.lab.db.read() as conn:
                return [await published.get(conn, name, gone) for name in ("main", NAME)] == [None, None]

        await until(cleared, "the topic is cleared on both")
        await two.both_right()
        here, there = await two.signed(two.lab), await two.signed(two.there)
        assert here == there
        assert here[gone] is None
        assert await two.there.retained(two.lab.topics.build(Kind.CHUNK, cid=await _some_chunk(two.lab)))


async def _some_chunk(lab: Lab) -> str:
    async with lab.db.read() as conn:
        return (await chunk_keeping.missing_page(conn, "nobody", "", RELEASE))[0][0]


async def test_a_broker_with_an_old_file_forgets_what_was_cleared_and_halted_since(two: Two) -> None:
    """Its old announcement and offers are replaced by the newest bytes; topics that are known no more are cleared."""
    async with two.lab.db.begin() as conn:
        await dirty.mark(conn, Kind.STATUS_ROLLOUT, ["r-1"], datetime.now(UTC))
    async with two.delivering() as delivery:
        await two.both_right()
        await two.other.end()
        two.other.keep_file()
        await two.other.start()
        await two.both_right()
        await delivery.publish_release(RELEASE)
        assert await _halt(two.lab, delivery) == []
        await two.both_right()
        gone = await _close_and_expire(two.lab, "dev1")
    async with two.delivering():

        async def cleared() -> bool:
            async with two.lab.db.read() as conn:
                return bool(await removals.later(conn, NAME, after=0, limit=10))

        await until(cleared, "the topic is cleared on the second")
        await two.both_right()
    await two.other.end()
    two.other.put_file_back()
    await two.other.start()
    old = await two.signed(two.there)
    assert old[gone] is not None
    assert _action(old[two.lab.topics.build(Kind.ANNOUNCE, rollout="r-1")]) is Action.INSTALL
    status = two.lab.topics.build(Kind.STATUS_ROLLOUT, rollout="r-1")
    assert await _state(two.there, status) == RolloutState.RUNNING
    async with two.delivering():
        await two.both_right()
        here, there = await two.signed(two.lab), await two.signed(two.there)
        assert _action(there[two.lab.topics.build(Kind.ANNOUNCE, rollout="r-1")]) is Action.HOLD
        assert there[gone] is None
        assert await _state(two.there, status) == RolloutState.HALTED
        announce = two.lab.topics.build(Kind.ANNOUNCE, rollout="r-1")
        assert here[announce] == there[announce]
        assert await two.there.retained(two.lab.topics.build(Kind.CHUNK, cid=await _some_chunk(two.lab)))


async def test_a_halt_does_not_wait_for_a_broker_that_hangs(two: Two) -> None:
    """Its connection is cut, its name is the answer; what was to be sent to it is sent as the halt wants it."""
    async with two.delivering() as delivery:
        await two.both_right()
        two.other.freeze()
        async with two.lab.db.begin() as conn:
            await dirty.mark(conn, Kind.OFFER, [f"{name}/r-1" for name in DEVICES], datetime.now(UTC))
        delivery.wake()
        await until(lambda: two.is_right("main"), "the first broker")
        async with asyncio.timeout(SOON_S + 4):
            assert await _halt(two.lab, delivery) == [NAME]
        await until(lambda: two.is_right("main"), "the first broker")
        announce = two.lab.topics.build(Kind.ANNOUNCE, rollout="r-1")
        assert _action(await two.lab.retained(announce)) is Action.HOLD
        two.other.thaw()
        await two.both_right()
        assert await two.there.retained(announce) == await two.lab.retained(announce)


async def test_a_delivery_whose_connection_was_cut_still_ends_when_it_is_told_to(two: Two) -> None:
    """A cut that came when the connection had ended already is not taken for the end of serve."""
    async with asyncio.timeout(30), two.delivering() as delivery:
        await two.both_right()
        delivery.deliveries[1]._cut = True


async def test_a_publish_does_not_wait_for_a_broker_that_hangs(two: Two) -> None:
    """It is named as late; when it goes on, it gets the release over the connection that it has."""
    async with two.delivering() as delivery:
        await two.both_right()
        two.other.freeze()
        assert (await delivery.publish_release(RELEASE)).behind == {NAME: LATE}
        two.other.thaw()
        await two.both_right()
        assert await two.there.retained(two.lab.topics.build(Kind.CHUNK, cid=await _some_chunk(two.lab)))


async def test_nobody_has_it_is_one_sentence_and_nothing_comes_later(two: Two) -> None:
    """A release that no broker could take is refused, and no broker is behind with it."""
    small = two.lab.settings.broker.model_copy(update={"max_retained_bytes": 1000})
    full = two.other.settings.model_copy(update={"max_retained_bytes": 1000})
    two.lab.settings = two.lab.settings.model_copy(update={"broker": small, "brokers": [full]})
    async with two.delivering() as delivery:
        await two.both_right()
        with pytest.raises(OperationError, match=r"broker main: release gateway/1\.1\.0 needs"):
            await delivery.publish_release(RELEASE)
        assert [broker.releases for broker in await delivery.standing()] == [[], []]


async def test_a_broker_that_joins_gets_what_the_others_have(two: Two) -> None:
    """Announcement, offers and chunks under the orders that they have; one that leaves is forgotten."""
    two.lab.settings = two.lab.settings.model_copy(update={"brokers": []})
    async with two.delivering() as delivery:
        await delivery.publish_release(RELEASE)
        await until(lambda: two.is_right("main"), "the first broker")
    two.lab.settings = two.lab.settings.model_copy(update={"brokers": [two.other.settings]})
    async with two.delivering():
        await two.both_right()
        here, there = await two.signed(two.lab), await two.signed(two.there)
        assert here == there and None not in here.values()
        assert await two.there.retained(two.lab.topics.build(Kind.CHUNK, cid=await _some_chunk(two.lab)))
    assert await brokers.use(two.lab.db, ["main"], two.lab.topics, datetime.now(UTC)) == ([], [NAME])
    async with two.lab.db.read() as conn:
        assert await published.last_serial(conn, NAME) == 0
        assert await published.page(conn, NAME) == ([], 0)
