"""The index of a version in place: believed while it is whole, done without when it is not."""

import hashlib
from pathlib import Path
from random import Random

import pytest
from structlog.testing import capture_logs

from device_client.installers import chunk_index, records
from device_client.installers.chunk_index import (
    MAX_INDEX_BYTES,
    ChunkIndex,
    index_artifact,
    index_tree,
    look_up,
    stream_of,
)
from device_client.installers.directory import DirectoryInstaller
from device_client.trees import read_tree
from tests.device_client.download.versions import Release, b64, release

RANDOM = Random(7)
FILES = {"a": RANDOM.randbytes(3000), "b": b"", "c/d": RANDOM.randbytes(500)}
STREAM = b"".join(FILES.values())


@pytest.fixture
def made() -> Release:
    """A release of three files in two chunks."""
    return release([STREAM[:2000], STREAM[2000:]], FILES)


def installer(home: Path) -> DirectoryInstaller:
    """As after a restart."""
    return DirectoryInstaller(home / "releases", home / "current", home / "installer.json")


def install(home: Path, made: Release, version: str = "1.0.0") -> str:
    """Install and activate; returns the name of the slot."""
    (home / "stream").write_bytes(made.stream)
    place = installer(home).install(home / "stream", made.artifact, version, made.artifact.sha256)
    installer(home).activate()
    installer(home).commit()
    return place.name


def test_an_installed_release_tells_its_stream(tmp_path: Path, made: Release) -> None:
    """Files, hash and cuts, as the manifest had them."""
    name = install(tmp_path, made)
    (stream,) = installer(tmp_path).streams()
    assert stream.root == tmp_path / "releases" / name
    assert stream.sha256 == made.artifact.sha256
    assert stream.files == tuple((e.path, e.length, e.sha256) for e in made.artifact.files)
    assert stream.chunks == tuple((ref.sha256, ref.length) for ref in made.artifact.chunk_refs())


def test_the_running_version_comes_first_and_the_former_is_there(tmp_path: Path, made: Release) -> None:
    """While two versions are kept both can be copied from; what is removed takes its index along."""
    names = [install(tmp_path, made, f"1.{number}.0") for number in range(3)]
    assert [stream.root.name for stream in installer(tmp_path).streams()] == [names[2], names[1]]
    assert not list((tmp_path / "releases" / records.DIRECTORY).glob("1.0.0*"))


def test_what_left_the_factory_tells_its_files_and_its_hash(tmp_path: Path) -> None:
    """No manifest says how it was cut, but deltas against its stream can be used."""
    for path, content in FILES.items():
        (tmp_path / "factory" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "factory" / path).write_bytes(content)
    installer(tmp_path).install_factory(tmp_path / "factory", "0.9.0")
    (stream,) = installer(tmp_path).streams()
    assert (stream.sha256, stream.chunks) == (hashlib.sha256(STREAM).hexdigest(), ())
    assert [path for path, _, _ in stream.files] == list(FILES)


def test_the_index_of_a_single_file_is_its_own(tmp_path: Path) -> None:
    """The root is the file."""
    (tmp_path / "file").write_bytes(STREAM)
    record = records.record_tree(read_tree(tmp_path / "file"), "1.0.0", "")
    assert index_tree(tmp_path / "file", record).sha256 == hashlib.sha256(STREAM).hexdigest()


@pytest.mark.parametrize("harm", ["flip", "cut", "empty", "huge", "gone", "newer", "lengths", "text"])
def test_a_damaged_index_is_done_without(tmp_path: Path, made: Release, harm: str) -> None:
    """Files are still known by the record; the way back and the running version are not touched by it."""
    name = install(tmp_path, made)
    path = tmp_path / "releases" / records.DIRECTORY / f"{name}.chunks"
    data = path.read_bytes()
    whole = ChunkIndex.model_validate_json(data.partition(b"\n")[2])
    match harm:
        case "flip":
            path.write_bytes(data.replace(b"A", b"B"))
        case "cut":
            path.write_bytes(data[:-10])
        case "empty":
            path.write_bytes(b"")
        case "huge":
            path.write_bytes(data + b" " * MAX_INDEX_BYTES)
        case "gone":
            path.unlink()
        case "newer":
            body = data.partition(b"\n")[2].replace(b'"v":1', b'"v":2')
            path.write_bytes(hashlib.sha256(body).hexdigest().encode() + b"\n" + body)
        case "lengths":
            chunk_index.keep(tmp_path / "releases", name, whole.model_copy(update={"length": 3501}))
        case "text":
            chunks = [("=", 3500)]
            chunk_index.keep(tmp_path / "releases", name, whole.model_copy(update={"chunks": chunks}))
    (stream,) = installer(tmp_path).streams()
    assert stream.chunks == ()
    assert len(stream.files) == 3
    assert (stream.sha256 == "") == (harm != "text")
    assert installer(tmp_path).way_back()


def test_an_index_that_cannot_be_written_stops_nothing(tmp_path: Path, made: Release) -> None:
    """It saves bytes the next time; the update itself does not need it. The operator's log says it."""
    folder = tmp_path / records.DIRECTORY
    folder.mkdir()
    (folder / "x.chunks").mkdir()
    with capture_logs() as logs:
        chunk_index.keep(tmp_path, "x", index_artifact(made.artifact))
    assert [entry["event"] for entry in logs] == ["chunk index not kept"]


def test_an_index_beyond_its_bound_is_not_written(tmp_path: Path, made: Release) -> None:
    """What could not be read again is not kept; an older one of the same name goes."""
    (tmp_path / records.DIRECTORY).mkdir()
    chunk_index.keep(tmp_path, "x", index_artifact(made.artifact))
    assert look_up(tmp_path, "x") == index_artifact(made.artifact)
    rows = [(b64(bytes(32)), 100)] * (MAX_INDEX_BYTES // 50)
    chunk_index.keep(tmp_path, "x", ChunkIndex(sha256="ab" * 32, length=1, chunks=rows))
    assert look_up(tmp_path, "x") is None


def test_without_a_record_nothing_is_known(tmp_path: Path, made: Release) -> None:
    """An index alone names no files."""
    name = install(tmp_path, made)
    (tmp_path / "releases" / records.DIRECTORY / f"{name}.json").unlink()
    assert stream_of(tmp_path / "releases", name) is None
    assert installer(tmp_path).streams() == ()
