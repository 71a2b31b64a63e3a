"""The file installer: one file per version, a link that is switched, the same way back."""

import shutil
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from device_client.errors import DeviceError
from device_client.installers.file import FileInstaller
from device_client.verification.files import check_tree
from protocol.errors import ContentError, ErrorCode
from protocol.manifest import Artifact

MakeFile = Callable[[bytes, int | None], tuple[Artifact, bytes]]
MakeArtifact = Callable[[dict[str, tuple[int, bytes]], dict[str, str]], tuple[Artifact, bytes]]
DiesAt = Callable[[int, Path, Callable[[], object]], bool]
DIGEST = "cd" * 32


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A device with the file 1.0.0."""
    home = tmp_path / "home"
    (home / "state").mkdir(parents=True)
    (tmp_path / "factory").write_bytes(b"old")
    (tmp_path / "factory").chmod(0o4755)
    _open(home).install_factory(tmp_path / "factory", "1.0.0")
    return home


def _open(home: Path) -> FileInstaller:
    return FileInstaller(home / "releases", home / "current", home / "state" / "installer.json")


def _install(home: Path, artifact: Artifact, stream: bytes) -> Path:
    (home / "stream").write_bytes(stream)
    return _open(home).install(home / "stream", artifact, "1.1.0", DIGEST)


@pytest.mark.parametrize("mode", [None, 0o755, 0o400])
def test_there_and_back(home: Path, file_artifact: MakeFile, mode: int | None) -> None:
    """Install, activate, commit or roll back; the mode is the manifest's, 0644 where it names none."""
    artifact, stream = file_artifact(b"new", mode)
    place = _install(home, artifact, stream)
    check_tree(place, artifact)
    assert stat.S_IMODE(place.stat().st_mode) == (0o644 if mode is None else mode)
    assert (home / "current").read_bytes() == b"old"
    _open(home).activate()
    assert (home / "current").read_bytes() == b"new"
    _open(home).rollback()
    assert (home / "current").read_bytes() == b"old"
    assert _open(home).way_back()
    _install(home, artifact, stream)
    _open(home).activate()
    _open(home).commit()
    running = _open(home).running()
    assert running is not None
    assert (running.version, running.digest) == ("1.1.0", DIGEST)


def test_factory_file_loses_special_bits(home: Path) -> None:
    """A setuid bit of the factory's file is not carried over."""
    running = _open(home).running()
    assert running is not None
    assert running.path is not None
    assert stat.S_IMODE(running.path.stat().st_mode) == 0o755


def test_a_directory_is_refused(home: Path, directory_artifact: MakeArtifact) -> None:
    """An artifact of the other kind is E_INSTALL and nothing is in place."""
    with pytest.raises(ContentError) as refused:
        _install(home, *directory_artifact({"a": (0o644, b"a")}, {}))
    assert refused.value.code is ErrorCode.INSTALL
    assert _open(home).status().installed is None


def test_a_directory_is_no_factory_file(tmp_path: Path) -> None:
    """What left the factory must be a regular file."""
    (tmp_path / "factory").mkdir()
    with pytest.raises(DeviceError, match="not a regular file"):
        _open(tmp_path).install_factory(tmp_path / "factory", "1.0.0")


@pytest.mark.parametrize("step", ["install", "activate", "rollback", "commit"])
def test_cut_off_anywhere(step: str, tmp_path: Path, home: Path, file_artifact: MakeFile, dies_at: DiesAt) -> None:
    """A process that dies before any change of the disk leaves the old or the new file, whole; repeating ends it."""
    artifact, stream = file_artifact(b"new", 0o755)
    if step != "install":
        _install(home, artifact, stream)
    if step in ("rollback", "commit"):
        _open(home).activate()

    def work(home: Path) -> None:
        if step == "install":
            _install(home, artifact, stream)
        else:
            getattr(_open(home), step)()

    for number in range(200):
        copy = tmp_path / f"cut-{number}"
        shutil.copytree(home, copy, symlinks=True)
        cut = dies_at(number, copy, lambda copy=copy: work(copy))  # type: ignore[misc]
        assert (copy / "current").read_bytes() in ((b"old",) if step == "install" else (b"old", b"new"))
        work(copy)
        expected = b"new" if step in ("activate", "commit") else b"old"
        assert (copy / "current").read_bytes() == expected
        if not cut:
            return
    pytest.fail("the step never ended")
