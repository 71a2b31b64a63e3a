"""A source over a link that costs money: barred, counted, and open again when the link or the day is another."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from device_client.config_network import NetworkSection
from device_client.download.metered_source import MeteredSource
from device_client.download.sources import Collected
from device_client.metered_bytes import MeteredBytes
from device_client.network import Links
from protocol.clock import ManualClock
from tests.device_client.test_network import HEAD, RADIO, WIRED, tables

PER_DAY = 1000
DEADLINE_S = 5.0


@dataclass
class Supply:
    """A source that has everything, 100 bytes a chunk."""

    name: str = "supply"
    is_ready: bool = True
    asked: int = 0
    released: int = 0
    received: int = 0

    async def ready(self) -> None:
        """Always."""
        await asyncio.sleep(0)

    async def collect(self, cids: Sequence[str], silence_s: float) -> Collected:
        """All."""
        await asyncio.sleep(0)
        self.asked += len(cids)
        self.received += 150 * len(cids)
        return Collected(dict.fromkeys(cids, b"x" * 100))

    async def release(self) -> None:
        """Count."""
        self.released += 1


@dataclass
class Scene:
    """One device on a radio link."""

    place: Path
    supply: Supply = field(default_factory=Supply)

    def __post_init__(self) -> None:
        self.clock = ManualClock(datetime(2026, 11, 25, 12, tzinfo=UTC))
        proc = tables(self.place, HEAD + RADIO)
        self.links = Links(NetworkSection(metered_interfaces=("wwan*",), proc=proc))
        self.allowance = MeteredBytes(self.place / "metered.json", PER_DAY, self.clock)

    def source(self, **words: Any) -> MeteredSource:
        """The source behind the owner's word."""
        return MeteredSource(self.supply, self.links, self.allowance, look_again_s=0.01, **words)

    def plug_in(self) -> None:
        """The wire is there."""
        (self.place / "net" / "route").write_text(HEAD + RADIO + WIRED)


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    """A new one."""
    return Scene(tmp_path)


async def test_the_day_ends_the_use_of_the_link(scene: Scene) -> None:
    """Chunks come until the allowance is used up; then it is not asked, counts as gone, and says why."""
    source, asked = scene.source(), 0
    while source.is_ready:
        assert len((await source.collect(["a", "b", "c"], 1)).chunks) == 3
        asked += 3
    assert asked * 100 in range(PER_DAY, PER_DAY + 300)
    assert await source.collect(["a"], 1) == Collected({}, gone=True)
    assert scene.supply.asked == asked
    assert "interface wwan0 is metered" in source.trouble and f"of today's {PER_DAY} B" in source.trouble
    scene.clock.advance(86_400)
    assert (source.is_ready, source.trouble) == (True, "")


async def test_waiting_ends_with_the_link(scene: Scene) -> None:
    """A download that waits goes on when the cable is plugged in; what comes over it is not counted."""
    source = scene.source()
    scene.allowance.spend(PER_DAY)
    waiting = asyncio.create_task(source.ready())
    await asyncio.sleep(0.03)
    assert not waiting.done()
    scene.plug_in()
    async with asyncio.timeout(DEADLINE_S):
        await waiting
    said = scene.allowance.says
    assert len((await source.collect(["a"], 1)).chunks) == 1
    assert scene.allowance.says == said


async def test_a_source_that_is_not_for_metered_links(scene: Scene) -> None:
    """Never asked there, whatever is left of the day; a source that is tied to a free interface is."""
    barred = scene.source(allow_metered=False)
    assert not barred.is_ready and "may not be used over it" in barred.trouble
    assert (await barred.collect(["a"], 1)).gone
    assert scene.supply.asked == 0
    assert scene.source(allow_metered=False, interface="eth0").is_ready
    scene.plug_in()
    assert barred.is_ready


async def test_what_was_read_in_vain_is_spent_too(scene: Scene) -> None:
    """Where a source knows what it read, that counts: a mirror that sends rubbish cannot make it free."""
    source = scene.source(received=lambda: scene.supply.received)
    await source.collect(["a", "b"], 1)
    await source.collect(["a"], 1)
    assert scene.allowance.says.startswith("450 B")
    await source.release()
    assert scene.supply.released == 1
    assert MeteredBytes(scene.place / "metered.json", PER_DAY, scene.clock).says.startswith("450 B")


async def test_the_sources_own_trouble_is_told(scene: Scene) -> None:
    """Where the link is fine, it is the source that says what is wrong."""
    source = scene.source(trouble=lambda: "no stick")
    scene.supply.is_ready = False
    assert (source.is_ready, source.trouble, source.name) == (False, "no stick", "supply")


async def test_only_what_comes_from_now_on_is_spent(scene: Scene) -> None:
    """A source outlives the set that it is in: what it read before is not of this link, nor of this day."""
    scene.supply.received = 10 * PER_DAY
    source = scene.source(received=lambda: scene.supply.received)
    await source.collect(["a", "b"], 1)
    assert scene.allowance.says.startswith("300 B")
    assert source.is_ready
