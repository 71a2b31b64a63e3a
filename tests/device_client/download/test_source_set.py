"""Several sources as one: slow ones are left by name, missing chunks are had elsewhere, nothing that came is lost."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random

import pytest

from device_client.download.link_estimate import START_BYTES
from device_client.download.source_choice import ELSEWHERE_AFTER, FAILING_WINDOWS, ChoiceLimits
from device_client.download.source_set import SourceSet, Supplied, Supplier
from device_client.download.sources import Collected
from protocol.clock import ManualClock
from protocol.errors import ErrorCode
from tests.protocol.trust.repository import NOW

CIDS = [f"{number:064x}" for number in range(8)]
DATA = b"x" * 100


@dataclass
class Source:
    """Gives what it has at once; what it has not, when it is told to stop waiting."""

    name: str
    has: set[str] = field(default_factory=lambda: set(CIDS))
    is_ready: bool = True
    holds: bool = False
    asked: list[list[str]] = field(default_factory=list)
    released: int = 0
    received_bytes: int = 0
    delay_s: float | None = 0.1
    clock: ManualClock | None = None

    def __post_init__(self) -> None:
        self.stop = asyncio.Event()

    async def ready(self) -> None:
        """Wait for the test to say so."""
        while not self.is_ready:
            await asyncio.sleep(0.001)

    async def collect(self, cids: Sequence[str], silence_s: float) -> Collected:
        """One window."""
        self.asked.append(list(cids))
        if not self.is_ready:
            return Collected({}, gone=True)
        arrived = {cid: DATA for cid in cids if cid in self.has}
        self.received_bytes += 100 * len(arrived)
        if self.holds:
            await self.stop.wait()
            return Collected(arrived, gone=True)
        if self.clock:
            self.clock.advance(1)
        return Collected(arrived, delay_s=self.delay_s)

    async def release(self) -> None:
        """Count it."""
        self.released += 1


@dataclass
class Scene:
    """Two sources, the first of them a broker that can be left."""

    clock: ManualClock = field(default_factory=lambda: ManualClock(NOW))
    broker: Source = field(default_factory=lambda: Source("mqtt"))
    mirror: Source = field(default_factory=lambda: Source("https://mirror"))
    refused: list[tuple[ErrorCode, str]] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    has_other_broker: bool = True
    alone: bool = False

    def __post_init__(self) -> None:
        broker = Supplier(self.broker, 100, lambda: self.broker.received_bytes, self.broker.stop.set, self._leave)
        mirror = Supplier(self.mirror, 100)
        self.set = SourceSet(
            [broker] if self.alone else [broker, mirror],
            ChoiceLimits(60, 5),
            10,
            self.clock,
            Random(1),
            lambda *what: self.refused.append(what),
        )

    def _leave(self, why: str) -> bool:
        if self.has_other_broker:
            self.left.append(why)
        return self.has_other_broker

    async def ask(self, *cids: str) -> asyncio.Task[Supplied]:
        """Ask for a window; it is out when this returns."""
        task = asyncio.create_task(self.set.collect(cids, 60))
        for _ in range(5):
            await asyncio.sleep(0)
        return task


async def test_a_slow_source_is_left_for_another_and_what_came_is_kept() -> None:
    """E_SLOW with both figures; the window ends at once, its rest counts as never sent; the next one goes elsewhere."""
    scene = Scene()
    scene.broker.holds, scene.broker.has = True, {CIDS[0]}
    task = await scene.ask(*CIDS[:3])
    scene.clock.advance(10)
    scene.set.watch()
    async with asyncio.timeout(5):
        supplied = await task
    assert supplied == Supplied({CIDS[0]: DATA}, (), tuple(CIDS[1:3]), {CIDS[0]: 0})
    ((code, detail),) = scene.refused
    assert code is ErrorCode.SLOW
    assert detail == "chunks from mqtt: expected at least 100 B/s over 10 s, found 10.0; another source is asked"
    assert (await scene.set.collect(CIDS[1:3], 60)).by == {CIDS[1]: 1, CIDS[2]: 1}
    assert scene.set.name == "https://mirror"
    assert scene.set.says == "from https://mirror; mqtt was left: its chunks come too slowly"
    assert scene.left == []
    scene.clock.advance(76)
    scene.broker.holds = False
    assert (await scene.set.collect(CIDS[:1], 60)).by == {CIDS[0]: 0}
    assert scene.set.says == "from mqtt"


async def test_a_source_that_cannot_be_interrupted_is_cancelled() -> None:
    """Its window counts as never sent."""
    scene = Scene(has_other_broker=False)
    scene.broker.is_ready = False
    scene.clock.advance(1)
    scene.mirror.holds = True
    await asyncio.sleep(0)
    assert (await scene.set.collect(CIDS[:1], 60)).unsent == (CIDS[0],)
    scene.clock.advance(5)
    task = await scene.ask(CIDS[0])
    scene.broker.is_ready = True
    scene.clock.advance(10)
    scene.set.watch()
    assert scene.refused[0][1].endswith("another source is asked")
    async with asyncio.timeout(5):
        assert await task == Supplied({}, unsent=(CIDS[0],))


@pytest.mark.parametrize(
    ("has_other", "said"), [(True, "another broker is tried"), (False, "there is no other")], ids=["others", "alone"]
)
async def test_a_slow_broker_is_left_for_another_broker(has_other: bool, said: str) -> None:
    """Where there is no other source; where there is no other broker either, it is named and goes on."""
    scene = Scene(alone=True, has_other_broker=has_other)
    scene.broker.holds, scene.broker.has = True, {CIDS[0]}
    task = await scene.ask(*CIDS[:2])
    scene.clock.advance(10)
    scene.set.watch()
    scene.set.watch()
    assert [detail.rpartition("; ")[2] for _, detail in scene.refused] == [said]
    assert scene.left == ["its chunks come too slowly"] * has_other
    assert not task.done()
    scene.broker.stop.set()
    await task


@pytest.mark.parametrize(("size_bytes", "is_slow"), [(999, True), (1000, False)])
async def test_the_floor_is_exact(size_bytes: int, is_slow: bool) -> None:
    """Bytes are counted as they come, not only when a window is over."""
    scene = Scene()
    scene.broker.holds, scene.broker.has = True, set()
    task = await scene.ask(CIDS[0])
    scene.broker.received_bytes += size_bytes
    scene.clock.advance(10)
    scene.set.watch()
    assert bool(scene.refused) == is_slow
    scene.broker.stop.set()
    await task


async def test_only_time_in_which_chunks_are_waited_for_counts() -> None:
    """A pause of our own, and what a former connection did, is nobody's slowness."""
    scene = Scene()
    await scene.set.collect(CIDS[:1], 60)
    scene.clock.advance(1000)
    scene.set.watch()
    scene.broker.holds, scene.broker.has = True, set()
    for _ in range(2):
        scene.broker.stop.clear()
        task = await scene.ask(CIDS[1])
        scene.clock.advance(9)
        scene.set.watch()
        scene.broker.stop.set()
        await task
    assert scene.refused == []


async def test_a_chunk_that_does_not_come_is_had_from_another_source() -> None:
    """After some tries that chunk alone goes elsewhere, together with a window of the others; its source stays."""
    scene = Scene()
    scene.broker.has.discard(CIDS[0])
    for _ in range(ELSEWHERE_AFTER):
        assert (await scene.set.collect(CIDS[:2], 60)).lost == (CIDS[0],)
    supplied = await scene.set.collect(CIDS[:2], 60)
    assert supplied.by == {CIDS[0]: 1, CIDS[1]: 0}
    assert scene.mirror.asked == [[CIDS[0]]]
    assert scene.set.name == "mqtt"
    assert scene.left == []


async def test_a_chunk_that_is_nowhere_costs_the_broker() -> None:
    """Where no source has it, another broker may."""
    scene = Scene()
    scene.broker.has, scene.mirror.has = {CIDS[1]}, set()
    while not scene.left:
        assert len(scene.broker.asked) + len(scene.mirror.asked) < 20
        await scene.set.collect(CIDS[:2], 60)
    assert scene.left == ["chunks do not come"]
    assert len(scene.mirror.asked) >= 2
    assert scene.set.says.endswith("a broker was left: chunks do not come; asks again for chunks that did not come: 1")


async def test_a_chunk_that_came_wrong_is_had_from_another_source() -> None:
    """At once: asking the same again brings the same."""
    scene = Scene()
    supplied = await scene.set.collect(CIDS[:2], 60)
    scene.set.spoiled(CIDS[:1], supplied)
    scene.set.settled(CIDS[1:2])
    assert (await scene.set.collect(CIDS[:1], 60)).by == {CIDS[0]: 1}


async def test_a_broker_whose_chunk_stays_wrong_is_left() -> None:
    """Where nobody else has it, and after it was wanted twice."""
    scene = Scene(alone=True)
    for left in ([], [], ["its chunks are not what was signed"]):
        scene.set.spoiled(CIDS[:1], await scene.set.collect(CIDS[:1], 60))
        assert scene.left == left


async def test_a_source_that_gives_nothing_is_left() -> None:
    """After some windows of nothing, whatever they asked for."""
    scene = Scene()
    scene.broker.has = set()
    for number in range(FAILING_WINDOWS):
        assert (await scene.set.collect(CIDS[number : number + 1], 60)).lost
    assert (await scene.set.collect(CIDS[:2], 60)).chunks
    assert scene.set.name == "https://mirror"


async def test_a_source_that_goes_away_is_followed_by_the_next() -> None:
    """It is given a moment, and then not waited for."""
    scene = Scene()
    await scene.set.collect(CIDS[:1], 60)
    scene.broker.is_ready = False
    waiting = asyncio.create_task(scene.set.ready())
    await asyncio.sleep(0.01)
    assert not waiting.done()
    scene.clock.advance(5)
    async with asyncio.timeout(5):
        await waiting
    assert (await scene.set.collect(CIDS[:1], 60)).by == {CIDS[0]: 1}
    assert scene.set.says == "from https://mirror; mqtt was left: it is not there"
    scene.mirror.is_ready = False
    assert scene.set.says.startswith("waits for mqtt, https://mirror; ")


async def test_ready_waits_while_nobody_is() -> None:
    """And ends as soon as somebody is."""
    scene = Scene()
    scene.broker.is_ready = scene.mirror.is_ready = False
    waiting = asyncio.create_task(scene.set.ready())
    await asyncio.sleep(0.01)
    assert not waiting.done()
    scene.broker.is_ready = True
    async with asyncio.timeout(5):
        await waiting


async def test_windows_grow_with_the_present_source() -> None:
    """Each link is measured by itself, and anew when it was gone."""
    scene = Scene()
    assert scene.set.window_bytes(2**30) == START_BYTES
    scene.broker.clock = scene.clock
    await scene.set.collect(CIDS[:4], 60)
    assert scene.set.window_bytes(2**30) == 800, "two seconds' worth"
    scene.broker.holds, scene.broker.has = True, set()
    scene.broker.stop.set()
    assert (await scene.set.collect(CIDS[:4], 60)).unsent
    assert scene.set.window_bytes(2**30) == START_BYTES


async def test_release_reaches_every_source() -> None:
    """Nothing is held anywhere when a download is over."""
    scene = Scene()
    await scene.set.release()
    assert (scene.broker.released, scene.mirror.released) == (1, 1)


async def test_cancelling_ends_what_is_out() -> None:
    """No window outlives its download."""
    scene = Scene()
    scene.broker.holds = True
    task = await scene.ask(CIDS[0])
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(asyncio.all_tasks()) == 1
