"""Two lanes over one source: no idle round trip, bounded memory, and no chunk in both; over several: nothing twice."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from device_client.download.lanes import LANES, DownloadSettings, Listeners, Run
from device_client.download.source_choice import ChoiceLimits
from device_client.download.source_set import SourceSet, Supplier
from device_client.download.sources import Collected
from device_client.download.store import Refusal
from protocol.clock import SystemClock
from protocol.errors import ContentError, ErrorCode

QUICK = DownloadSettings(window=4, max_window=4, chunk_timeout_s=0.001, retry_base_s=0.0001, retry_cap_s=0.001)
SIZE = 100


@dataclass
class Shelf:
    """A store of chunks that are good when they are the letter g."""

    missing: dict[str, int]
    instead: dict[str, str] = field(default_factory=dict)
    at_work: int = 0
    written: list[str] = field(default_factory=list)
    copied_bytes: int = 0
    delta_bytes: int = 0
    fails: bool = False

    @property
    def total_bytes(self) -> int:
        """All of it."""
        return SIZE * len(self.missing)

    @property
    def present_bytes(self) -> int:
        """What was written."""
        return SIZE * len(self.written)

    def resume(self) -> dict[str, int]:
        """Nothing is there yet."""
        return dict(self.missing)

    def without(self, cid: str) -> tuple[tuple[str, int], ...]:
        """Nothing stands for anything."""
        return ()

    def write(self, chunks: Mapping[str, bytes]) -> list[Refusal]:
        """One window; two at a time would be a fault."""
        if self.fails:
            raise ContentError(ErrorCode.SPACE, "full")
        self.at_work += 1
        assert self.at_work == 1
        refusals = []
        for cid, data in chunks.items():
            if cid in self.instead:
                refusals.append(Refusal(cid, ErrorCode.CHUNK, "a delta", ((self.instead.pop(cid), SIZE),)))
            elif data[:1] == b"g":
                assert cid not in self.written
                self.written.append(cid)
            else:
                refusals.append(Refusal(cid, ErrorCode.CHUNK, "bad"))
        self.at_work -= 1
        return refusals


@dataclass
class Source:
    """Answers as the test says, one fate per chunk and try; honest when there are no more."""

    fates: dict[str, list[str]] = field(default_factory=dict)
    name: str = "source"
    is_ready: bool = True
    out: list[set[str]] = field(default_factory=list)
    most_out: int = 0
    asked: list[str] = field(default_factory=list)
    honest_after: int = 200
    hold: asyncio.Event | None = None

    async def ready(self) -> None:
        """Wait for it."""
        while not self.is_ready:
            await asyncio.sleep(0)

    async def release(self) -> None:
        """Nothing is held."""

    async def collect(self, cids: Sequence[str], silence_s: float) -> Collected:
        """One window."""
        window = set(cids)
        assert len(window) == len(cids)
        assert all(not window & other for other in self.out), "a chunk is in two windows"
        self.out.append(window)
        self.most_out = max(self.most_out, len(self.out))
        self.asked += cids
        try:
            await (self.hold.wait() if self.hold else asyncio.sleep(0))
            return self._answer(cids)
        finally:
            self.out.remove(window)

    def _answer(self, cids: Sequence[str]) -> Collected:
        arrived: dict[str, bytes] = {}
        for cid in cids:
            fates = self.fates.get(cid)
            match fates.pop(0) if fates and len(self.asked) < self.honest_after else "good":
                case "gone":
                    return Collected(arrived, gone=True)
                case "lost":
                    continue
                case fate:
                    arrived[cid] = fate[:1].encode() * SIZE
        return Collected(arrived)


async def _run(shelf: Shelf, *sources: Source, options: DownloadSettings = QUICK) -> None:
    limits = ChoiceLimits(return_after_s=0.001, grace_s=0.001)
    suppliers = [Supplier(source) for source in sources]
    together = SourceSet(suppliers, limits, 60, SystemClock(), Random(1))
    async with asyncio.timeout(20):
        await Run(shelf, together, options, Listeners(), shelf.resume(), Random(2)).whole()


def _missing(count: int) -> dict[str, int]:
    return {f"c{number}": SIZE for number in range(count)}


async def test_two_windows_are_out_at_once() -> None:
    """And never more; together they have everything."""
    source = Source(hold=asyncio.Event())
    shelf = Shelf(_missing(20))
    task = asyncio.create_task(_run(shelf, source))
    async with asyncio.timeout(5):
        while len(source.out) < 2:
            await asyncio.sleep(0)
        assert source.hold
        source.hold.set()
        await task
    assert source.most_out == LANES == 2
    assert sorted(shelf.written) == sorted(shelf.missing)
    assert len(source.asked) == 20


async def test_what_is_arriving_is_bounded() -> None:
    """While a window cannot be written, each lane has at most one more: the window is the back-pressure."""
    source, shelf = Source(), Shelf(_missing(100))
    asked_while_blocked: list[int] = []
    loop = asyncio.get_running_loop()

    def write(chunks: Mapping[str, bytes]) -> list[Refusal]:
        asyncio.run_coroutine_threadsafe(_note(), loop).result(10)
        return Shelf.write(shelf, chunks)

    async def _note() -> None:
        for _ in range(50):
            await asyncio.sleep(0)
        asked_while_blocked.append(len(source.asked) - len(shelf.written))

    shelf.write = write  # type: ignore[method-assign]
    await _run(shelf, source)
    assert max(asked_while_blocked) <= (LANES + 1) * QUICK.max_window


async def test_an_error_of_the_store_ends_both_lanes() -> None:
    """It reaches the caller as it is, and nothing is left at work."""
    source = Source()
    with pytest.raises(ContentError, match="full"):
        await _run(Shelf(_missing(20), fails=True), source)
    assert source.out == []
    assert len(asyncio.all_tasks()) == 1


async def test_a_source_that_says_ready_and_is_not() -> None:
    """It is asked again, not in a tight loop, and no chunk counts as lost for it."""
    source = Source({"c0": ["gone"] * 6})
    shelf = Shelf(_missing(1))
    await _run(shelf, source)
    assert len(source.asked) == 7


async def test_nobody_is_waited_for_when_everything_came() -> None:
    """A link that goes with the last chunk does not hold up what is complete."""
    source, shelf = Source(), Shelf(_missing(8))
    answer = source._answer

    def and_go(cids: Sequence[str]) -> Collected:
        source.is_ready = len(source.asked) < 8
        return answer(cids)

    source._answer = and_go  # type: ignore[method-assign]
    async with asyncio.timeout(5):
        await _run(shelf, source)
    assert len(shelf.written) == 8


async def test_another_source_goes_on_where_one_went_away() -> None:
    """Only what is missing is asked of it, and the first one's rest is not lost."""
    first, second = Source({f"c{n}": ["good"] for n in range(40)}), Source(name="second")
    shelf = Shelf(_missing(40))
    answer = first._answer

    def until_it_goes(cids: Sequence[str]) -> Collected:
        collected = answer(cids)
        if len(shelf.written) >= 12:
            first.is_ready = False
            return Collected(dict(list(collected.chunks.items())[:1]), gone=True)
        return collected

    first._answer = until_it_goes  # type: ignore[method-assign]
    await _run(shelf, first, second)
    assert sorted(shelf.written) == sorted(shelf.missing)
    had = shelf.written[: shelf.written.index(second.asked[0])]
    assert len(had) >= 12
    assert not set(had) & set(second.asked)


FATES = st.lists(st.sampled_from(["good", "lost", "bad", "gone"]), max_size=5)


@settings(max_examples=60, deadline=None)
@given(
    fates=st.lists(st.dictionaries(st.sampled_from(list(_missing(12))), FATES), min_size=1, max_size=3),
    deltas=st.sets(st.sampled_from(list(_missing(12)))),
)
def test_whatever_sources_do_it_ends(fates: list[dict[str, list[str]]], deltas: set[str]) -> None:
    """Lost, bad, gone and replaced in any order, by any of several sources: everything is written, each once."""
    missing = _missing(12)
    instead = {cid: f"full {cid}" for cid in deltas}
    shelf = Shelf(missing, dict(instead))
    sources = [Source({cid: list(f) for cid, f in one.items()}, name=str(n)) for n, one in enumerate(fates)]
    asyncio.run(_run(shelf, *sources))
    assert set(shelf.written) == set(missing) - set(instead) | set(instead.values())
    assert len(shelf.written) == len(set(shelf.written))
