"""Chunks from a medium that comes and goes, and that somebody else may have written."""

import asyncio
import os
import shutil
import threading
from pathlib import Path

import pytest

from device_client.download.directory_source import DirectorySource
from device_client.download.sources import Collected
from protocol.chunks import MAX_CIPHERTEXT_BYTES
from tests.device_client.download.mirror import some_chunks

DEADLINE_S = 5.0


def medium(place: Path, count: int = 6) -> dict[str, bytes]:
    """What an export leaves."""
    chunks = some_chunks(count)
    (place / "chunks").mkdir(parents=True)
    for cid, data in chunks.items():
        (place / "chunks" / cid).write_bytes(data)
    return chunks


async def test_every_chunk_that_is_there(tmp_path: Path) -> None:
    """What is there comes, what is not is lost."""
    chunks = medium(tmp_path)
    source = DirectorySource(tmp_path)
    assert await source.collect([*chunks, "0" * 64], DEADLINE_S) == Collected(chunks)
    assert (source.name, source.is_ready, source.trouble) == (str(tmp_path), True, "")
    await source.release()


async def test_two_windows_at_once(tmp_path: Path) -> None:
    """Each gets its own."""
    chunks = medium(tmp_path)
    source, cids = DirectorySource(tmp_path), list(chunks)
    one, two = await asyncio.gather(source.collect(cids[:3], DEADLINE_S), source.collect(cids[3:], DEADLINE_S))
    assert {**one.chunks, **two.chunks} == chunks


async def test_it_appears_and_vanishes(tmp_path: Path) -> None:
    """Waited for; gone when it is taken away, and then nothing counts as lost; back when it is back."""
    place = tmp_path / "usb"
    source = DirectorySource(place, look_again_s=0.01)
    assert not source.is_ready and "not there" in source.trouble
    assert await source.collect(["0" * 64], DEADLINE_S) == Collected({}, gone=True)
    waiting = asyncio.create_task(source.ready())
    await asyncio.sleep(0)
    assert not waiting.done()
    chunks = medium(place)
    async with asyncio.timeout(DEADLINE_S):
        await waiting
    assert (await source.collect(list(chunks), DEADLINE_S)).chunks == chunks
    shutil.rmtree(place)
    assert not source.is_ready
    assert (await source.collect(list(chunks), DEADLINE_S)).gone
    again = medium(place)
    assert (await source.collect(list(again), DEADLINE_S)).chunks == again


async def test_taken_away_in_the_middle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was read is kept, the rest was not lost."""
    chunks = medium(tmp_path / "usb")
    real, opened = os.open, 0

    def pull(path: object, flags: int, *more: object, **words: object) -> int:
        nonlocal opened
        opened += "dir_fd" in words
        if opened == 4:
            shutil.rmtree(tmp_path / "usb", ignore_errors=True)
        return real(path, flags, *more, **words)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "open", pull)
    collected = await DirectorySource(tmp_path / "usb").collect(list(chunks), DEADLINE_S)
    assert collected.gone
    assert collected.chunks == dict(list(chunks.items())[:3])


@pytest.mark.parametrize("kind", ["link", "fifo", "folder", "empty", "large", "loop", "socket"])
async def test_what_is_no_chunk_is_not_read(tmp_path: Path, kind: str) -> None:
    """A link to a secret, a FIFO that never ends, a file of any size: passed over, and the others come."""
    chunks = medium(tmp_path / "usb")
    bad = next(iter(chunks))
    file = tmp_path / "usb" / "chunks" / bad
    file.unlink()
    match kind:
        case "link":
            (tmp_path / "secret").write_bytes(b"secret")
            file.symlink_to(tmp_path / "secret")
        case "fifo":
            os.mkfifo(file)
        case "folder":
            file.mkdir()
        case "empty":
            file.touch()
        case "large":
            with file.open("wb") as out:
                out.truncate(MAX_CIPHERTEXT_BYTES + 1)
        case "loop":
            file.symlink_to(file)
        case _:
            os.mknod(file, 0o140644)
    async with asyncio.timeout(DEADLINE_S):
        collected = await DirectorySource(tmp_path / "usb").collect(list(chunks), DEADLINE_S)
    del chunks[bad]
    assert collected == Collected(chunks)


async def test_a_linked_chunks_folder_is_not_entered(tmp_path: Path) -> None:
    """A medium cannot make the device read its own disk."""
    chunks = medium(tmp_path / "own")
    (tmp_path / "usb").mkdir()
    (tmp_path / "usb" / "chunks").symlink_to(tmp_path / "own" / "chunks")
    source = DirectorySource(tmp_path / "usb")
    assert not source.is_ready and "expected a directory" in source.trouble
    assert await source.collect(list(chunks), DEADLINE_S) == Collected({}, gone=True)


async def test_a_medium_that_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The window ends after the silence; no more than two threads wait for it, and then it is not ready."""
    chunks, hold = medium(tmp_path), threading.Event()
    real = os.fstat

    def hang(descriptor: int) -> os.stat_result:
        hold.wait(10)
        return real(descriptor)

    monkeypatch.setattr("device_client.download.directory_source.os.fstat", hang)
    source = DirectorySource(tmp_path, look_again_s=0.01)
    try:
        for _ in range(2):
            async with asyncio.timeout(DEADLINE_S):
                assert (await source.collect(list(chunks), 0.05)).chunks == {}
        assert not source.is_ready and "does not answer" in source.trouble
    finally:
        hold.set()
    async with asyncio.timeout(DEADLINE_S):
        await source.ready()
