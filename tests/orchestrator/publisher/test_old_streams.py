"""A former version: its stream read in ranges, and where content has moved to."""

import hashlib
import random
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.errors import NotFoundError, OperationError
from orchestrator.publisher.old_streams import BASE_BYTES, OldStream, RangeReader, anchors
from orchestrator.publisher.sources import scan

DATA = random.Random(11).randbytes(900_000)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three files, one of them empty; the stream is ``DATA``."""
    root = tmp_path_factory.mktemp("tree")
    (root / "a").write_bytes(DATA[:70_000])
    (root / "b").write_bytes(b"")
    (root / "c").write_bytes(DATA[70_000:])
    return root


@given(st.tuples(st.integers(0, len(DATA)), st.integers(0, len(DATA))).map(sorted))
def test_any_range_of_the_stream_is_read(tree: Path, ends: list[int]) -> None:
    """Over files' borders and empty files."""
    start, end = ends
    assert RangeReader(scan(tree)).read(start, end - start) == DATA[start:end]


def test_a_file_that_became_shorter_is_named(tmp_path: Path) -> None:
    """What is read a second time may have changed."""
    (tmp_path / "file").write_bytes(b"0123456789")
    reader = RangeReader(scan(tmp_path))
    (tmp_path / "file").write_bytes(b"0123")
    with pytest.raises(OperationError, match=r"file: became shorter"):
        reader.read(0, 10)
    (tmp_path / "file").unlink()
    with pytest.raises(OperationError, match=r"cannot be read"):
        reader.read(0, 10)


def test_a_former_version_that_is_not_there_is_named(tmp_path: Path) -> None:
    """By its path."""
    with pytest.raises(NotFoundError, match="gone"):
        OldStream(tmp_path / "gone", set())


def test_the_stream_is_the_one_that_was_released(tree: Path) -> None:
    """Hash and length are those of the artifact that was made of the same files."""
    old = OldStream(tree, set())
    assert (old.sha256, old.length) == (hashlib.sha256(DATA).hexdigest(), len(DATA))
    assert old.read(60_000, 20_000) == DATA[60_000:80_000]


def test_moved_content_is_found(tree: Path) -> None:
    """A new chunk whose bytes stand 300,000 earlier in the former version says so; one of other bytes says nothing."""
    old = OldStream(tree, set())
    plain = b"new" * 100 + DATA[400_000:450_000]
    assert old.shift(700_000, list(anchors(plain))) == -300_300
    assert old.shift(700_000, list(anchors(random.Random(3).randbytes(50_000)))) is None


def test_what_both_versions_have_has_no_anchors(tree: Path) -> None:
    """Of a former version that is nearly the new one, only what differs is kept in memory."""
    whole = OldStream(tree, set())
    again = OldStream(tree, whole._chunks.keys())
    assert whole._anchors
    assert not again._anchors
    assert again._chunks == whole._chunks


def test_windows_stay_within_the_stream(tree: Path) -> None:
    """Around a place, or as near as the stream allows; the whole of a stream that is smaller."""
    old = OldStream(tree, set())
    for centre, start in ((-5, 0), (450_000, 450_000 - BASE_BYTES // 2), (10**9, len(DATA) - BASE_BYTES)):
        assert old.window(centre) == (start, BASE_BYTES)
    assert OldStream(tree / "a", set()).window(10) == (0, 70_000)


def test_anchors_depend_on_content_alone() -> None:
    """The same bytes in another place have the same anchors; about a quarter of all pieces are kept."""
    first = {anchor for _, anchor in anchors(DATA[:200_000])}
    second = {anchor for _, anchor in anchors(DATA[50_000:200_000])}
    assert len(first & second) > 0.9 * len(second)
    assert 25 < len(first) < 100
    places = [place for place, _ in anchors(DATA[:200_000])]
    assert all(before < after for before, after in pairwise(places))
