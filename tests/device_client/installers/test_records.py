"""The record beside a release: it says whether what lies there is what was written, and nothing less."""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from device_client.installers.records import (
    DIRECTORY,
    FILE_MODE,
    MAX_RECORD_BYTES,
    Record,
    fault,
    file_mode,
    is_intact,
    keep,
    look_up,
    record_artifact,
    record_tree,
)
from device_client.trees import read_tree
from protocol.manifest import Artifact

Files = dict[str, tuple[int, bytes]]
MakeArtifact = Callable[[Files, dict[str, str]], tuple[Artifact, bytes]]
MakeFile = Callable[[bytes, int | None], tuple[Artifact, bytes]]
DIGEST = "ab" * 32


@pytest.fixture
def releases(tmp_path: Path) -> Path:
    """A release of two files and a link, with its record."""
    place = tmp_path / "1.0.0-x"
    place.mkdir()
    (place / "app").write_bytes(b"program")
    (place / "data").write_bytes(b"figures")
    (place / "run").symlink_to("app")
    keep(tmp_path, "1.0.0-x", record_tree(read_tree(place), "1.0.0", DIGEST))
    return tmp_path


def test_what_was_kept_is_found(releases: Path) -> None:
    """Version and digest come back, and the release is intact."""
    record = look_up(releases, "1.0.0-x")
    assert record
    assert (record.version, record.digest) == ("1.0.0", DIGEST)
    assert is_intact(releases, "1.0.0-x")


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda place: (place / "app").write_bytes(b"Program"), "file 'app': expected sha256"),
        (lambda place: (place / "app").write_bytes(b"longer than it was"), "found 18"),
        (lambda place: (place / "app").chmod(0o4644), "found 4644"),
        (lambda place: (place / "data").unlink(), "file 'data' is missing"),
        (lambda place: (place / "more").write_bytes(b""), "'more' was not written with it"),
        (lambda place: os.mkfifo(place / "pipe"), "'pipe' was not written with it"),
        (lambda place: ((place / "run").unlink(), (place / "run").symlink_to("data")), "link 'run': expected target"),
        (lambda place: ((place / "data").unlink(), (place / "data").symlink_to("app")), "another kind"),
    ],
    ids=["content", "length", "setuid", "missing", "added", "pipe", "link", "file is a link"],
)
def test_every_difference_counts(releases: Path, spoil: Callable[[Path], object], says: str) -> None:
    """One changed bit, one mode, one file more or less: no way back, and the first of them is named."""
    spoil(releases / "1.0.0-x")
    assert not is_intact(releases, "1.0.0-x")
    assert says in fault(releases, "1.0.0-x")


@pytest.mark.parametrize(
    "content", [b"", b"{", b"null", b'{"version": "1.0.0"}', b'{"version": "../..", "digest": ""}']
)
def test_a_damaged_record_is_none(releases: Path, content: bytes) -> None:
    """A record that cannot be read proves nothing."""
    (releases / DIRECTORY / "1.0.0-x.json").write_bytes(content)
    assert look_up(releases, "1.0.0-x") is None
    assert not is_intact(releases, "1.0.0-x")


def test_a_release_that_is_gone(releases: Path) -> None:
    """A record without its release, and a release without its record, are both not intact."""
    assert not is_intact(releases, "2.0.0-y")
    (releases / "1.0.0-x").rename(releases / "elsewhere")
    assert not is_intact(releases, "1.0.0-x")


def test_a_record_has_a_bound(releases: Path) -> None:
    """It is read no further than its cap."""
    with (releases / DIRECTORY / "1.0.0-x.json").open("wb") as file:
        file.truncate(MAX_RECORD_BYTES + 1)
    assert look_up(releases, "1.0.0-x") is None


def test_a_manifest_and_its_tree_make_one_record(tmp_path: Path, directory_artifact: MakeArtifact) -> None:
    """What is about to be written and what was written are described alike."""
    files: Files = {"app": (0o755, b"x"), "lib/a": (0o600, b"")}
    artifact, _ = directory_artifact(files, {"run": "app"})
    for path, (mode, content) in files.items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_bytes(content)
        (tmp_path / path).chmod(mode)
    (tmp_path / "run").symlink_to("app")
    tree = read_tree(tmp_path)
    assert record_artifact(artifact, "1.0.0", DIGEST) == record_tree(tree, "1.0.0", DIGEST)
    assert record_artifact(artifact, "1.0.0", DIGEST).difference(tree) == ""


@pytest.mark.parametrize("mode", [None, 0o700])
def test_the_record_of_one_file(file_artifact: MakeFile, mode: int | None) -> None:
    """Its mode is the publisher's where one was given."""
    artifact, _ = file_artifact(b"image", mode)
    assert file_mode(artifact) == (mode or FILE_MODE)
    expected = ("", mode or FILE_MODE, 5, hashlib.sha256(b"image").hexdigest())
    assert record_artifact(artifact, "1.0.0", DIGEST) == Record(
        version="1.0.0", digest=DIGEST, files=[expected], links=[]
    )
