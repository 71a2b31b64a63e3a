"""A broker that drips is left by name; one that went by itself is not blamed on the next."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from device_client.config import DownloadSection
from device_client.download.sources import MqttSource
from device_client.slow_broker import SlowBroker
from protocol.clock import ManualClock
from protocol.errors import ErrorCode
from protocol.topics import Topics
from tests.protocol.trust.repository import NOW

CIDS = [f"{number:064x}" for number in range(2)]


class Session:
    """Takes every request."""

    async def subscribe(self, filters: Sequence[tuple[str, int]]) -> None:
        """Taken."""

    async def unsubscribe(self, filters: Sequence[str]) -> None:
        """Taken."""


@dataclass
class Watched:
    """A source with somebody who watches it."""

    clock: ManualClock = field(default_factory=lambda: ManualClock(NOW))
    source: MqttSource = field(default_factory=lambda: MqttSource(Topics("fleet")))
    session: Session = field(default_factory=Session)
    left: list[str] = field(default_factory=list)
    refused: list[tuple[ErrorCode, str]] = field(default_factory=list)
    min_rate_bytes_s: int = 100

    def __post_init__(self) -> None:
        settings = DownloadSection(min_rate_bytes_s=self.min_rate_bytes_s, slow_window_s=10)
        self.slow = SlowBroker(
            settings,
            self.source,
            self.left.append,
            lambda *what: self.refused.append(what),
            self.clock,
        )
        self.source.attach(self.session)

    async def ask(self) -> asyncio.Task[object]:
        """Ask for two chunks; they are awaited when this returns."""
        task: asyncio.Task[object] = asyncio.create_task(self.source.collect(CIDS, 30))
        for _ in range(5):
            await asyncio.sleep(0)
        return task


@pytest.mark.parametrize(("size_bytes", "left"), [(999, 1), (1000, 0)])
async def test_a_broker_below_the_floor_is_left(size_bytes: int, left: int) -> None:
    """E_SLOW with both figures, once a window; the connection is left."""
    watched = Watched()
    task = await watched.ask()
    watched.source.deliver(CIDS[0], b"x" * size_bytes)
    watched.clock.advance(10)
    watched.slow.watch()
    watched.slow.watch()
    assert len(watched.left) == left
    assert [code for code, _ in watched.refused] == [ErrorCode.SLOW] * left
    if left:
        assert "at least 100 B/s over 10 s, found 99.9" in watched.refused[0][1]
        watched.clock.advance(10)
        watched.slow.watch()
        assert len(watched.left) == 2
    task.cancel()


async def test_another_connection_is_measured_anew() -> None:
    """Nine slow seconds of a connection that went by itself are not the next one's."""
    watched = Watched()
    task = await watched.ask()
    watched.clock.advance(9)
    watched.source.detach()
    await task
    watched.source.attach(watched.session)
    task = await watched.ask()
    watched.clock.advance(9)
    watched.slow.watch()
    assert not watched.refused
    watched.clock.advance(1)
    watched.slow.watch()
    assert len(watched.refused) == 1
    task.cancel()


async def test_without_a_floor_nobody_is_left() -> None:
    """The default: a slow link is better than none."""
    watched = Watched(min_rate_bytes_s=0)
    task = await watched.ask()
    watched.clock.advance(10_000)
    watched.slow.watch()
    assert not watched.refused
    task.cancel()
