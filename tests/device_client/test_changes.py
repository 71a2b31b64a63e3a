"""What changes the device, step by step: a disk that fails for a moment undoes nothing, one that stays so is told."""

import asyncio
import shlex
from pathlib import Path
from typing import Any

import pytest

from device_client.agent.journal import Update
from device_client.changes import Changes
from device_client.config_installers import InstallerSection
from device_client.errors import DeviceError
from device_client.installers.installer import InstallError, Next
from device_client.last_outcome import LastOutcome
from device_client.last_update import LastUpdate
from device_client.logind import Logind
from device_client.shutdown_lock import ShutdownLock
from protocol.errors import ContentError, ErrorCode, ProtocolError
from protocol.states import State
from tests.device_client.buses import private_bus
from tests.device_client.lab import Lab, SealedRelease, until


class Bench:
    """A device that has fetched 1.1.0."""

    def __init__(self, path: Path, **section: Any) -> None:
        self.lab = lab = Lab(path)
        lab.factory()
        self.release: SealedRelease = lab.publish(files={"app": b"new"}, counter=3)
        lab.refresh()
        last = LastUpdate(lab.home.state / "last-update")
        self.outcome = LastOutcome(lab.home.state / "last-outcome.json")
        section = {"health": ["/bin/sh", "-c", "cat app; echo $FLAGSHIP_VERSION"]} | section
        self.changes = Changes(
            InstallerSection(**section), lab.verifier, lab.installer, last, lab.fetcher, last_outcome=self.outcome
        )
        self.update = Update(
            offer=lab.offer(self.release),
            state=State.INSTALLING,
            component="app",
            version="1.1.0",
            from_version="1.0.0",
        )

    async def activated(self) -> "Bench":
        """The new version runs, on trial."""
        await self.lab.fetcher.fetch(self.update)
        await self.changes.install(self.update)
        assert self.changes.running_version() == "1.0.0"
        await self.changes.activate(self.update)
        assert self.changes.running_version() == "1.1.0"
        return self

    async def proven(self) -> Any:
        """What the check says."""
        return await self.changes.prove(self.update, self.lab.verifier.check(self.release.ref))


@pytest.fixture
async def bench(tmp_path: Path) -> Bench:
    """On trial."""
    return await Bench(tmp_path / "home").activated()


async def test_the_whole_way(bench: Bench) -> None:
    """The check runs in the new version's folder and is told its version; a commit notes counter and time."""
    result = await bench.proven()
    assert (result.ok, result.log) == (True, "new1.1.0\n")
    await bench.changes.commit(bench.update)
    assert bench.lab.verifier.floors.counters == {"app": 3}
    assert bench.lab.installer.status().pending is None
    assert bench.changes.runs(bench.release.ref)
    await bench.changes.clean_up(bench.update)
    assert list(bench.lab.home.staging.iterdir()) == []


async def test_what_runs_is_not_what_was_installed(bench: Bench) -> None:
    """One changed byte, or another version that runs, is E_POSTINSTALL before any check is asked."""
    app = bench.lab.home.current / "app"
    app.write_bytes(b"New")
    with pytest.raises(ContentError) as error:
        await bench.proven()
    assert error.value.code is ErrorCode.POSTINSTALL
    bench.lab.installer.rollback()
    with pytest.raises(ContentError, match="is not what runs") as error:
        await bench.proven()
    assert error.value.code is ErrorCode.POSTINSTALL


async def test_the_keys_are_asked_again(tmp_path: Path) -> None:
    """A release that was withdrawn after it was fetched is neither written nor switched to."""
    bench = Bench(tmp_path / "home")
    await bench.lab.fetcher.fetch(bench.update)
    await bench.changes.install(bench.update)
    bench.lab.repository.releases.targets.clear()
    bench.lab.repository.bump()
    bench.lab.refresh()
    for step in (bench.changes.install, bench.changes.activate):
        with pytest.raises(ProtocolError) as error:
            await step(bench.update)
        assert error.value.code is ErrorCode.NOT_RELEASED
    assert bench.changes.running_version() == "1.0.0"


@pytest.mark.parametrize("code", [ErrorCode.HEALTH, None])
async def test_the_way_back(bench: Bench, code: ErrorCode | None) -> None:
    """What failed is set aside; what was called back is not."""
    await bench.changes.return_to_former(bench.update.model_copy(update={"code": code}))
    assert bench.changes.running_version() == "1.0.0"
    set_aside = {bench.release.ref.sha256: 1} if code else {}
    assert bench.lab.verifier.floors.quarantine == set_aside


async def test_a_disk_that_fails_for_a_moment(bench: Bench) -> None:
    """A link that cannot be switched just now is switched a moment later; notes are tried until they are kept."""
    link = bench.lab.home.path / ".current.new"
    note = bench.lab.home.state / ".floors-a.json.new"
    for blocked in (link, note):
        blocked.mkdir()
    work = asyncio.create_task(
        bench.changes.return_to_former(bench.update.model_copy(update={"code": ErrorCode.HEALTH}))
    )
    await asyncio.sleep(0.1)
    link.rmdir()
    await until(lambda: bench.changes.running_version() == "1.0.0")
    assert not work.done()
    note.rmdir()
    await work
    assert bench.lab.verifier.floors.quarantine == {bench.release.ref.sha256: 1}


async def test_a_way_back_that_stays_shut(bench: Bench) -> None:
    """After some tries it is said, and what runs goes on running."""
    (bench.lab.home.path / ".current.new").mkdir()
    with pytest.raises(DeviceError, match="current"):
        await bench.changes.return_to_former(bench.update)
    assert bench.changes.running_version() == "1.1.0"


async def test_a_former_version_that_is_another(bench: Bench) -> None:
    """What runs after the way back must be what ran before; anything else is named."""
    with pytest.raises(ContentError, match=r"1\.0\.0 runs, expected 0\.9\.0") as error:
        await bench.changes.return_to_former(bench.update.model_copy(update={"from_version": "0.9.0"}))
    assert error.value.code is ErrorCode.INSTALL


class NeedsReboot:
    """The directory installer on a system that changes over by a reboot only."""

    def __init__(self, installer: Any) -> None:
        self._installer = installer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._installer, name)

    def activate(self) -> Next:
        """As it is, and a reboot."""
        self._installer.activate()
        return Next.REBOOT

    def rollback(self) -> Next:
        """The same."""
        self._installer.rollback()
        return Next.REBOOT


@pytest.mark.parametrize(
    ("program", "says"),
    [
        ("echo going down", r"did not reboot within 0\.05 s of sh"),
        ("echo no right >&2; exit 1", "reboot sh ended with code 1"),
    ],
)
async def test_a_reboot_that_does_not_come(tmp_path: Path, program: str, says: str) -> None:
    """The program is run, and who is still there some time after it says so."""
    bench = Bench(tmp_path / "home", reboot=["sh", "-c", f"touch {tmp_path}/asked; {program}"], reboot_timeout_s=0.05)
    bench.changes._installer = NeedsReboot(bench.lab.installer)
    with pytest.raises(InstallError, match=says) as error:
        await bench.activated()
    assert (tmp_path / "asked").exists()
    assert error.value.code is ErrorCode.INSTALL
    assert error.value.log == ("no right\n" if "right" in program else "")


async def test_an_idle_device_gives_up_a_trial_by_a_reboot(tmp_path: Path) -> None:
    """Where the former version comes back only so; one that does not come is said, and the device goes on."""
    bench = await Bench(tmp_path / "home", reboot=["touch", str(tmp_path / "asked")], reboot_timeout_s=0.05).activated()
    bench.changes._installer = NeedsReboot(bench.lab.installer)
    await asyncio.to_thread(bench.changes.begin_idle)
    assert (tmp_path / "asked").exists()
    assert bench.changes.running_version() == "1.0.0"


async def test_an_idle_device_gives_up_a_trial(bench: Bench) -> None:
    """Without a journal a trial is ended and what is staged is cleared; what was committed stays as it is."""
    await asyncio.to_thread(bench.changes.begin_idle)
    assert bench.changes.running_version() == "1.0.0"
    assert list(bench.lab.home.staging.iterdir()) == []
    await asyncio.to_thread(bench.changes.begin_idle)
    assert bench.changes.running_version() == "1.0.0"


async def test_a_device_that_cannot_tell(bench: Bench) -> None:
    """A damaged link or state: nothing is claimed, nothing raised where nobody could help."""
    bench.lab.home.installer.write_bytes(b"{")
    bench.changes.begin_idle()
    assert bench.changes.running_version() == "1.1.0"
    bench.lab.home.current.unlink()
    bench.lab.home.current.mkdir()
    assert not bench.changes.runs(bench.release.ref)


class Watched:
    """The directory installer, and who inhibits a shutdown while it works."""

    def __init__(self, installer: Any, logind: Logind) -> None:
        self._installer = installer
        self._logind = logind
        self.seen: list[tuple[str, list[str]]] = []

    def __getattr__(self, name: str) -> Any:
        def watched(*words: Any) -> Any:
            self.seen.append((name, [inhibitor.why for inhibitor in self._logind.presence().inhibitors]))
            return getattr(self._installer, name)(*words)

        return watched if name in {"install", "activate", "commit", "rollback"} else getattr(self._installer, name)


async def test_no_shutdown_while_software_is_changed(tmp_path: Path) -> None:
    """A lock is held over each step that must not be cut off, and over nothing else."""
    with private_bus(tmp_path) as bus:
        bus.start("logind", "org.freedesktop.login1")
        logind = Logind(bus.bus)
        bench = Bench(tmp_path / "home")
        bench.changes._lock = ShutdownLock(logind)
        watched = bench.changes._installer = Watched(bench.lab.installer, logind)

        def is_free() -> bool:
            return not logind.presence().inhibitors

        await bench.activated()
        await until(is_free)
        await bench.changes.return_to_former(bench.update)
        await until(is_free)
        await bench.activated()
        await bench.changes.commit(bench.update)
        await until(is_free)
        assert watched.seen == [
            ("install", ["installing 1.1.0"]),
            ("activate", ["activating 1.1.0"]),
            ("rollback", ["going back to the former version"]),
            ("install", ["installing 1.1.0"]),
            ("activate", ["activating 1.1.0"]),
            ("commit", ["committing 1.1.0"]),
        ]


async def test_our_own_reboot_is_not_inhibited(tmp_path: Path) -> None:
    """The lock is released before the program that reboots is run."""
    with private_bus(tmp_path) as bus:
        bus.start("logind", "org.freedesktop.login1")
        logind = Logind(bus.bus)
        asked = tmp_path / "asked"
        words = ["dbus-send", f"--bus={bus.address}", "--print-reply", "--dest=org.freedesktop.login1"]
        words += ["/org/freedesktop/login1", "org.freedesktop.login1.Manager.ListInhibitors"]
        script = f"sleep 0.3; {shlex.join(words)} > {asked}"
        bench = Bench(tmp_path / "home", reboot=["sh", "-c", script], reboot_timeout_s=0.05)
        bench.changes._lock = ShutdownLock(logind)
        bench.changes._installer = NeedsReboot(bench.lab.installer)
        with pytest.raises(InstallError, match="did not reboot"):
            await bench.activated()
        assert "array [" in asked.read_text()
        assert "activating" not in asked.read_text()


async def test_how_it_ended_is_kept_with_the_cleaning_up(bench: Bench) -> None:
    """Only an outcome is kept: room that is made in the middle of an update ends nothing."""
    await bench.changes.clean_up(bench.update)
    assert bench.outcome() is None
    await bench.changes.clean_up(bench.update.model_copy(update={"state": State.SUCCEEDED}))
    ending = bench.outcome()
    assert ending
    assert (ending.state, ending.version, ending.at) == (State.SUCCEEDED, "1.1.0", bench.lab.clock.now())
