"""A place for a medium. What may be on a medium: ``test_directory_source``."""

import asyncio
from pathlib import Path

import pytest

from device_client.download.medium_source import MediumSource

A, B = "aa" * 32, "bb" * 32


@pytest.fixture
def stick(tmp_path: Path) -> Path:
    """A medium with one chunk."""
    (tmp_path / "chunks").mkdir()
    (tmp_path / "chunks" / A).write_bytes(b"a")
    return tmp_path


async def test_before_a_medium_was_handed_in_there_is_none(stick: Path) -> None:
    """It is not ready and gives nothing; then it is, and names the folder."""
    source = MediumSource(look_again_s=0.01)
    assert not source.is_ready
    collected = await source.collect([A], 1)
    assert (collected.chunks, collected.gone) == ({}, True)
    waiting = asyncio.create_task(source.ready())
    await asyncio.sleep(0.03)
    assert not waiting.done()
    source.use(stick)
    async with asyncio.timeout(5):
        await waiting
    assert source.name == str(stick)
    assert (await source.collect([A, B], 1)).chunks == {A: b"a"}


async def test_the_next_medium_takes_its_place(stick: Path, tmp_path: Path) -> None:
    """The one before is not asked any more."""
    source = MediumSource()
    source.use(stick)
    other = tmp_path / "other"
    (other / "chunks").mkdir(parents=True)
    (other / "chunks" / B).write_bytes(b"b")
    source.use(other)
    assert (await source.collect([A, B], 1)).chunks == {B: b"b"}


async def test_a_medium_that_is_taken_away(stick: Path) -> None:
    """Nothing is lost: it was never sent. When the medium comes back, so do its chunks."""
    source = MediumSource(look_again_s=0.01)
    source.use(stick)
    (stick / "chunks").rename(stick / "away")
    assert not source.is_ready
    collected = await source.collect([A], 1)
    assert (collected.chunks, collected.gone) == ({}, True)
    (stick / "away").rename(stick / "chunks")
    async with asyncio.timeout(5):
        await source.ready()
    assert (await source.collect([A], 1)).chunks == {A: b"a"}
