"""Putting messages on a real broker: all of them, proven where that matters, and an end where it does not go."""

import asyncio
import hashlib
from collections.abc import Collection

import pytest

from orchestrator.delivery.broker_access import service_connection
from orchestrator.delivery.publisher import TRIES, Outgoing, send_all, send_proven, together
from orchestrator.delivery.readback import WINDOW, ReadBack
from orchestrator.errors import UnreachableError
from protocol.mqtt.connection import Message, PublishRefused, RequestRefused, Session, connect
from protocol.topics import DELIVERY, INGEST, Kind
from tests.orchestrator.delivery.lab import Lab, until


def outgoing(lab: Lab, count: int) -> list[Outgoing]:
    """Announcements whose content is a number."""
    return [
        Outgoing(kind=Kind.ANNOUNCE, topic=lab.topics.build(Kind.ANNOUNCE, rollout=f"r-{n}"), payload=b"%d" % n)
        for n in range(count)
    ]


async def test_every_message_is_acknowledged_when_it_returns(lab: Lab) -> None:
    """More than may be in flight at once; retained as the topic table says."""
    items = outgoing(lab, 100)
    async with connect(service_connection(lab.home, lab.settings, DELIVERY)) as session:
        await send_all(session, items)
        await send_all(session, [])
    assert await lab.retained(items[99].topic) == b"99"


async def test_an_empty_payload_clears_a_topic(lab: Lab) -> None:
    """That is how a topic ends."""
    (item,) = outgoing(lab, 1)
    async with connect(service_connection(lab.home, lab.settings, DELIVERY)) as session:
        await send_all(session, [item])
        assert await lab.retained(item.topic) == b"0"
        await send_all(session, [Outgoing(kind=Kind.ANNOUNCE, topic=item.topic, payload=b"")])
    assert await lab.retained(item.topic) is None


async def test_a_refusal_is_raised(lab: Lab) -> None:
    """The reading session may publish nothing, and the broker says so: no success is reported."""
    async with connect(service_connection(lab.home, lab.settings, INGEST)) as session:
        with pytest.raises(PublishRefused):
            await send_all(session, outgoing(lab, 3))


async def test_the_first_failure_ends_the_others() -> None:
    """It is raised as it is, and nobody is left working."""
    ended = []

    async def fails() -> None:
        raise RequestRefused("no")

    async def waits() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(True)

    with pytest.raises(RequestRefused):
        await together([waits(), fails(), waits()])
    assert ended == [True, True]


class Forgetful(ReadBack):
    """A broker that acknowledges and keeps nothing, as seen from here: what comes back is lost on the way."""

    def __init__(self, losses: int) -> None:
        super().__init__()
        self.losses = losses
        self.fetches = 0

    async def fetch(
        self, session: Session, topics: Collection[str], timeout_s: float, *, last: str | None = None
    ) -> dict[str, bytes]:
        """Nothing, as often as told; then all."""
        self.fetches += 1
        return {} if self.fetches <= self.losses else await super().fetch(session, topics, 2)


async def _reading(session: Session, readback: ReadBack) -> None:
    async for message in session.messages():
        readback.deliver(message)


async def test_what_does_not_come_back_is_sent_again(lab: Lab) -> None:
    """Bytes are counted as often as they are sent."""
    items = {item.topic: item for item in outgoing(lab, WINDOW)}
    size = sum(len(item.payload) for item in items.values())
    async with connect(service_connection(lab.home, lab.settings, DELIVERY)) as session:
        readback = Forgetful(losses=1)
        task = asyncio.create_task(_reading(session, readback))
        assert await send_proven(session, readback, items, 1) == 2 * size
        task.cancel()


async def test_a_broker_that_keeps_nothing_is_one_sentence(lab: Lab) -> None:
    """After a few tries it is told what to look at; nobody waits for ever."""
    items = {item.topic: item for item in outgoing(lab, 2)}
    async with connect(service_connection(lab.home, lab.settings, DELIVERY)) as session:
        readback = Forgetful(losses=99)
        with pytest.raises(UnreachableError, match=r"2 of 2 messages were acknowledged but not delivered back"):
            await send_proven(session, readback, items, 0.1)
        assert readback.fetches == TRIES


async def test_more_than_a_window_is_a_mistake(lab: Lab) -> None:
    """Brokers drop retained bursts silently."""
    items = {item.topic: item for item in outgoing(lab, WINDOW + 1)}
    async with connect(service_connection(lab.home, lab.settings, DELIVERY)) as session:
        with pytest.raises(ValueError, match="at most"):
            await send_proven(session, ReadBack(), items, 1)
        with pytest.raises(ValueError, match="at most"):
            await ReadBack().fetch(session, list(items), 1)


async def test_reading_back_hears_only_what_is_retained(lab: Lab) -> None:
    """A live message on the same topic is no proof."""
    readback = ReadBack()
    topic = lab.topics.build(Kind.ANNOUNCE, rollout="r-1")
    async with connect(service_connection(lab.home, lab.settings, DELIVERY)) as session:
        fetching = asyncio.create_task(readback.fetch(session, [topic], 0.5))

        async def asked() -> bool:
            return bool(readback._fetches)

        await until(asked, "it waits")
        readback.deliver(Message(topic, b"live", retain=False, qos=1))
        readback.deliver(Message(topic + "x", b"other", retain=True, qos=1))
        assert await fetching == {}


def test_what_is_recorded_is_the_digest_of_what_was_sent() -> None:
    """With the payload for directives, without it for chunks."""
    item = Outgoing(kind=Kind.CHUNK, topic="t", payload=b"x", epoch=1, seq=2)
    kept, dropped = item.publication(keep_payload=True), item.publication(keep_payload=False)
    assert kept.digest == dropped.digest == hashlib.sha256(b"x").hexdigest()
    assert (kept.payload, dropped.payload, kept.epoch, kept.seq) == (b"x", None, 1, 2)
