"""The loop of a download over sources that lose, damage, mix up and repeat what they are asked for."""

import asyncio
import base64
import hashlib
import os
import resource
import signal
import time
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from device_client.config import DownloadSection, TimingSection
from device_client.download.downloader import DownloadSettings, Listeners, Transfer, fetch_artifact, fetch_pieces
from device_client.download.sources import Collected
from protocol.chunks import MAX_CHUNK_BYTES, PIECE_BYTES
from protocol.encryption import encrypt_body, make_body
from protocol.errors import ContentError, ErrorCode
from protocol.manifest import Artifact

FAST = DownloadSettings(chunk_timeout_s=0.001, retry_base_s=0.0001, retry_cap_s=0.001, window=4, max_window=8)
FATES = ("ok", "lost", "flipped", "short", "long", "empty", "other", "gone")


@dataclass
class Image:
    """An artifact, its stream and its ciphertexts by id."""

    artifact: Artifact
    stream: bytes
    chunks: dict[str, bytes]


@dataclass
class Source:
    """Serves chunks; the n-th answer to a chunk has the n-th of its fates, and is honest when there are no more."""

    chunks: dict[str, bytes]
    fates: dict[str, list[str]] = field(default_factory=dict)
    forever: str = ""
    asked: Counter[str] = field(default_factory=Counter)
    served: Counter[str] = field(default_factory=Counter)
    windows: list[tuple[str, ...]] = field(default_factory=list)
    shuffle: Random = field(default_factory=lambda: Random(0))
    after: Callable[["Source"], None] = lambda _source: None
    name: str = "test"
    is_ready: bool = True

    async def ready(self) -> None:
        """Always."""
        await asyncio.sleep(0)

    async def release(self) -> None:
        """Nothing is held."""

    async def collect(self, cids: Sequence[str], silence_s: float) -> Collected:
        """What fate has for each, in any order."""
        await asyncio.sleep(0)
        self.windows.append(tuple(cids))
        arrived: dict[str, bytes] = {}
        order = list(cids)
        self.shuffle.shuffle(order)
        for cid in order:
            self.asked[cid] += 1
            fates = self.fates.get(cid)
            fate = fates.pop(0) if fates else self.forever or "ok"
            if fate == "gone":
                return Collected(arrived, gone=True)
            if fate != "lost":
                arrived[cid] = self._as(fate, cid)
            if fate == "ok":
                self.served[cid] += 1
        self.after(self)
        return Collected(arrived)

    def _as(self, fate: str, cid: str) -> bytes:
        whole = self.chunks[cid]
        match fate:
            case "flipped":
                return bytes([whole[0] ^ 1]) + whole[1:]
            case "short":
                return whole[:-1]
            case "long":
                return whole + b"\0"
            case "empty":
                return b""
            case "other":
                return next((data for other, data in self.chunks.items() if other != cid), b"other")
            case _:
                return whole


@cache
def _image(count: int = 12, size: int = 1000, seed: int = 1, repeats: int = 2) -> Image:
    random = Random(seed)
    plains = [random.randbytes(size) if number % 3 else bytes([number]) * size for number in range(count)]
    plains += plains[:repeats]  # the same content in several places
    rows, chunks = [], {}
    for plain in plains:
        codec, body = make_body(plain, 3)
        cid, key, ciphertext = encrypt_body(b"d" * 32, codec, body)
        chunks[cid.hex()] = ciphertext
        digests = (hashlib.sha256(plain).digest(), cid, key)
        first, second, third = (base64.b64encode(digest).decode() for digest in digests)
        rows.append((first, second, third, codec, len(plain), len(body)))
    stream = b"".join(plains)
    digest = hashlib.sha256(stream).hexdigest()
    artifact = Artifact(component="app", kind="file", name="app", length=len(stream), sha256=digest, chunks=rows)
    return Image(artifact, stream, chunks)


async def _fetch(
    staging: Path, image: Image, source: Source, options: DownloadSettings = FAST, listeners: Listeners | None = None
) -> tuple[Path, Transfer]:
    async with asyncio.timeout(30):
        return await fetch_artifact(staging, image.artifact, source, options, listeners or Listeners(), Random(3))


@settings(max_examples=60, deadline=None)
@given(
    fates=st.lists(st.lists(st.sampled_from(FATES), max_size=4), min_size=12, max_size=12),
    shuffle=st.integers(0, 2**32),
)
def test_any_fate_gives_the_same_image(fates: list[list[str]], shuffle: int) -> None:
    """Any order, duplication, loss and corruption of chunks: the same bytes, and no verified byte comes twice."""
    image = _image()
    source = Source(image.chunks, dict(zip(image.chunks, map(list, fates), strict=True)), shuffle=Random(shuffle))
    refused: list[ErrorCode] = []
    with TemporaryDirectory() as directory:
        listeners = Listeners(refused=lambda code, _detail: refused.append(code))
        path, transfer = asyncio.run(_fetch(Path(directory), image, source, listeners=listeners))
        assert path.read_bytes() == image.stream
    assert set(source.served.values()) == {1}
    assert transfer.fetched_bytes == sum(len(chunk) for chunk in image.chunks.values())
    assert transfer.present_bytes == transfer.total_bytes == len(image.stream)
    assert transfer.refused == len(refused)
    assert set(refused) <= {ErrorCode.CHUNK}


@pytest.mark.parametrize("fate", ["lost", "flipped", "other"])
async def test_a_source_that_never_gives_the_chunk(tmp_path: Path, fate: str) -> None:
    """Nothing false is ever completed; what is missing is wanted, and the caller's deadline ends it."""
    image = _image()
    victim = list(image.chunks)[5]
    source = Source(image.chunks, {victim: [fate] * 10_000})
    wanted: Counter[str] = Counter()
    enough = asyncio.Event()

    async def want(cids: tuple[str, ...]) -> None:
        wanted.update(cids)
        if wanted[victim] > 3:
            enough.set()

    task = asyncio.create_task(_fetch(tmp_path, image, source, listeners=Listeners(want=want)))
    async with asyncio.timeout(10):
        await enough.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert set(wanted) == {victim}
    staged = _files(tmp_path)[0].read_bytes()
    assert hashlib.sha256(staged).hexdigest() != image.artifact.sha256


async def test_losses_are_backed_off(tmp_path: Path) -> None:
    """A chunk that does not come is not asked for in a tight loop."""
    image = _image()
    victim = next(iter(image.chunks))
    source = Source(image.chunks, {victim: ["lost"] * 10_000})
    slow = DownloadSettings(chunk_timeout_s=0.001, retry_base_s=5.0, retry_cap_s=60.0)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.5):
            await fetch_artifact(tmp_path, image.artifact, source, slow, Listeners(), Random(3))
    assert source.asked[victim] <= 4
    assert set(source.served.values()) == {1}
    assert len(source.served) == len(image.chunks) - 1


async def test_windows_are_bounded(tmp_path: Path) -> None:
    """No window holds more chunks or bytes than the settings say."""
    image = _image(40, 30_000, repeats=0)
    source = Source(image.chunks)
    options = DownloadSettings(window=3, max_window=5, window_bytes=MAX_CHUNK_BYTES + 16)
    await _fetch(tmp_path, image, source, options)
    assert max(map(len, source.windows)) == 5
    for window in source.windows:
        assert sum(len(image.chunks[cid]) for cid in window) <= MAX_CHUNK_BYTES + 16


async def test_the_rate_is_limited(tmp_path: Path) -> None:
    """The average rate stays at or below the limit."""
    image = _image(30, 3000, repeats=0)
    total = sum(len(chunk) for chunk in image.chunks.values())
    options = DownloadSettings(window=4, max_window=4, rate_limit_bytes_s=total * 4)
    started = time.monotonic()
    await _fetch(tmp_path, image, Source(image.chunks), options)
    limited_s = time.monotonic() - started
    assert 0.2 < limited_s < 5


def test_a_kill_costs_only_what_was_not_written(tmp_path: Path) -> None:
    """After a kill at any window, what is on the disk is verified and kept, and only the rest is asked for."""
    image = _image(24, 2000)
    for windows in range(1, 4):
        staging = tmp_path / str(windows)
        staging.mkdir()
        _in_child(
            lambda staging=staging, windows=windows: asyncio.run(  # type: ignore[misc]
                _fetch(
                    staging,
                    image,
                    Source(image.chunks, after=lambda s: os._exit(0) if len(s.windows) > windows else None),
                )
            )
        )
        staged = next(staging.iterdir()).read_bytes()
        kept = _whole(image, staged)
        assert kept
        source = Source(image.chunks)
        path, transfer = asyncio.run(_fetch(staging, image, source))
        assert path.read_bytes() == image.stream
        assert set(source.asked) == set(image.chunks) - kept
        assert transfer.resumed_bytes > 0
        assert transfer.fetched_bytes == sum(len(image.chunks[cid]) for cid in source.asked)


def _whole(image: Image, staged: bytes) -> set[str]:
    return {
        ref.cid.hex()
        for ref in image.artifact.chunk_refs()
        if hashlib.sha256(staged[ref.offset : ref.offset + ref.length]).digest() == ref.sha256
    }


def _files(directory: Path) -> list[Path]:
    return list(directory.iterdir())


def _in_child(work: Callable[[], object]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        try:
            work()
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


@settings(max_examples=40, deadline=None)
@given(damage=st.lists(st.tuples(st.integers(0, 13_999), st.integers(1, 255)), max_size=6), cut=st.integers(1, 14_000))
def test_a_damaged_stage_is_mended(damage: list[tuple[int, int]], cut: int) -> None:
    """Whatever lies in the staging file, a resumed download ends with the image and fetches only what is damaged."""
    image = _image()
    spoiled = bytearray(image.stream[:cut])
    for place, mask in damage:
        if place < len(spoiled):
            spoiled[place] ^= mask
    source = Source(image.chunks)
    with TemporaryDirectory() as directory:
        stage = Path(directory, f"{image.artifact.sha256}.stream")
        stage.write_bytes(spoiled)
        kept = _whole(image, bytes(spoiled).ljust(len(image.stream), b"\0"))
        path, _ = asyncio.run(_fetch(Path(directory), image, source))
        assert path == stage
        assert path.read_bytes() == image.stream
    assert set(source.asked) == set(image.chunks) - kept


async def test_what_is_complete_asks_for_nothing(tmp_path: Path) -> None:
    """A download that is repeated verifies what is there and asks for no chunk."""
    image = _image()
    await _fetch(tmp_path, image, Source(image.chunks))
    again = Source(image.chunks)
    _, transfer = await _fetch(tmp_path, image, again)
    assert not again.windows
    assert transfer.resumed_bytes == len(image.stream)
    assert transfer.fetched_bytes == 0


async def test_an_empty_artifact(tmp_path: Path) -> None:
    """Nothing to fetch is fetched at once."""
    image = _image(0, 1, repeats=0)
    path, _ = await _fetch(tmp_path, image, Source({}))
    assert path.read_bytes() == b""


async def test_progress_and_failed_wants(tmp_path: Path) -> None:
    """Progress only rises; a want that cannot be sent does not end the download."""
    image = _image()
    seen: list[int] = []

    async def want(_cids: tuple[str, ...]) -> None:
        raise ContentError(ErrorCode.SLOW, "no link")

    source = Source(image.chunks, {cid: ["flipped"] for cid in image.chunks})
    listeners = Listeners(progress=lambda transfer: seen.append(transfer.present_bytes), want=want)
    await _fetch(tmp_path, image, source, listeners=listeners)
    assert seen == sorted(seen)
    assert (seen[0], seen[-1]) == (0, len(image.stream))


async def test_a_manifest_that_contradicts_itself(tmp_path: Path) -> None:
    """One chunk described in two ways, or an id that is no id, is E_FORMAT before anything is asked."""
    image = _image(2, 1000, repeats=0)
    rows = list(image.artifact.chunks)
    twice = image.artifact.model_copy(update={"chunks": [rows[0], (rows[1][0], rows[0][1], *rows[1][2:])]})
    bad = image.artifact.model_copy(update={"chunks": [(rows[0][0], "!!", *rows[0][2:]), rows[1]]})
    for artifact in (twice, bad):
        source = Source(image.chunks)
        with pytest.raises(ContentError) as refused:
            await _fetch(tmp_path, Image(artifact, image.stream, image.chunks), source)
        assert refused.value.code is ErrorCode.FORMAT
        assert not source.windows


async def test_chunks_that_do_not_make_the_stream(tmp_path: Path) -> None:
    """Chunks that are each right and together not the stream are E_CHUNK, not an endless download."""
    image = _image()
    artifact = image.artifact.model_copy(update={"sha256": "0" * 64})
    with pytest.raises(ContentError) as refused:
        await _fetch(tmp_path, Image(artifact, image.stream, image.chunks), Source(image.chunks))
    assert refused.value.code is ErrorCode.CHUNK


async def test_a_disk_that_cannot_be_written(tmp_path: Path) -> None:
    """An unusable staging directory is E_SPACE with the path."""
    with pytest.raises(ContentError, match="cannot be read or written") as refused:
        await _fetch(tmp_path / "absent", _image(), Source({}))
    assert refused.value.code is ErrorCode.SPACE


async def test_a_full_disk(tmp_path: Path) -> None:
    """A full disk ends the download with E_SPACE and says what to do."""
    image = _image()
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    former = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limit[1]))
    try:
        with pytest.raises(ContentError, match="disk is full; free some space") as refused:
            await _fetch(tmp_path, image, Source(image.chunks))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, former)
    assert refused.value.code is ErrorCode.SPACE


def _pieces(length: int) -> tuple[bytes, list[str], dict[str, bytes]]:
    sealed = Random(length).randbytes(length)
    cut = [sealed[at : at + PIECE_BYTES] for at in range(0, length, PIECE_BYTES)]
    names = [hashlib.sha256(piece).hexdigest() for piece in cut]
    return sealed, names, dict(zip(names, cut, strict=True))


@pytest.mark.parametrize("length", [1, PIECE_BYTES, PIECE_BYTES + 1, 3 * PIECE_BYTES])
@pytest.mark.parametrize("fate", ["ok", "flipped", "lost", "short", "other"])
async def test_pieces_of_a_sealed_manifest(tmp_path: Path, length: int, fate: str) -> None:
    """The sealed manifest comes whole out of its pieces whatever happens to them, once."""
    sealed, names, chunks = _pieces(length)
    digest = hashlib.sha256(sealed).hexdigest()
    source = Source(chunks, {name: [fate] for name in names})
    arguments = (tmp_path, names, length, digest)
    assert (await fetch_pieces(*arguments, source, FAST, Listeners(), Random(1)))[0] == sealed
    assert set(source.served.values()) == {1}
    again = Source(chunks)
    assert (await fetch_pieces(*arguments, again, FAST, Listeners(), Random(1)))[0] == sealed
    assert not again.windows


@pytest.mark.parametrize(
    ("length", "count", "code"),
    [(0, 1, ErrorCode.OVERSIZE), (65 * 2**20, 1040, ErrorCode.OVERSIZE), (PIECE_BYTES + 1, 1, ErrorCode.FORMAT)],
)
async def test_pieces_that_cannot_be(tmp_path: Path, length: int, count: int, code: ErrorCode) -> None:
    """A length and a number of pieces that do not go together are refused before a file is made."""
    with pytest.raises(ContentError) as refused:
        await fetch_pieces(tmp_path, ["ab" * 32] * count, length, "cd" * 32, Source({}), FAST, Listeners(), Random(1))
    assert refused.value.code is code
    assert not _files(tmp_path)


def test_settings_come_from_device_toml() -> None:
    """Each knob of the two sections reaches the download."""
    download = DownloadSection(window=3, max_window=9, window_bytes=2**21, rate_limit_bytes_s=7)
    timing = TimingSection(chunk_timeout_s=2, connect_backoff_s=3, connect_backoff_cap_s=4)
    assert DownloadSettings.of(download, timing) == DownloadSettings(3, 9, 2**21, 7, 2, 3, 4)
