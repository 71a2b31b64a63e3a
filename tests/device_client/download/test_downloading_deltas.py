"""A whole download against what the device runs: what is copied, what comes as a delta, and what is told of it."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from device_client.download.base_stream import Base
from device_client.download.downloader import DownloadSettings, Listeners, Transfer, fetch_artifact
from device_client.download.sources import Collected
from protocol.errors import ErrorCode
from tests.device_client.download.versions import Release, place, release

RANDOM = Random(12)
PLAINS = [RANDOM.randbytes(3000) for _ in range(8)]
OLD = b"".join(PLAINS)
FAST = DownloadSettings(chunk_timeout_s=0.001, retry_base_s=0.0001, retry_cap_s=0.001, window=4, max_window=8)


@dataclass
class Shelf:
    """A source that has everything, and notes what it was asked for."""

    chunks: dict[str, bytes]
    asked: list[str] = field(default_factory=list)
    withheld: set[str] = field(default_factory=set)
    forged: set[str] = field(default_factory=set)
    name: str = "shelf"
    is_ready: bool = True

    async def ready(self) -> None:
        """Always."""
        await asyncio.sleep(0)

    async def release(self) -> None:
        """Nothing is held."""

    async def collect(self, cids: Sequence[str], silence_s: float) -> Collected:
        """All of it."""
        await asyncio.sleep(0)
        self.asked += cids
        had = [cid for cid in cids if cid not in self.withheld]
        return Collected({cid: b"forged" if cid in self.forged else self.chunks[cid] for cid in had})


async def fetch(
    tmp_path: Path, new: Release, base: Base | None, withheld: Sequence[str] = (), forged: Sequence[str] = ()
) -> tuple[Transfer, Shelf, list[tuple[ErrorCode, str]], list[str]]:
    """Fetch it; returns what it took, what was asked for, what was refused, and what was wanted."""
    (tmp_path / "staging").mkdir(exist_ok=True)
    shelf = Shelf(new.chunks, withheld=set(withheld), forged=set(forged))
    refused, wanted = list[tuple[ErrorCode, str]](), list[str]()

    async def want(cids: tuple[str, ...]) -> None:
        wanted.extend(cids)

    listeners = Listeners(want=want, refused=lambda *why: refused.append(why))
    path, transfer = await fetch_artifact(tmp_path / "staging", new.artifact, shelf, FAST, listeners, Random(1), base)
    assert path.read_bytes() == new.stream
    return transfer, shelf, refused, wanted


def changed(bodies: dict[int, bytes] | None = None) -> Release:
    """A version in which every second chunk is another, with a delta each."""
    plains = [plain if number % 2 else b"changed %d" % number + plain for number, plain in enumerate(PLAINS)]
    new = release(plains)
    new.add_deltas(OLD, {number: (number * 3000, 3000) for number in range(0, 8, 2)}, bodies)
    return new


async def test_only_deltas_are_fetched(tmp_path: Path) -> None:
    """The rest is copied, and the two are told apart."""
    new, base = changed(), Base([place(tmp_path / "slot", {"image": OLD}, PLAINS)])
    transfer, shelf, refused, _ = await fetch(tmp_path, new, base)
    assert set(shelf.asked) == {new.delta_cid(row) for row in range(4)}
    assert transfer.fetched_bytes == transfer.delta_bytes == sum(len(new.chunks[cid]) for cid in shelf.asked)
    assert (transfer.copied_bytes, transfer.resumed_bytes, transfer.refused) == (12_000, 0, 0)
    assert transfer.present_bytes == transfer.total_bytes
    assert not refused


async def test_useless_deltas_are_replaced_and_are_nobodys_attack(tmp_path: Path) -> None:
    """What came is what was signed: the chunks are fetched, nothing is refused, nothing is wanted from the operator."""
    new = changed({0: b"no frame", 4: b"no frame either"})
    base = Base([place(tmp_path / "slot", {"image": OLD}, PLAINS)])
    transfer, shelf, refused, wanted = await fetch(tmp_path, new, base)
    assert {new.cid(0), new.cid(4)} <= set(shelf.asked)
    assert len(shelf.asked) == 6
    assert (refused, wanted, transfer.refused) == ([], [], 0)


async def test_a_delta_that_nobody_has_is_done_without(tmp_path: Path) -> None:
    """A mirror that has the chunks and not the deltas: asked twice, then the chunk is fetched; nothing is wanted."""
    new, base = changed(), Base([place(tmp_path / "slot", {"image": OLD}, PLAINS)])
    withheld = [new.delta_cid(0), new.delta_cid(2)]
    _, shelf, refused, wanted = await fetch(tmp_path, new, base, withheld)
    assert {new.cid(0), new.cid(4)} <= set(shelf.asked)
    assert [shelf.asked.count(cid) for cid in withheld] == [2, 2]
    assert (refused, wanted) == ([], [])


async def test_a_forged_delta_is_told_and_done_without(tmp_path: Path) -> None:
    """The forger is named, and has won one fetch of a whole chunk."""
    new, base = changed(), Base([place(tmp_path / "slot", {"image": OLD}, PLAINS)])
    transfer, shelf, refused, wanted = await fetch(tmp_path, new, base, forged=[new.delta_cid(1)])
    assert shelf.asked.count(new.delta_cid(1)) == shelf.asked.count(new.cid(2)) == 1
    assert ([code for code, _ in refused], transfer.refused, wanted) == ([ErrorCode.CHUNK], 1, [])


async def test_without_what_it_was_made_against_the_whole_is_fetched(tmp_path: Path) -> None:
    """A device that runs another version, or whose files were changed, is where it would be without deltas."""
    new = changed()
    place(tmp_path / "slot", {"image": OLD}, PLAINS)
    base = Base([place(tmp_path / "slot", {"image": OLD}, PLAINS)])
    (tmp_path / "slot" / "image").write_bytes(bytes(len(OLD)))
    transfer, shelf, refused, _ = await fetch(tmp_path, new, base)
    assert set(shelf.asked) == {new.cid(number) for number in range(8)}
    assert (transfer.copied_bytes, transfer.delta_bytes, refused) == (0, 0, [])
