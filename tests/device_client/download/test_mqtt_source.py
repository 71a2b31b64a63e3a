"""Chunks over one MQTT session: subscriptions in windows, strays dropped, silence and lost links noticed."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from device_client.download.mqtt_source import MqttSource
from device_client.download.sources import Collected
from protocol.errors import FlagshipError
from protocol.mqtt.connection import ConnectionLost
from protocol.topics import Kind, Topics

TOPICS = Topics("fleet")
CIDS = [f"{number:064x}" for number in range(8)]


@dataclass
class Session:
    """Remembers what was asked of it; ``refuses`` makes SUBSCRIBE fail."""

    refuses: bool = False
    subscribed: list[list[str]] = field(default_factory=list)
    unsubscribed: list[str] = field(default_factory=list)

    async def subscribe(self, filters: Sequence[tuple[str, int]], *, timeout_s: float | None = None) -> None:
        """One SUBSCRIBE."""
        await asyncio.sleep(0)
        if self.refuses:
            raise FlagshipError("refused")
        assert {qos for _, qos in filters} == {1}
        self.subscribed.append([topic.rpartition("/")[2] for topic, _ in filters])

    async def unsubscribe(self, filters: Sequence[str], *, timeout_s: float | None = None) -> None:
        """One UNSUBSCRIBE."""
        await asyncio.sleep(0)
        if self.refuses:
            raise FlagshipError("refused")
        self.unsubscribed += [topic.rpartition("/")[2] for topic in filters]


def _attached(session: Session) -> MqttSource:
    source = MqttSource(TOPICS)
    source.attach(session)
    return source


async def _collect(source: MqttSource, cids: Sequence[str], silence_s: float = 0.05) -> asyncio.Task[Collected]:
    task = asyncio.create_task(source.collect(cids, silence_s))
    for _ in range(5):
        await asyncio.sleep(0)
    return task


async def test_topics_are_those_of_the_protocol() -> None:
    """A chunk is asked for by the topic that the topic table names."""
    seen: list[str] = []

    class Listening(Session):
        async def subscribe(self, filters: Sequence[tuple[str, int]], *, timeout_s: float | None = None) -> None:
            seen.extend(topic for topic, _ in filters)

    await _attached(Listening()).collect(CIDS[:1], 0.001)
    assert seen == [TOPICS.build(Kind.CHUNK, cid=CIDS[0])]


async def test_the_quality_of_service_is_the_devices_own() -> None:
    """1, or what its settings say for a broker that is slow with 1."""
    seen: list[int] = []

    class Listening(Session):
        async def subscribe(self, filters: Sequence[tuple[str, int]], *, timeout_s: float | None = None) -> None:
            seen.extend(qos for _, qos in filters)

    for source in (MqttSource(TOPICS), MqttSource(TOPICS, qos=0)):
        source.attach(Listening())
        await source.collect(CIDS[:1], 0.001)
    assert seen == [1, 0]


async def test_a_window_ends_when_all_came() -> None:
    """The wait ends with the last chunk, long before silence does; one SUBSCRIBE asked for all."""
    session = Session()
    source = _attached(session)
    async with asyncio.timeout(5):
        task = await _collect(source, CIDS[:3], silence_s=60)
        for cid in reversed(CIDS[:3]):
            source.deliver(cid, cid.encode())
        collected = await task
    assert collected == Collected({cid: cid.encode() for cid in CIDS[:3]})
    assert session.subscribed == [CIDS[:3]]


async def test_silence_ends_a_window() -> None:
    """What came is handed out when nothing more comes."""
    source = _attached(Session())
    task = await _collect(source, CIDS[:3])
    source.deliver(CIDS[1], b"1")
    assert await task == Collected({CIDS[1]: b"1"})


async def test_strays_are_dropped() -> None:
    """Not asked for, empty, too large, twice, or late: none of it is handed out or kept."""
    source = MqttSource(TOPICS, max_bytes=10)
    source.attach(Session())
    source.deliver(CIDS[0], b"early")
    task = await _collect(source, CIDS[:2])
    source.deliver(CIDS[5], b"stray")
    source.deliver(CIDS[0], b"")
    source.deliver(CIDS[0], b"x" * 11)
    source.deliver(CIDS[0], b"first")
    source.deliver(CIDS[0], b"second")
    assert await task == Collected({CIDS[0]: b"first"})
    source.deliver(CIDS[1], b"late")
    assert await source.collect(CIDS[1:2], 0.001) == Collected({})


async def test_a_lost_link_ends_a_window_at_once() -> None:
    """What came before is kept, and the rest counts as never sent, not as lost."""
    source = _attached(Session())
    async with asyncio.timeout(5):
        task = await _collect(source, CIDS[:2], silence_s=60)
        source.deliver(CIDS[0], b"0")
        source.detach()
        assert await task == Collected({CIDS[0]: b"0"}, gone=True)
        assert await source.collect(CIDS[:2], 60) == Collected({}, gone=True)


async def test_a_new_session_in_the_middle_of_a_window() -> None:
    """A window does not wait on a session that has none of its subscriptions."""
    source = _attached(Session())
    async with asyncio.timeout(5):
        task = await _collect(source, CIDS[:2], silence_s=60)
        source.detach()
        source.attach(Session())
        assert (await task).gone


async def test_ready_waits_for_a_link() -> None:
    """Downloads wait while there is no connection."""
    source = MqttSource(TOPICS)
    waiting = asyncio.create_task(source.ready())
    await asyncio.sleep(0)
    assert not waiting.done()
    source.attach(Session())
    async with asyncio.timeout(5):
        await waiting


async def test_a_refused_subscribe_is_not_an_error() -> None:
    """The chunks of that window count as not come."""
    assert await _attached(Session(refuses=True)).collect(CIDS[:2], 60) == Collected({})


async def test_a_subscribe_on_a_link_that_is_lost() -> None:
    """The chunks of that window were never sent: nobody is to blame for them."""

    class Lost(Session):
        async def subscribe(self, filters: Sequence[tuple[str, int]], *, timeout_s: float | None = None) -> None:
            raise ConnectionLost("gone")

    assert await _attached(Lost()).collect(CIDS[:2], 60) == Collected({}, gone=True)


async def test_finished_windows_are_unsubscribed() -> None:
    """With the next window, and at the end; what is asked for again stays subscribed."""
    session = Session()
    source = _attached(session)
    await source.collect(CIDS[:3], 0.001)
    await source.collect(CIDS[2:5], 0.001)
    assert session.unsubscribed == CIDS[:2]
    await source.release()
    await asyncio.sleep(0)
    assert sorted(session.unsubscribed) == CIDS[:5]


async def test_a_new_connection_owes_no_unsubscribe() -> None:
    """Subscriptions of a former connection are gone with it."""
    source = _attached(Session())
    await source.collect(CIDS[:3], 0.001)
    source.detach()
    session = Session()
    source.attach(session)
    await source.release()
    await asyncio.sleep(0)
    assert session.unsubscribed == []


@settings(max_examples=30, deadline=None)
@given(st.lists(st.sampled_from(CIDS), max_size=40), st.sets(st.sampled_from(CIDS), min_size=1))
def test_any_order_and_duplication(delivered: list[str], asked: set[str]) -> None:
    """Of what is delivered, exactly what was asked for is handed out, each once, the first one."""

    async def scene() -> Collected:
        source = _attached(Session())
        task = await _collect(source, sorted(asked), 0.02)
        for number, cid in enumerate(delivered):
            source.deliver(cid, f"{cid}{number}".encode())
        return await task

    chunks = asyncio.run(scene()).chunks
    assert set(chunks) == asked & set(delivered)
    assert all(chunks[cid] == f"{cid}{delivered.index(cid)}".encode() for cid in chunks)


@pytest.mark.parametrize("seed", range(3))
async def test_delivery_is_bounded(seed: int) -> None:
    """A broker that floods a window adds no more than the window to memory."""
    source = _attached(Session())
    task = await _collect(source, CIDS[:2], 5)
    random = Random(seed)
    for _ in range(1000):
        source.deliver(f"{random.getrandbits(256):064x}", b"flood")
    for cid in CIDS[:2]:
        source.deliver(cid, b"asked")
    assert set((await task).chunks) == set(CIDS[:2])


async def test_two_windows_are_out_at_once() -> None:
    """Each ends with its own last chunk, whichever comes first; one SUBSCRIBE each."""
    session = Session()
    source = _attached(session)
    async with asyncio.timeout(5):
        first = await _collect(source, CIDS[:2], silence_s=60)
        second = await _collect(source, CIDS[2:4], silence_s=60)
        assert session.subscribed == [CIDS[:2], CIDS[2:4]]
        for cid in (CIDS[2], CIDS[0], CIDS[1]):
            source.deliver(cid, cid.encode())
        assert set((await first).chunks) == set(CIDS[:2])
        assert not second.done()
        source.deliver(CIDS[3], b"3")
        assert (await second).chunks == {CIDS[2]: CIDS[2].encode(), CIDS[3]: b"3"}
    assert source.received_bytes == 3 * 64 + 1


async def test_the_unsubscribe_goes_with_the_next_subscribe() -> None:
    """Of the finished window only, while the other one is out; once."""
    session = Session()
    source = _attached(session)
    async with asyncio.timeout(5):
        first = await _collect(source, CIDS[:2], silence_s=60)
        second = await _collect(source, CIDS[2:4], silence_s=60)
        for cid in CIDS[:2]:
            source.deliver(cid, b"x")
        await first
        third = await _collect(source, CIDS[4:6], silence_s=60)
    assert session.unsubscribed == CIDS[:2]
    for task in (second, third):
        task.cancel()
    await asyncio.wait({second, third})


async def test_chunks_may_come_before_the_suback() -> None:
    """And the window is over without it; its answer is no one's concern after that."""
    answer = asyncio.Event()

    class Late(Session):
        async def subscribe(self, filters: Sequence[tuple[str, int]], *, timeout_s: float | None = None) -> None:
            await answer.wait()
            raise FlagshipError("refused, much later")

    source = _attached(Late())
    async with asyncio.timeout(5):
        task = await _collect(source, CIDS[:2], silence_s=60)
        for cid in CIDS[:2]:
            source.deliver(cid, b"x")
        assert len((await task).chunks) == 2
        answer.set()
        await asyncio.sleep(0)


async def test_what_was_overtaken_does_not_come() -> None:
    """A broker answers in order: when a later window is whole, the wait for an earlier one is over."""
    source = _attached(Session())
    async with asyncio.timeout(5):
        first = await _collect(source, CIDS[:2], silence_s=60)
        second = await _collect(source, CIDS[2:4], silence_s=60)
        source.deliver(CIDS[0], b"0")
        source.deliver(CIDS[2], b"2")
        source.deliver(CIDS[3], b"3")
        assert len((await second).chunks) == 2
        assert await first == Collected({CIDS[0]: b"0"})


async def test_a_window_behind_another_is_not_silent() -> None:
    """While what was asked for before still comes, a window waits its turn; what comes after it counts for nothing."""
    source = _attached(Session())
    async with asyncio.timeout(5):
        first = await _collect(source, CIDS[:4], silence_s=60)
        behind = await _collect(source, CIDS[4:6], silence_s=0.4)
        for cid in CIDS[:3]:
            await asyncio.sleep(0.2)
            source.deliver(cid, b"x")
        assert not behind.done()
        first.cancel()
        assert await behind == Collected({})


async def test_an_interrupted_window_gives_what_came() -> None:
    """The rest counts as never sent, in both windows, and the connection stays."""
    source = _attached(Session())
    async with asyncio.timeout(5):
        tasks = [await _collect(source, CIDS[n : n + 2], silence_s=60) for n in (0, 2)]
        source.deliver(CIDS[0], b"0")
        source.interrupt()
        assert [await task for task in tasks] == [Collected({CIDS[0]: b"0"}, gone=True), Collected({}, gone=True)]
    assert source.is_ready
    assert (await source.collect(CIDS[:1], 0.001)) == Collected({})


async def test_the_delay_is_measured_to_the_first_sign() -> None:
    """A chunk or the SUBACK, whichever comes first; nothing at all is no measurement."""
    source = _attached(Session())
    task = await _collect(source, CIDS[:1])
    delay_s = (await task).delay_s
    assert delay_s is not None
    assert 0 <= delay_s < 0.05

    class Mute(Session):
        async def subscribe(self, filters: Sequence[tuple[str, int]], *, timeout_s: float | None = None) -> None:
            await asyncio.Event().wait()

    source = _attached(Mute())
    assert (await source.collect(CIDS[:1], 0.01)).delay_s is None
    source.detach()
    async with asyncio.timeout(5):  # no request outlives its connection
        while len(asyncio.all_tasks()) > 1:
            await asyncio.sleep(0)
