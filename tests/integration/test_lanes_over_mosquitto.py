"""A download over a real broker and a link with a delay: every chunk comes once, a broken link costs none of them."""

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import pytest

from device_client.download.downloader import DownloadSettings, Listeners, fetch_artifact
from device_client.download.mqtt_source import MqttSource
from protocol.mqtt.connection import ConnectionLost, ConnectionSettings, Session, connect
from protocol.topics import Kind, Topics
from tests.device_client.download.test_downloader import Image, _image
from tests.links.link import Link, Weather, link
from tests.protocol.mqtt.conftest import Broker, start_broker

TOPICS = Topics("fleet")
IMAGE = _image(count=60, size=20_000, seed=5, repeats=0)
TOTAL = sum(map(len, IMAGE.chunks.values()))
OPTIONS = DownloadSettings(window=8, max_window=8, chunk_timeout_s=5, retry_base_s=0.01)


@dataclass
class Counting:
    """A session that remembers its requests."""

    session: Session
    asked: list[list[str]] = field(default_factory=list)
    ended: list[list[str]] = field(default_factory=list)

    async def subscribe(self, filters: Sequence[tuple[str, int]], *, timeout_s: float | None = None) -> None:
        """Counted."""
        self.asked.append([topic for topic, _ in filters])
        await self.session.subscribe(filters, timeout_s=timeout_s)

    async def unsubscribe(self, filters: Sequence[str], *, timeout_s: float | None = None) -> None:
        """Counted."""
        self.ended.append(list(filters))
        await self.session.unsubscribe(filters, timeout_s=timeout_s)


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """A broker that has the image."""
    running = start_broker(tmp_path_factory.mktemp("broker"))
    asyncio.run(_publish(running, IMAGE))
    yield running
    running.stop()


async def _publish(broker: Broker, image: Image) -> None:
    async with connect(broker.settings("publisher")) as session:
        for cid, ciphertext in image.chunks.items():
            await session.publish(TOPICS.build(Kind.CHUNK, cid=cid), ciphertext, qos=1, retain=True)


async def _stay_connected(settings: ConnectionSettings, source: MqttSource, sessions: list[Counting]) -> None:
    prefix = TOPICS.filter(Kind.CHUNK).removesuffix("+")
    while True:
        try:
            async with connect(settings) as session:
                sessions.append(Counting(session))
                source.attach(sessions[-1])
                async for message in session.messages():
                    source.deliver(message.topic.removeprefix(prefix), message.payload)
        except ConnectionLost:
            await asyncio.sleep(0.01)
        finally:
            source.detach()


async def _download(broker: Broker, made: Link, staging: Path, breaks: Sequence[int]) -> list[Counting]:
    """Download, with the link reset when so many bytes have come."""
    settings = broker.settings("device", port=made.port)
    source, sessions = MqttSource(TOPICS), list[Counting]()

    async def break_it() -> None:
        for at in breaks:
            while source.received_bytes < at:
                await asyncio.sleep(0.001)
            made.reset()

    connection = asyncio.create_task(_stay_connected(settings, source, sessions))
    breaking = asyncio.create_task(break_it())
    try:
        async with asyncio.timeout(30):
            path, transfer = await fetch_artifact(staging, IMAGE.artifact, source, OPTIONS, Listeners(), Random(1))
            await breaking
    finally:
        connection.cancel()
        await asyncio.wait({connection})
    assert path.read_bytes() == IMAGE.stream
    assert transfer.fetched_bytes == source.received_bytes == TOTAL
    return sessions


async def test_every_chunk_is_asked_for_once_and_comes_once(broker: Broker, tmp_path: Path) -> None:
    """One SUBSCRIBE and one UNSUBSCRIBE per window, and none left over."""
    async with link(broker.port, Weather(delay_s=0.01)) as made:
        (session,) = await _download(broker, made, tmp_path, [])
    topics = [topic for window in session.asked for topic in window]
    assert sorted(topics) == sorted(TOPICS.build(Kind.CHUNK, cid=cid) for cid in IMAGE.chunks)
    assert max(map(len, session.asked)) == 8
    assert sorted(topic for window in session.ended for topic in window) == sorted(topics)
    assert len(session.ended) <= len(session.asked)


async def test_a_link_that_breaks_costs_no_chunk_twice(broker: Broker, tmp_path: Path) -> None:
    """What had come of the windows that were out is kept: not one byte comes again."""
    async with link(broker.port, Weather(delay_s=0.01)) as made:
        sessions = await _download(broker, made, tmp_path, [TOTAL // 4, TOTAL // 2])
    assert len(sessions) == 3
