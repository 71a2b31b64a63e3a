"""What is in place: read where it is whole, absent where anything about it has changed."""

import os
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_client.download.base_stream import Base
from protocol.chunks import ChunkRef
from tests.device_client.download.versions import place, release

RANDOM = Random(4)
PLAINS = [RANDOM.randbytes(1000) for _ in range(6)]
STREAM = b"".join(PLAINS)
FILES = {"a": STREAM[:2500], "b/empty": b"", "b/x": STREAM[2500:2600], "c": STREAM[2600:]}


def refs(*plains: bytes) -> list[ChunkRef]:
    """Chunks of a new version."""
    return list(release(plains).artifact.chunk_refs())


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    """The version in place, whole."""
    return Base([place(tmp_path_factory.mktemp("slot"), FILES, PLAINS)])


@given(st.tuples(st.integers(0, len(STREAM)), st.integers(0, len(STREAM))).map(sorted))
def test_any_range_is_read(base: Base, ends: list[int]) -> None:
    """Over files' borders and empty files."""
    start, end = ends
    assert base.read(sha256(), start, end - start) == STREAM[start:end]


def sha256() -> str:
    """Of the stream in place."""
    return release(PLAINS).artifact.sha256


def test_what_is_outside_or_of_another_stream_is_not_there(base: Base) -> None:
    """A manifest may name any range of any stream."""
    assert base.has(sha256())
    assert not base.has("ab" * 32)
    assert base.read("ab" * 32, 0, 10) is None
    assert base.read(sha256(), len(STREAM) - 5, 6) is None
    assert base.read(sha256(), -1, 2) is None
    assert Base([]).read(sha256(), 0, 1) is None


def _shorten(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def _lengthen(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"x")


def _link(path: Path) -> None:
    path.rename(path.with_name("moved"))
    path.symlink_to("moved")


def _pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("harm", [_shorten, _lengthen, _link, _pipe, _folder, Path.unlink])
def test_a_file_that_is_another_one_is_absent(tmp_path: Path, harm: Callable[[Path], None]) -> None:
    """Never an error, never a wait, never another file's bytes; what lies in other files is still read."""
    base = Base([place(tmp_path, FILES, PLAINS)])
    harm(tmp_path / "b" / "x")
    assert base.read(sha256(), 2450, 100) is None
    assert base.read(sha256(), 0, 2500) == STREAM[:2500]
    copies = base.copies_of([])
    assert [copies.read(ref) is not None for ref in refs(*PLAINS)] == [True, True, False, True, True, True]


def test_a_chunk_is_copied_whatever_its_place_is_now(base: Base) -> None:
    """By its plain hash; a chunk that is not there is not."""
    copies = base.copies_of([])
    moved = refs(b"new", PLAINS[4], PLAINS[0])
    assert [copies.read(ref) for ref in moved] == [None, PLAINS[4], PLAINS[0]]


def test_changed_bytes_are_never_copied(tmp_path: Path) -> None:
    """A file of the same length with another byte: what was signed decides, not what was noted."""
    base = Base([place(tmp_path, FILES, PLAINS)])
    content = bytearray(FILES["c"])
    content[0] ^= 1
    (tmp_path / "c").write_bytes(content)
    copies = base.copies_of(release(PLAINS, FILES).artifact.files)
    assert [copies.read(ref) is not None for ref in refs(*PLAINS)] == [True, True, False, True, True, True]


def test_whole_files_give_chunks_where_no_cuts_were_noted(tmp_path: Path) -> None:
    """What left the factory: a chunk is made of the files that it consists of, if all of them are in place."""
    base = Base([place(tmp_path, FILES, noted=False)])
    assert not base.has(sha256())
    assert not base.has("")
    new_files = {"a": FILES["a"], "added": b"n" * 500, "renamed": FILES["c"], "x": FILES["b/x"]}
    stream = b"".join(new_files.values())
    plains = [stream[:1000], stream[1000:2500], stream[2500:4000], stream[4000:5000], stream[5000:]]
    new = release(plains, new_files)
    copies = base.copies_of(new.artifact.files)
    assert [copies.read(ref) for ref in new.artifact.chunk_refs()] == [*plains[:2], None, *plains[3:]]


def test_the_first_of_two_versions_is_preferred_and_both_are_used(tmp_path: Path) -> None:
    """What only the former version has is copied from there."""
    running = place(tmp_path / "running", {"a": PLAINS[0] + PLAINS[1]}, PLAINS[:2])
    former = place(tmp_path / "former", {"a": PLAINS[1] + PLAINS[2]}, PLAINS[1:3])
    copies = Base([running, former]).copies_of([])
    assert [copies.read(ref) for ref in refs(*PLAINS[:4])] == [*PLAINS[:3], None]
    (tmp_path / "former" / "a").unlink()
    assert [copies.read(ref) for ref in refs(*PLAINS[:4])] == [*PLAINS[:2], None, None]


def test_a_single_file_is_its_own_root(tmp_path: Path) -> None:
    """The root of a version that is one file is the file."""
    (tmp_path / "image").write_bytes(STREAM)
    installed = place(tmp_path / "x", {"image": STREAM}, PLAINS)
    single = Base([type(installed)(tmp_path / "image", (("", *installed.files[0][1:]),), installed.sha256)])
    assert single.read(sha256(), 10, 20) == STREAM[10:30]
