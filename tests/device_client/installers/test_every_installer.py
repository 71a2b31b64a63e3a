"""One suite for every installer: whatever puts a release in place, the agent may rely on this and nothing else."""

import hashlib
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from device_client.installers.directory import DirectoryInstaller
from device_client.installers.file import FileInstaller
from device_client.installers.installer import Installer, Next
from protocol.errors import ContentError, ErrorCode
from protocol.manifest import Artifact, FileEntry
from tests.device_client.installers import rauc_rig, swupdate_rig
from tests.device_client.installers.mender_bench import Bench

OLD, NEW = "1.0.0", "2.0.0"
DIGEST = "2" * 64
MAX_REBOOTS = 3


@dataclass
class Rig:
    """A device that left the factory with ``OLD``, and a release of ``NEW`` that was fetched.

    Attributes:
        open: The installer, as after a start of the agent: it knows nothing but what is on the disk.
        stream, artifact: The release.
        reboot: Play a boot.
        shows: The version that the device itself runs, whatever the installer says.
        wrong: The artifact with a kind that this installer does not take; None where it takes both.
    """

    open: Callable[[], Installer]
    stream: Path
    artifact: Artifact
    reboot: Callable[[], None]
    shows: Callable[[], str]
    wrong: Artifact | None = None

    def install(self) -> None:
        """As the agent does it, with the comparison that follows."""
        self.open().install(self.stream, self.artifact, NEW, DIGEST)
        assert self.open().fault() == ""

    def go(self, step: str) -> None:
        """Activate or roll back, with the reboots that are asked for; twice, for a step may be repeated."""
        for _ in range(2):
            for _ in range(MAX_REBOOTS):
                if getattr(self.open(), step)() is Next.NOTHING:
                    break
                self.reboot()
            else:
                raise AssertionError(f"{step}: asks for reboots without end")

    @property
    def runs(self) -> str | None:
        """What the installer says that runs."""
        found = self.open().running()
        return found.version if found else None


def _slots(kind: type[DirectoryInstaller] | type[FileInstaller], path: Path) -> Rig:
    home, factory, one = path / "home", path / "factory", kind is FileInstaller
    (home / "state").mkdir(parents=True)
    if one:
        factory.write_text(OLD)
    else:
        factory.mkdir()
        (factory / "version").write_text(OLD)

    def opened() -> Installer:
        return kind(home / "releases", home / "current", home / "state" / "installer.json")

    opened().install_factory(factory, OLD)
    stream = path / "stream"
    stream.write_text(NEW)
    made = _artifact("file" if one else "directory")
    wrong = _artifact("directory" if one else "file")

    def shows() -> str:
        return (home / "current" if one else home / "current" / "version").read_text()

    return Rig(opened, stream, made, lambda: None, shows, wrong)


def _artifact(kind: Any) -> Artifact:
    sha256 = hashlib.sha256(NEW.encode()).hexdigest()
    files = [FileEntry(path="version", mode=0o644, offset=0, length=len(NEW), sha256=sha256)]
    return Artifact.model_construct(
        component="app", kind=kind, name="version", length=len(NEW), sha256=sha256, files=files, links=[], chunks=[],
        executables="", deltas=[],
    )  # fmt: skip


def _mender(path: Path) -> Rig:
    bench = Bench(path).make()
    bench.say("NeedsArtifactReboot", "Automatic")
    made = _artifact("directory")
    (path / "stream").write_text(NEW)
    words = {"old": OLD, NEW: NEW}
    return Rig(lambda: bench.installer, path / "stream", made, bench.reboot, lambda: words[bench.booted])


def _rauc(path: Path, stack: ExitStack) -> Rig:
    rauc_rig.make_key(path)
    (path / "device").mkdir()
    device = rauc_rig.RaucDevice(path / "device", stack.enter_context(rauc_rig.bus(path)), path / "ca.pem")
    device.start()
    stack.callback(device.kill)
    device.installer().install_factory(Path("/factory"), OLD)
    bundle = rauc_rig.make_bundle(path, NEW)

    def shows() -> str:
        return device.slot("rootfs", device.running).read_bytes().split(b"\n")[0].decode().split()[1]

    made, wrong = rauc_rig.artifact(), rauc_rig.artifact("directory")
    return Rig(device.installer, bundle, made, device.reboot, shows, wrong)


def _swupdate(path: Path) -> Rig:
    swupdate_rig.make_key(path)
    (path / "device").mkdir()
    device = swupdate_rig.SwupdateDevice(path / "device", path)
    device.installer().install_factory(Path("/factory"), OLD)

    def shows() -> str:
        number = (device.root / "runs").read_text().strip()
        return device.copy(number).read_bytes().split(b"\n")[0].decode().split()[1]

    made, wrong = rauc_rig.artifact(), rauc_rig.artifact("directory")
    return Rig(device.installer, device.make_image(NEW), made, device.reboot, shows, wrong)


@pytest.fixture(params=["directory", "file", "mender", "rauc", "swupdate"])
def rig(request: pytest.FixtureRequest) -> Iterator[Rig]:
    """Each of them, at a place whose path leaves room for a socket's name."""
    kind: str = request.param
    absent = {"rauc": rauc_rig.missing, "swupdate": swupdate_rig.missing}.get(kind, list)()
    if absent:
        pytest.skip(f"{kind.upper()} IS NOT TESTED: {', '.join(absent)} missing (make backends)")
    with ExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fs-")))
        match kind:
            case "directory":
                yield _slots(DirectoryInstaller, place)
            case "file":
                yield _slots(FileInstaller, place)
            case "mender":
                yield _mender(place)
            case "rauc":
                yield _rauc(place, stack)
            case _:
                yield _swupdate(place)


def test_the_way_there(rig: Rig) -> None:
    """Installing leaves what runs; activating changes over; after the commit it stays, over a boot too."""
    assert (rig.runs, rig.shows(), rig.open().way_back()) == (OLD, OLD, True)
    rig.install()
    assert (rig.runs, rig.shows()) == (OLD, OLD)
    rig.go("activate")
    assert (rig.runs, rig.shows()) == (NEW, NEW)
    running, status = rig.open().running(), rig.open().status()
    assert running is not None and running.digest == DIGEST
    assert status.pending is not None and status.pending.version == NEW
    assert status.former is not None and status.former.version == OLD
    assert rig.open().fault() == ""
    for _ in range(2):
        rig.open().commit()
    rig.reboot()
    assert (rig.runs, rig.shows(), rig.open().status().pending) == (NEW, NEW, None)


@pytest.mark.parametrize("activated", [False, True], ids=["installed", "activated"])
def test_the_way_back(rig: Rig, activated: bool) -> None:
    """From wherever it stands before the commit, to what ran before; nothing of the new one waits any more."""
    rig.install()
    if activated:
        rig.go("activate")
        assert rig.open().way_back()
    rig.go("rollback")
    rig.reboot()
    status = rig.open().status()
    assert (rig.runs, rig.shows(), status.installed, status.pending) == (OLD, OLD, None, None)
    assert rig.open().fault() == ""
    rig.install()
    rig.go("activate")
    assert (rig.runs, rig.shows()) == (NEW, NEW)


def test_a_rollback_of_nothing_changes_nothing(rig: Rig) -> None:
    """A device that gave up before it installed goes back all the same."""
    rig.go("rollback")
    assert (rig.runs, rig.shows()) == (OLD, OLD)


def test_what_it_cannot_install_leaves_what_runs(rig: Rig) -> None:
    """A release of the other kind is refused with E_INSTALL, before anything is touched."""
    if rig.wrong is None:
        pytest.skip("takes both kinds")
    with pytest.raises(ContentError) as error:
        rig.open().install(rig.stream, rig.wrong, NEW, DIGEST)
    assert error.value.code is ErrorCode.INSTALL
    rig.go("rollback")
    assert (rig.runs, rig.shows()) == (OLD, OLD)
