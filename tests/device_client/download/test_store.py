"""What was fetched so far, and what is copied or made by deltas instead of fetched."""

from pathlib import Path
from random import Random

import pytest

from device_client.download.base_stream import Base
from device_client.download.staging import Stage
from device_client.download.store import ArtifactStore, clear_staging
from protocol.errors import ErrorCode
from tests.device_client.download.versions import Release, place, release

RANDOM = Random(8)
PLAINS = [RANDOM.randbytes(3000) for _ in range(4)]
OLD = b"".join(PLAINS)
CHANGED = PLAINS[1][:1500] + b"changed" + PLAINS[1][1500:]


@pytest.fixture
def base(tmp_path: Path) -> Base:
    """The version in place."""
    return Base([place(tmp_path / "slot", {"image": OLD}, PLAINS)])


@pytest.fixture
def new() -> Release:
    """One chunk stays, one changed and has a delta, one is all new; the changed one stands there twice."""
    made = release([PLAINS[0], CHANGED, b"all new" * 100, CHANGED])
    made.add_deltas(OLD, {1: (2000, 6000)})
    return made


@pytest.fixture
def staging(tmp_path: Path) -> Path:
    """Where it is staged."""
    (tmp_path / "staging").mkdir()
    return tmp_path / "staging"


def test_what_runs_is_copied_and_what_changed_comes_as_a_delta(staging: Path, base: Base, new: Release) -> None:
    """Only what is all new is fetched whole; the stream is the very one that was signed."""
    store = ArtifactStore(staging, new.artifact, base)
    missing = store.resume()
    assert list(missing) == [new.delta_cid(), new.cid(2)]
    assert [len(new.chunks[cid]) for cid in missing] == list(missing.values())
    assert (store.present_bytes, store.copied_bytes, store.delta_bytes) == (3000, 3000, 0)
    assert store.write({cid: new.chunks[cid] for cid in missing}) == []
    assert store.present_bytes == store.total_bytes == len(new.stream)
    assert store.delta_bytes == len(new.chunks[new.delta_cid()])
    assert store.complete().read_bytes() == new.stream
    store.close()
    again = ArtifactStore(staging, new.artifact, base)
    assert again.resume() == {}
    assert (again.copied_bytes, again.delta_bytes) == (0, 0), "it was staged"
    again.close()


def test_a_cut_between_copying_and_fetching_loses_nothing(staging: Path, base: Base, new: Release) -> None:
    """What was copied is staged, and what was damaged there is copied again."""
    store = ArtifactStore(staging, new.artifact, base)
    store.resume()
    store.close()
    store = ArtifactStore(staging, new.artifact)  # and the base is gone
    assert list(store.resume()) == [new.cid(1), new.cid(2)]
    store.close()
    with (staging / f"{new.artifact.sha256}.stream").open("r+b") as file:
        file.write(b"damage")
    store = ArtifactStore(staging, new.artifact, base)
    assert len(store.resume()) == 2
    assert store.copied_bytes == 3000
    store.close()


@pytest.mark.parametrize("lie", ["base", "body"])
def test_a_delta_of_no_use_costs_one_more_fetch(
    tmp_path: Path, staging: Path, base: Base, new: Release, lie: str
) -> None:
    """Whether the base changed meanwhile or the delta was made wrong: the chunk is named instead, and that is all."""
    if lie == "body":
        new = release([PLAINS[0], CHANGED])
        new.add_deltas(OLD, {1: (2000, 6000)}, bodies={1: b"(\xb5/\xfd no frame"})
    store = ArtifactStore(staging, new.artifact, base)
    store.resume()
    if lie == "base":
        (tmp_path / "slot" / "image").write_bytes(bytes(len(OLD)))
    cid = new.delta_cid()
    (refusal,) = store.write({cid: new.chunks[cid]})
    assert (refusal.cid, refusal.instead) == (cid, ((new.cid(1), len(new.chunks[new.cid(1)])),))
    assert (store.present_bytes, store.delta_bytes) == (3000, 0)
    assert store.write({new.cid(1): new.chunks[new.cid(1)]}) == []
    assert cid not in store.resume(), "it is not tried twice"
    store.close()


def test_a_delta_that_was_tampered_with_is_refused_like_a_chunk(staging: Path, base: Base, new: Release) -> None:
    """It is not what was signed: the same is asked for again."""
    store = ArtifactStore(staging, new.artifact, base)
    store.resume()
    cid = new.delta_cid()
    (refusal,) = store.write({cid: b"X" + new.chunks[cid][1:]})
    assert (refusal.code, refusal.instead) == (ErrorCode.CHUNK, ())
    assert store.write({cid: new.chunks[cid]}) == []
    store.close()


def test_a_chunk_instead_of_its_delta_is_as_good(staging: Path, base: Base, new: Release) -> None:
    """Both ways lead to the same stream."""
    for using in (base, None):
        store = ArtifactStore(staging, new.artifact, using)
        missing = store.resume()
        store.write({cid: new.chunks[cid] for cid in missing})
        assert store.complete().read_bytes() == new.stream
        store.close()
        clear_staging(staging)


def test_clear_staging_keeps_what_is_named(tmp_path: Path) -> None:
    """Files whose digest is named stay, all others go."""
    for name in ("aa.stream", "bb.stream", "bb.sealed", "cc.sealed"):
        (tmp_path / name).write_bytes(b"")
    clear_staging(tmp_path, frozenset({"bb"}))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bb.sealed", "bb.stream"]
    clear_staging(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_stage_has_the_length_it_should(tmp_path: Path) -> None:
    """A file of another length is cut or filled up; what it holds within is kept."""
    (tmp_path / "long").write_bytes(b"abcdef")
    stage = Stage(tmp_path / "long", 3)
    assert stage.read(0, 9) == b"abc"
    stage.write(1, b"X")
    stage.sync()
    stage.close()
    assert (tmp_path / "long").read_bytes() == b"aXc"
    stage = Stage(tmp_path / "long", 5)
    assert stage.read(0, 9) == b"aXc\0\0"
    assert not stage.is_new
    stage.close()


def test_a_late_thread_cannot_write_to_a_closed_stage(tmp_path: Path) -> None:
    """After close the descriptor may be someone else's: it is never used again."""
    stage = Stage(tmp_path / "file", 3)
    stage.close()
    with pytest.raises(ValueError, match="is closed"):
        stage.write(0, b"abc")
    stage.close()


def test_a_stage_does_not_follow_links(tmp_path: Path) -> None:
    """A link in the staging directory is not written through."""
    (tmp_path / "victim").write_bytes(b"mine")
    (tmp_path / "stage").symlink_to("victim")
    with pytest.raises(Exception, match="E_SPACE"):
        Stage(tmp_path / "stage", 4)
    assert (tmp_path / "victim").read_bytes() == b"mine"
