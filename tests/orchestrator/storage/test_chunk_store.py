"""Chunks in files: what is read is what its name says, or an error."""

import hashlib
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.errors import NotFoundError, OperationError
from orchestrator.storage.chunk_store import MAX_BYTES, ChunkStore


@pytest.fixture
def store(tmp_path: Path) -> ChunkStore:
    """An empty store."""
    (tmp_path / "chunks").mkdir()
    return ChunkStore(tmp_path / "chunks")


def _cid(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_a_chunk_comes_back(store: ChunkStore, tmp_path: Path) -> None:
    """And is stored once: the second time says that it was there."""
    cid = _cid(b"content")
    assert not store.has(cid)
    assert (store.put(cid, b"content"), store.put(cid, b"content")) == (True, False)
    store.sync()
    assert (store.get(cid), store.has(cid)) == (b"content", True)
    assert [path.name for path in (tmp_path / "chunks").rglob("*") if path.is_file()] == [cid]


def test_what_is_missing(store: ChunkStore) -> None:
    """In the order of the question; getting it says what to do."""
    one, two = _cid(b"1"), _cid(b"2")
    store.put(one, b"1")
    assert store.missing([two, one]) == [two]
    with pytest.raises(NotFoundError, match="publish its release again"):
        store.get(two)


@pytest.mark.parametrize("name", ["", "..", "../x", "a" * 63, "A" * 64, "a/" * 32, f"{'a' * 63}\n"])
def test_hostile_names(store: ChunkStore, name: str) -> None:
    """No name leaves the folder."""
    for ask in (store.get, store.has, lambda cid: store.put(cid, b""), lambda cid: store.remove([cid])):
        with pytest.raises(ValueError, match=r"64 lower-case hex|its name is not its hash"):
            ask(name)


def test_a_name_that_is_not_the_hash(store: ChunkStore) -> None:
    """Nor a chunk that no topic would carry."""
    with pytest.raises(ValueError, match="its name is not its hash"):
        store.put(_cid(b"1"), b"2")
    large = bytes(MAX_BYTES + 1)
    with pytest.raises(ValueError, match="or it is larger"):
        store.put(_cid(large), large)
    assert store.missing([_cid(b"1"), _cid(large)]) == [_cid(b"1"), _cid(large)]


@pytest.mark.parametrize("damage", [b"contenT", b"cont", b"content and more", b""])
def test_damage_is_found_and_mended(store: ChunkStore, tmp_path: Path, damage: bytes) -> None:
    """Damaged bytes are never handed out; what the error says to do works."""
    cid = _cid(b"content")
    store.put(cid, b"content")
    place = tmp_path / "chunks" / cid[:2] / cid
    place.write_bytes(damage)
    with pytest.raises(OperationError, match="damaged; remove it and publish its release again"):
        store.get(cid)
    place.unlink()
    assert store.missing([cid]) == [cid]
    assert store.put(cid, b"content")
    assert store.get(cid) == b"content"


def test_a_write_that_was_cut_off_is_no_chunk(store: ChunkStore, tmp_path: Path) -> None:
    """What a kill left is not seen, and the next writer overwrites it."""
    cid = _cid(b"content")
    place = tmp_path / "chunks" / cid[:2]
    place.mkdir()
    (place / f"{cid}.partial").write_bytes(b"con")
    assert not store.has(cid)
    store.put(cid, b"content")
    assert [path.name for path in place.iterdir()] == [cid]


def test_removing(store: ChunkStore) -> None:
    """What is not there is passed over."""
    one, two = _cid(b"1"), _cid(b"2")
    store.put(one, b"1")
    store.remove([one, two])
    assert store.missing([one, two]) == [one, two]


def test_a_folder_that_is_gone(tmp_path: Path) -> None:
    """One sentence, for writing and for making durable."""
    store = ChunkStore(tmp_path / "absent")
    with pytest.raises(OperationError, match="cannot be written: No such file"):
        store.put(_cid(b"1"), b"1")
    with pytest.raises(OperationError, match="cannot be made durable: No such file"):
        store.sync()


@given(chunks=st.lists(st.binary(max_size=300), max_size=20), cut=st.integers(0, 300))
def test_never_other_bytes_than_the_name_says(
    tmp_path_factory: pytest.TempPathFactory, chunks: list[bytes], cut: int
) -> None:
    """Whatever is put, and wherever a file is cut: the very bytes, or an error."""
    folder = tmp_path_factory.mktemp("chunks")
    store = ChunkStore(folder)
    for data in chunks:
        store.put(_cid(data), data)
    for data in set(chunks):
        place = folder / _cid(data)[:2] / _cid(data)
        os.truncate(place, min(cut, len(data)))
        if cut >= len(data):
            assert store.get(_cid(data)) == data
        else:
            with pytest.raises(OperationError):
                store.get(_cid(data))
