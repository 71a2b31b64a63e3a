"""The directory installer: the whole way there and back, cut off anywhere, with hostile and honest artifacts."""

import hashlib
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from device_client.errors import ConflictError, DeviceError, NotFoundError, StorageError
from device_client.installers.directory import DirectoryInstaller
from device_client.installers.installer import Next, Running
from device_client.trees import read_tree
from device_client.verification.files import check_tree
from protocol.errors import ContentError, ErrorCode
from protocol.manifest import Artifact, FileEntry, LinkEntry

MakeArtifact = Callable[[dict[str, tuple[int, bytes]], dict[str, str]], tuple[Artifact, bytes]]
DiesAt = Callable[[int, Path, Callable[[], object]], bool]
OLD = {"bin/app": (0o755, b"old program"), "lib/a.py": (0o644, b"a = 1\n"), "lib/deep/b.py": (0o640, b"")}
NEW = {"bin/app": (0o755, b"new program"), "lib/a.py": (0o600, b"a = 2\n"), "share/empty": (0o444, b"")}
LINKS = {"bin/run": "app", "share/up": "../lib/a.py"}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A device that left the factory with 1.0.0."""
    home = tmp_path / "home"
    for name in ("releases", "state", "staging"):
        (home / name).mkdir(parents=True)
    factory = tmp_path / "factory"
    for path, (mode, content) in OLD.items():
        (factory / path).parent.mkdir(parents=True, exist_ok=True)
        (factory / path).write_bytes(content)
        (factory / path).chmod(mode)
    (factory / "bin/run").symlink_to("app")
    _open(home).install_factory(factory, "1.0.0")
    return home


@pytest.fixture
def release(directory_artifact: MakeArtifact, home: Path) -> tuple[Artifact, str]:
    """Version 1.1.0, staged."""
    return _stage(home, *directory_artifact(NEW, LINKS))


def _open(home: Path) -> DirectoryInstaller:
    return DirectoryInstaller(home / "releases", home / "current", home / "state" / "installer.json")


def _stage(home: Path, artifact: Artifact, stream: bytes) -> tuple[Artifact, str]:
    digest = hashlib.sha256(b"manifest of " + stream).hexdigest()
    (home / "staging" / "stream").write_bytes(stream)
    return artifact, digest


def _install(home: Path, release: tuple[Artifact, str], version: str = "1.1.0") -> Path:
    return _open(home).install(home / "staging" / "stream", release[0], version, release[1])


def _runs(home: Path) -> str | None:
    running = _open(home).running()
    return running.version if running else None


def test_the_way_there(home: Path, release: tuple[Artifact, str]) -> None:
    """Install leaves the old version running, activate switches, commit keeps both and names the former."""
    place = _install(home, release)
    check_tree(place, release[0])
    assert _runs(home) == "1.0.0"
    status = _open(home).status()
    assert status.installed is not None
    assert status.installed.digest == release[1]
    assert status.pending is None

    _open(home).activate()
    status = _open(home).status()
    assert status.running == status.pending
    assert status.running is not None
    assert (status.running.version, status.running.digest) == ("1.1.0", release[1])
    assert status.former is not None
    assert status.former.version == "1.0.0"
    assert (home / "current" / "bin" / "app").read_bytes() == b"new program"

    _open(home).commit()
    status = _open(home).status()
    assert status.pending is None
    assert status.installed is None
    assert status.former is not None
    assert _path(status.former).is_dir()
    assert _runs(home) == "1.1.0"


def test_the_way_back(home: Path, release: tuple[Artifact, str]) -> None:
    """A rollback after activation runs the former version again, whole, and removes the new one."""
    before = read_tree((home / "current").resolve())
    place = _install(home, release)
    _open(home).activate()
    assert _open(home).rollback() is Next.NOTHING
    running = _open(home).running()
    assert running is not None
    assert running.version == "1.0.0"
    assert read_tree((home / "current").resolve()) == before
    assert not place.exists()
    assert _open(home).way_back()


def test_rollback_before_activation_drops_what_was_installed(home: Path, release: tuple[Artifact, str]) -> None:
    """What was installed and never activated is removed, and cannot be activated later."""
    place = _install(home, release)
    assert _open(home).rollback() is Next.NOTHING
    assert not place.exists()
    with pytest.raises(ConflictError, match="nothing was installed"):
        _open(home).activate()


def test_every_step_may_be_repeated(home: Path, release: tuple[Artifact, str]) -> None:
    """Each operation done twice, by another object, is the same as done once."""
    assert _install(home, release) == _install(home, release)
    for step in ("activate", "commit", "rollback"):
        getattr(_open(home), step)()
        before = _open(home).status()
        getattr(_open(home), step)()
        assert _open(home).status() == before
    assert _runs(home) == "1.1.0"


def test_installing_what_is_on_trial_changes_nothing(home: Path, release: tuple[Artifact, str]) -> None:
    """Install repeated after activation (a journal that is behind) leaves the trial as it is."""
    _install(home, release)
    _open(home).activate()
    before = _open(home).status()
    _install(home, release)
    assert _open(home).status() == before
    assert _open(home).rollback() is not None
    assert _runs(home) == "1.0.0"


def test_modes_and_links_are_those_of_the_manifest(home: Path, release: tuple[Artifact, str]) -> None:
    """Permission bits do not depend on the umask; folders are 0755; links are links."""
    former = os.umask(0o077)
    try:
        place = _install(home, release)
    finally:
        os.umask(former)
    for path, (mode, content) in NEW.items():
        assert stat.S_IMODE((place / path).stat().st_mode) == mode
        assert path == "share/empty" or (place / path).read_bytes() == content
    assert stat.S_IMODE((place / "share").stat().st_mode) == 0o755
    assert {path: str((place / path).readlink()) for path in LINKS} == LINKS


def test_only_the_former_version_is_kept(home: Path, directory_artifact: MakeArtifact) -> None:
    """After each commit the running version and the one before it lie there, and no record of an older one."""
    for number in range(1, 4):
        content = {"bin/app": (0o755, b"program %d" % number)}
        _install(home, _stage(home, *directory_artifact(content, {})), f"1.{number}.0")
        _open(home).activate()
        _open(home).commit()
    names = sorted(path.name.partition("-")[0] for path in (home / "releases").iterdir())
    assert names == [".records", "1.2.0", "1.3.0"]
    kept = sorted((path.name[:5], path.suffix) for path in (home / "releases" / ".records").iterdir())
    assert kept == [(version, suffix) for version in ("1.2.0", "1.3.0") for suffix in (".chunks", ".json")]


def test_way_back_is_judged_by_hash(home: Path) -> None:
    """One changed byte in the running version, and there is no intact way back."""
    assert _open(home).way_back()
    (home / "current" / "lib" / "a.py").write_bytes(b"a = 9\n")
    assert not _open(home).way_back()


def test_a_damaged_leftover_is_written_again(home: Path, release: tuple[Artifact, str]) -> None:
    """A version that was installed and damaged before activation is replaced by a whole one."""
    place = _install(home, release)
    (place / "bin" / "app").write_bytes(b"tampered...")
    check_tree(_install(home, release), release[0])


def test_the_running_version_is_never_overwritten(home: Path, release: tuple[Artifact, str]) -> None:
    """A damaged version that runs, or that a rollback leads to, is left alone."""
    _install(home, release)
    _open(home).activate()
    (home / "current" / "bin" / "app").write_bytes(b"tampered...")
    with pytest.raises(ContentError) as refused:
        _install(home, release)
    assert refused.value.code is ErrorCode.INSTALL
    assert (home / "current" / "bin" / "app").read_bytes() == b"tampered..."


def test_a_short_stream_is_refused(home: Path, release: tuple[Artifact, str]) -> None:
    """A stream that ends before the manifest does leaves no version in place."""
    (home / "staging" / "stream").write_bytes(b"new")
    with pytest.raises(ContentError) as refused:
        _install(home, release)
    assert refused.value.code is ErrorCode.INSTALL
    assert _open(home).status().installed is None
    assert not [
        path for path in (home / "releases").iterdir() if path.name.startswith("1.1.0-") and ".partial" not in path.name
    ]


def _hostile() -> Iterator[Any]:
    digest = hashlib.sha256(b"evil").hexdigest()

    def artifact(files: list[str], links: list[tuple[str, str]]) -> Artifact:
        # As if the manifest's own checks were gone: the installer must not rely on them.
        return Artifact.model_construct(
            component="app",
            kind="directory",
            name="",
            length=4 * len(files),
            sha256=digest,
            files=[FileEntry.model_construct(path=p, mode=0o644, offset=0, length=4, sha256=digest) for p in files],
            links=[LinkEntry.model_construct(path=p, target=t) for p, t in links],
            chunks=[],
        )

    yield pytest.param(artifact(["../evil"], []), id="file climbs out")
    yield pytest.param(artifact(["a/../../evil"], []), id="file climbs out later")
    yield pytest.param(artifact(["/EVIL"], []), id="absolute file")
    yield pytest.param(artifact(["a/evil"], [("a", "..")]), id="file through a link")
    yield pytest.param(artifact([], [("a", "../evil")]), id="link climbs out")
    yield pytest.param(artifact([], [("a", "/etc")]), id="absolute link")
    yield pytest.param(artifact([], [("../evil", "a")]), id="link stands outside")
    yield pytest.param(artifact(["a", "a"], []), id="one path twice")
    yield pytest.param(artifact(["a", "a/b"], []), id="file below a file")


@pytest.mark.parametrize("artifact", list(_hostile()))
def test_nothing_is_written_outside_of_the_release(tmp_path: Path, home: Path, artifact: Artifact) -> None:
    """Hostile paths end in an error; outside of the release's own directory nothing appears or changes."""
    for entry in artifact.files:
        if entry.path == "/EVIL":
            object.__setattr__(entry, "path", str(tmp_path / "evil"))
    (home / "staging" / "stream").write_bytes(b"evil" * 4)
    before = read_tree((home / "current").resolve())
    with pytest.raises((ContentError, ValueError)):
        _install(home, (artifact, "ab" * 32), "6.6.6")
    assert not [path for path in tmp_path.rglob("evil") if ".partial" not in str(path)]
    assert read_tree((home / "current").resolve()) == before
    assert _open(home).status().installed is None


@pytest.mark.parametrize(
    ("files", "links"),
    [
        (["../evil"], {}),
        (["/evil"], {}),
        (["a//b"], {}),
        (["./a"], {}),
        (["a", "a/b"], {}),
        (["a/b"], {"a": "c"}),
        ([], {"a": "../b"}),
        ([], {"a": "/b"}),
        ([], {"a/b": "../../c"}),
    ],
)
def test_a_manifest_refuses_hostile_paths(
    files: list[str], links: dict[str, str], directory_artifact: MakeArtifact
) -> None:
    """What leaves the tree, or is written through a link, does not even become an artifact."""
    with pytest.raises(ValueError, match=r"path|link|tree|parent"):
        directory_artifact(dict.fromkeys(files, (420, b"")), links)


def test_factory_install_is_idempotent_and_exclusive(tmp_path: Path, home: Path) -> None:
    """The same version again is fine; another one must come as a release."""
    factory = tmp_path / "factory"
    assert _open(home).install_factory(factory, "1.0.0") == _open(home).running()
    with pytest.raises(ConflictError, match="must come as a release"):
        _open(home).install_factory(factory, "1.0.1")


def test_factory_install_follows_a_link_to_the_directory(tmp_path: Path) -> None:
    """The directory may be named by a link."""
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "a").write_bytes(b"a")
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "state").mkdir()
    _open(tmp_path).install_factory(tmp_path / "link", "1.0.0")
    assert (tmp_path / "current" / "a").read_bytes() == b"a"
    assert not (tmp_path / "current").resolve().is_symlink()


def _into_file(source: Path) -> None:
    shutil.rmtree(source)
    source.write_bytes(b"")


@pytest.mark.parametrize(
    ("spoil", "error"),
    [
        (lambda source: source.rename(source.with_name("gone")), NotFoundError),
        (_into_file, DeviceError),
        (lambda source: (source / "link").symlink_to("/etc/passwd"), StorageError),
        (lambda source: os.mkfifo(source / "pipe"), StorageError),
    ],
    ids=["absent", "a file", "link that leaves", "pipe"],
)
def test_factory_install_refuses(tmp_path: Path, spoil: Callable[[Path], object], error: type[DeviceError]) -> None:
    """A source that is no plain tree is one sentence that names it, and nothing runs afterwards."""
    source = tmp_path / "factory2"
    source.mkdir()
    (tmp_path / "state").mkdir()
    spoil(source)
    with pytest.raises(error, match="factory2") as refused:
        _open(tmp_path).install_factory(source, "1.0.0")
    assert "\n" not in str(refused.value)
    assert _runs(tmp_path) is None


def test_a_damaged_state_is_one_sentence(home: Path) -> None:
    """A state file that cannot be read stops the installer; it does not guess."""
    (home / "state" / "installer.json").write_bytes(b'{"pending": ')
    with pytest.raises(StorageError, match=r"installer\.json: damaged"):
        _open(home).activate()
    assert _runs(home) == "1.0.0"


def test_something_else_in_place_of_the_link(home: Path) -> None:
    """Where ``current`` is a directory nothing is switched."""
    (home / "current").unlink()
    (home / "current").mkdir()
    with pytest.raises(StorageError, match="expected a link"):
        _open(home).running()


STEPS = ("install", "activate", "commit", "rollback installed", "rollback activated")


@pytest.mark.parametrize("step", STEPS)
def test_cut_off_anywhere(
    step: str, tmp_path: Path, home: Path, release: tuple[Artifact, str], dies_at: DiesAt
) -> None:
    """A process that dies before any change of the disk leaves a whole version running; the step ends when repeated."""
    if step != "install":
        _install(home, release)
    if step in ("commit", "rollback activated"):
        _open(home).activate()
    old = read_tree(home / "releases" / _name(home, "1.0.0"))
    for number in range(400):
        copy = tmp_path / f"cut-{number}"
        shutil.copytree(home, copy, symlinks=True)
        cut = dies_at(number, copy, lambda copy=copy: _do(step, copy, release))  # type: ignore[misc]
        running = _open(copy).running()
        assert running is not None
        if running.version == "1.0.0":
            assert read_tree(_path(running)) == old
        else:
            assert step not in ("install", "rollback installed")
            check_tree(_path(running), release[0])
        if step != "commit":
            assert (copy / "releases" / _name(copy, "1.0.0")).is_dir(), "the way back is kept"
        _repeat(step, copy, release)
        if cut and step != "commit":
            _open(copy).rollback()
            assert _runs(copy) == "1.0.0"
            assert read_tree((copy / "current").resolve()) == old
        shutil.rmtree(copy)
        if not cut:
            assert number > 1, "nothing was counted"
            return
    pytest.fail("the step never ended")


def _do(step: str, home: Path, release: tuple[Artifact, str]) -> None:
    match step:
        case "install":
            _install(home, release)
        case "activate":
            _open(home).activate()
        case "commit":
            _open(home).commit()
        case _:
            _open(home).rollback()


def _repeat(step: str, home: Path, release: tuple[Artifact, str]) -> None:
    _do(step, home, release)
    status = _open(home).status()
    match step:
        case "install":
            assert status.installed is not None
            check_tree(_path(status.installed), release[0])
        case "activate":
            assert status.pending is not None
            assert status.pending == status.running
        case "commit":
            assert status.running is not None
            assert status.running.version == "1.1.0"
            assert status.former is not None
            assert status.former.version == "1.0.0"
        case _:
            assert status.installed is None
            assert status.pending is None
            assert not [path for path in (home / "releases").iterdir() if path.name.startswith("1.1.0")]


def _name(home: Path, version: str) -> str:
    return next(p.name for p in (home / "releases").iterdir() if p.name.startswith(f"{version}-"))


def test_factory_install_cut_off_anywhere(tmp_path: Path, dies_at: DiesAt) -> None:
    """A factory install that dies anywhere leaves nothing running or the whole version, and ends when repeated."""
    source = tmp_path / "factory"
    (source / "lib").mkdir(parents=True)
    (source / "app").write_bytes(b"app")
    (source / "lib" / "a").write_bytes(b"a")
    expected = read_tree(source)
    for number in range(400):
        home = tmp_path / f"cut-{number}"
        (home / "state").mkdir(parents=True)
        cut = dies_at(number, home, lambda home=home: _open(home).install_factory(source, "1.0.0"))  # type: ignore[misc]
        running = _open(home).running()
        assert running is None or read_tree(_path(running)) == expected
        assert read_tree(_path(_open(home).install_factory(source, "1.0.0"))) == expected
        assert _open(home).way_back()
        if not cut:
            return
    pytest.fail("the factory install never ended")


def _path(version: Running) -> Path:
    assert version.path is not None
    return version.path


def test_a_damaged_version_is_a_fault(home: Path, release: tuple[Artifact, str]) -> None:
    """Before its activation what was installed is judged, and always what runs; the first wrong file is named."""
    place = _install(home, release)
    assert _open(home).fault() == ""
    (place / "bin" / "app").write_bytes(b"changed")
    assert _open(home).fault().startswith(f"{place}: is not as it was written: file 'bin/app': expected ")
    _open(home).rollback()
    assert _open(home).fault() == ""
    (home / "current" / "bin" / "app").write_bytes(b"changed")
    assert "is not as it was written" in _open(home).fault()
    _install(home, release)
    assert "is not as it was written" in _open(home).fault(), "what waits beside it does not hide what runs"
