"""Chunks in files: the name is the proof, and damage is an error, never an answer."""

import hashlib
import stat
from pathlib import Path

import pytest

from orchestrator.errors import NotFoundError, OperationError
from orchestrator.storage.chunk_store import MAX_BYTES, ChunkStore

DATA = b"ciphertext"
CID = hashlib.sha256(DATA).hexdigest()


@pytest.fixture
def store(tmp_path: Path) -> ChunkStore:
    """An empty store."""
    (tmp_path / "chunks").mkdir()
    return ChunkStore(tmp_path / "chunks")


def place(store: ChunkStore) -> Path:
    """The file of the chunk."""
    return store._path / CID[:2] / CID


def test_what_is_put_is_got(store: ChunkStore) -> None:
    """Once new, then known; removed, it is gone."""
    assert store.missing([CID]) == [CID]
    assert store.put(CID, DATA)
    assert not store.put(CID, DATA)
    store.sync()
    assert (store.get(CID), store.has(CID), store.missing([CID])) == (DATA, True, [])
    assert stat.S_IMODE(place(store).parent.stat().st_mode) == 0o700
    assert [path.name for path in place(store).parent.iterdir()] == [CID]
    store.remove([CID, "0" * 64])
    assert not store.has(CID)


@pytest.mark.parametrize(
    "damaged",
    [b"", DATA[:-1], DATA + b"x", b"X" + DATA[1:], b"x" * (MAX_BYTES + 2)],
    ids=["empty", "short", "long", "changed", "huge"],
)
def test_damage_is_an_error(store: ChunkStore, damaged: bytes) -> None:
    """Nothing of a damaged chunk is returned, and the sentence says what to do."""
    store.put(CID, DATA)
    place(store).write_bytes(damaged)
    with pytest.raises(OperationError, match="damaged; remove it and publish its release again"):
        store.get(CID)


def test_a_chunk_of_another_size_is_put_again(store: ChunkStore) -> None:
    """What a crash cut short heals with the next import."""
    store.put(CID, DATA)
    place(store).write_bytes(DATA[:3])
    assert store.put(CID, DATA)
    assert store.get(CID) == DATA


def test_what_is_not_there(store: ChunkStore) -> None:
    """It says what to do."""
    with pytest.raises(NotFoundError, match="publish its release again"):
        store.get(CID)


@pytest.mark.parametrize("cid", ["0" * 64, CID.upper(), "../" + CID[3:], "", CID + "\n"])
def test_a_wrong_name_is_refused(store: ChunkStore, cid: str) -> None:
    """No caller can write or read outside of the store, or give a chunk a name that is not its hash."""
    with pytest.raises(ValueError, match=r"its name is not its hash|expected 64 lower-case hex digits"):
        store.put(cid, DATA)
    assert list(store._path.iterdir()) == []


def test_a_chunk_too_large_for_its_topic_is_refused(store: ChunkStore) -> None:
    """It could never be published."""
    data = bytes(MAX_BYTES + 1)
    with pytest.raises(ValueError, match="larger than"):
        store.put(hashlib.sha256(data).hexdigest(), data)


def test_a_disk_that_does_not_take_it(tmp_path: Path) -> None:
    """One sentence with the place, whether it is writing, reading or syncing."""
    (tmp_path / "file").touch()
    store = ChunkStore(tmp_path / "file")
    with pytest.raises(OperationError, match="cannot be written"):
        store.put(CID, DATA)
    with pytest.raises(OperationError, match="cannot be read"):
        store.get(CID)
    with pytest.raises(OperationError, match="cannot be made durable"):
        ChunkStore(tmp_path / "nothing").sync()
