"""Versions side by side: what stands in the way of one step does not undo another; the whole way: test_directory."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from device_client.errors import ConflictError, StorageError
from device_client.installers.directory import DirectoryInstaller
from device_client.installers.records import DIRECTORY
from device_client.installers.slots import slot_name
from device_client.installers.slots_state import SlotsState, save
from protocol.manifest import Artifact

MakeArtifact = Callable[[dict[str, tuple[int, bytes]], dict[str, str]], tuple[Artifact, bytes]]


class Place:
    """Where one installer works, and releases to install."""

    def __init__(self, path: Path, make: MakeArtifact) -> None:
        self.releases, self.current, self.state = path / "releases", path / "current", path / "installer.json"
        self._path, self._make = path, make
        factory = path / "factory"
        factory.mkdir()
        (factory / "app").write_bytes(b"1.0.0")
        self.installer.install_factory(factory, "1.0.0")

    @property
    def installer(self) -> DirectoryInstaller:
        """A new one each time, as after a restart."""
        return DirectoryInstaller(self.releases, self.current, self.state)

    def install(self, version: str) -> Path:
        """Put a version in place."""
        artifact, stream = self._make({"app": (0o755, version.encode())}, {})
        (self._path / "stream").write_bytes(stream)
        digest = hashlib.sha256(version.encode()).hexdigest()
        return self.installer.install(self._path / "stream", artifact, version, digest)

    def stray(self, name: str = "0.9.0-stray") -> Path:
        """A leftover that cannot be removed: where its record should be there is a directory."""
        (self.releases / name).mkdir()
        (self.releases / DIRECTORY / f"{name}.json").mkdir()
        return self.releases / DIRECTORY / f"{name}.json"

    @property
    def runs(self) -> str:
        """The version that is active, as its file says."""
        return (self.current / "app").read_text()


@pytest.fixture
def place(tmp_path: Path, directory_artifact: MakeArtifact) -> Place:
    """A device that runs 1.0.0."""
    return Place(tmp_path, directory_artifact)


@pytest.mark.parametrize("step", ["commit", "rollback"])
def test_a_leftover_that_stays_undoes_nothing(place: Place, step: str) -> None:
    """What was decided is decided: old files that cannot be removed are left for the next time."""
    place.install("1.1.0")
    place.installer.activate()
    in_the_way = place.stray()
    getattr(place.installer, step)()
    assert place.runs == ("1.1.0" if step == "commit" else "1.0.0")
    assert place.installer.status().pending is None
    in_the_way.rmdir()
    (place.releases / "0.9.0-stray").mkdir()
    getattr(place.installer, step)()
    assert not (place.releases / "0.9.0-stray").exists()


def test_a_trial_that_was_never_ended_does_not_block_the_next(place: Place) -> None:
    """Activating runs what was installed last, not an older trial; the way back is still what was proven."""
    place.install("1.1.0")
    place.installer.activate()
    place.install("1.2.0")
    place.installer.activate()
    assert place.runs == "1.2.0"
    place.installer.rollback()
    assert place.runs == "1.0.0"


def test_activating_what_is_gone(place: Place) -> None:
    """The link never points at nothing: the former version goes on running."""
    with pytest.raises(ConflictError, match="nothing was installed"):
        place.installer.activate()
    save(place.state, SlotsState(installed="1.1.0-gone"))
    with pytest.raises(StorageError, match="is gone"):
        place.installer.activate()
    assert place.runs == "1.0.0"


@pytest.mark.parametrize(
    ("version", "digest"), [("../x", "a" * 64), ("1.0.0", "../../etc"), ("", "a" * 64), ("1.0.0", "A" * 64)]
)
def test_a_name_never_leaves_the_releases(version: str, digest: str) -> None:
    """A version or a digest that may not stand in a file name makes no slot."""
    with pytest.raises(ValueError, match=r"version|digest|sha256"):
        slot_name(version, digest)


def test_two_releases_of_one_version(place: Place) -> None:
    """They never share a place."""
    names: set[Any] = {slot_name("1.0.0", "a" * 64), slot_name("1.0.0", "b" * 64)}
    assert len(names) == 2
    assert place.installer.way_back()
