"""SWUpdate, the real one: streamed to, activated, kept or returned from; cut off and repeated at every step."""

import os
import signal
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from device_client.installers import copies_state
from device_client.installers.copies_state import CopiesState, Stage, Trial
from device_client.installers.installer import InstallError, Next
from device_client.installers.swupdate import SwupdateInstaller
from tests.device_client.installers import swupdate_rig
from tests.device_client.installers.rauc_rig import artifact, wait_for
from tests.device_client.installers.swupdate_rig import SwupdateDevice, image

pytestmark = pytest.mark.skipif(
    bool(swupdate_rig.missing()),
    reason=f"SWUPDATE IS NOT TESTED: {', '.join(swupdate_rig.missing())} missing; {swupdate_rig.PACKAGES}",
)
NEW = "2" * 64
COPY_TAIL = 100_000
DiesAt = Callable[[int, Path, Callable[[], object]], bool]


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("swu")
    swupdate_rig.make_key(folder)
    return folder


@pytest.fixture
def device(tmp_path: Path, keys: Path) -> Iterator[SwupdateDevice]:
    device = SwupdateDevice(tmp_path, keys)
    device.installer().install_factory(Path("/factory/1.0.0"), "1.0.0")
    yield device
    (tmp_path / "hold").unlink(missing_ok=True)


def install(device: SwupdateDevice, staged: Path, **settings: object) -> SwupdateInstaller:
    installer = device.installer(**settings)  # type: ignore[arg-type]
    installer.install(staged, artifact(), "2.0.0", NEW)
    return installer


def running(device: SwupdateDevice) -> str | None:
    found = device.installer().running()
    return None if found is None else found.version


def test_installed_activated_kept(device: SwupdateDevice) -> None:
    """The other copy is written; it runs after the reboot, and the boot loader stays with it after the commit."""
    installer = install(device, device.make_image("2.0.0"))
    assert device.copy("2").read_bytes() == image("2.0.0") and device.copy("1").read_bytes() == image("1.0.0")
    status = installer.status()
    assert status.installed is not None and status.installed.version == "2.0.0" and status.pending is None
    assert device.starts_next() == "1" and installer.fault() == "" and installer.way_back()
    assert list((device.root / "work").iterdir()) == []

    assert installer.activate() is Next.REBOOT and device.installer().activate() is Next.REBOOT
    assert device.starts_next() == "2" and running(device) == "1.0.0"
    device.reboot()
    after = device.installer()
    assert after.activate() is Next.NOTHING
    status = after.status()
    assert status.running is not None and (status.running.version, status.running.digest) == ("2.0.0", NEW)
    assert status.pending == status.running and status.former is not None and status.former.version == "1.0.0"
    assert not (device.root / "kept").exists()
    after.commit()
    after.commit()
    assert (device.root / "kept").read_text() == "2\n" and after.status().pending is None
    assert after.rollback() is Next.NOTHING and running(device) == "2.0.0"


@pytest.mark.slow
def test_next_release_takes_the_former_copy(device: SwupdateDevice) -> None:
    """The second update goes where the first one came from."""
    install(device, device.make_image("2.0.0")).activate()
    device.reboot()
    device.installer().commit()
    installer = device.installer()
    installer.install(device.make_image("3.0.0"), artifact(), "3.0.0", "3" * 64)
    assert device.copy("1").read_bytes() == image("3.0.0") and installer.status().former is None


@pytest.mark.slow
@pytest.mark.parametrize("activated", [False, True], ids=["installed", "activated"])
def test_rolled_back_before_the_reboot(device: SwupdateDevice, activated: bool) -> None:
    """The running copy is the one that starts next."""
    installer = install(device, device.make_image("2.0.0"))
    if activated:
        installer.activate()
    assert installer.rollback() is Next.NOTHING and device.installer().rollback() is Next.NOTHING
    assert device.starts_next() == "1" and running(device) == "1.0.0"
    assert installer.status().installed is None and installer.status().pending is None


@pytest.mark.slow
def test_rolled_back_after_the_reboot(device: SwupdateDevice) -> None:
    """The former copy is started by a reboot; called again after it, there is nothing left to do."""
    install(device, device.make_image("2.0.0")).activate()
    device.reboot()
    assert device.installer().rollback() is Next.REBOOT and device.starts_next() == "1"
    device.reboot()
    assert device.installer().rollback() is Next.NOTHING and running(device) == "1.0.0"
    assert device.installer().status().pending is None


@pytest.mark.slow
def test_boot_loader_that_fell_back(device: SwupdateDevice) -> None:
    """A copy that does not start is an error, and what ran before is the one that starts."""
    install(device, device.make_image("2.0.0")).activate()
    device.reboot(starts=False)
    with pytest.raises(InstallError, match="the boot loader fell back"):
        device.installer().activate()
    assert device.installer().rollback() is Next.NOTHING
    assert device.starts_next() == "1" and running(device) == "1.0.0"


def test_refused_images(device: SwupdateDevice, tmp_path: Path) -> None:
    """Other hardware, a flipped byte: SWUpdate's own reason, and its output; nothing stands in the way afterwards."""
    staged = device.make_image("2.0.0")
    with pytest.raises(InstallError, match="swupdate: SW not compatible with hardware") as caught:
        install(device, staged, hardware="acme:9.0")
    assert caught.value.code == "E_INSTALL" and "Software Update started" in caught.value.log
    data = bytearray(staged.read_bytes())
    data[-COPY_TAIL] ^= 1
    (tmp_path / "flipped").write_bytes(data)
    with pytest.raises(InstallError, match=r"swupdate: HASH mismatch") as caught:
        install(device, tmp_path / "flipped")
    assert "rootfs.img (raw)" in caught.value.log, "its progress is the beginning"
    assert device.copy("1").read_bytes() == image("1.0.0") and running(device) == "1.0.0"
    install(device, staged)
    assert device.copy("2").read_bytes() == image("2.0.0")


@pytest.mark.slow
def test_more_refused_images(device: SwupdateDevice, tmp_path: Path) -> None:
    """No such selection, half an image, a foreign signature, no image, a directory."""
    staged = device.make_image("2.0.0")
    with pytest.raises(InstallError, match="swupdate: Found nothing to install"):
        install(device, staged, selections=("copy1", "copy7"))
    data = staged.read_bytes()
    (tmp_path / "half").write_bytes(data[: len(data) // 2])
    with pytest.raises(InstallError, match="swupdate: "):
        install(device, tmp_path / "half")
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    swupdate_rig.make_key(foreign)
    with pytest.raises(InstallError, match=r"swupdate: .*(verif|ignature)"):
        install(device, device.make_image("2.0.0", foreign))
    with pytest.raises(InstallError, match="does not exist"):
        install(device, tmp_path / "nothing")
    with pytest.raises(InstallError, match="expected a single file"):
        device.installer().install(staged, artifact("directory"), "2.0.0", NEW)
    assert device.copy("1").read_bytes() == image("1.0.0") and running(device) == "1.0.0"


@pytest.mark.slow
def test_too_slow(device: SwupdateDevice) -> None:
    """At its deadline SWUpdate is killed; afterwards it can run again."""
    staged = device.make_image("2.0.0")
    (device.root / "hold").touch()
    began = time.monotonic()
    with pytest.raises(InstallError, match="did not end within"):
        install(device, staged, timeout_s=1)
    assert time.monotonic() - began < 5
    (device.root / "hold").unlink()
    install(device, staged)


def test_agent_killed_in_mid_install(device: SwupdateDevice) -> None:
    """A SWUpdate that outlives its agent is waited for: never do two of them write one copy."""
    staged = device.make_image("2.0.0")
    (device.root / "hold").touch()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        try:
            install(device, staged)
        finally:
            os._exit(0)
    wait_for(lambda: device.started() == 1)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    assert running(device) == "1.0.0"
    with pytest.raises(InstallError, match="has not ended"):
        install(device, staged, timeout_s=0.3)
    with ThreadPoolExecutor(1) as pool:
        again = pool.submit(install, device, staged)
        (device.root / "hold").unlink()
        again.result(20)
    assert device.started() == 2 and device.copy("2").read_bytes() == image("2.0.0")


def test_programs_of_the_maker(device: SwupdateDevice) -> None:
    """One that fails, or says something else than 1 or 2, is named with what it said."""
    written = Trial(copy_name="2", came_from="1", version="2.0.0", digest=NEW, stage=Stage.WRITTEN)
    copies_state.save(device.root / "installer.json", CopiesState(trial=written))
    (device.root / "activate").write_text("#!/bin/sh\necho no boot partition\nexit 3\n")
    with pytest.raises(InstallError, match=r"activate .* ended with code 3") as caught:
        device.installer().activate()
    assert device.installer().status().pending is not None, "it may have told the boot loader all the same"
    (device.root / "active").write_text("#!/bin/sh\necho both\n")
    device.boots += 1
    with pytest.raises(InstallError, match="expected 1 or 2, the copy that runs, found 'both'"):
        device.installer().running()
    assert caught.value.code == "E_INSTALL"


async def test_running_version_in_an_event_loop(device: SwupdateDevice) -> None:
    """The running version is asked for there too."""
    assert running(device) == "1.0.0"


def test_home_that_is_too_deep(device: SwupdateDevice) -> None:
    """SWUpdate's sockets lie in the home, and have short names only."""
    installer = device.installer()
    installer._work = device.root / ("d" * 100)
    installer._work.mkdir()
    with pytest.raises(InstallError, match="too long for a socket"):
        installer.install(device.make_image("2.0.0"), artifact(), "2.0.0", NEW)


@pytest.mark.slow
def test_cut_off_at_every_change(device: SwupdateDevice, dies_at: DiesAt) -> None:
    """Dead before any change of the disk, in every step of an update and of a way back: repeated, it ends the same."""
    staged = device.make_image("2.0.0")
    _die_and_repeat(device, partial(install, device, staged), dies_at)
    _die_and_repeat(device, lambda: device.installer().activate(), dies_at)
    device.reboot()
    assert device.installer().activate() is Next.NOTHING
    before = (device.root / "installer.json").read_bytes()
    _die_and_repeat(device, lambda: device.installer().commit(), dies_at)
    assert running(device) == "2.0.0" and device.installer().status().pending is None
    (device.root / "installer.json").write_bytes(before)
    _die_and_repeat(device, lambda: device.installer().rollback(), dies_at)
    device.reboot()
    _die_and_repeat(device, lambda: device.installer().rollback(), dies_at)
    assert running(device) == "1.0.0" and device.installer().status().pending is None


def _die_and_repeat(device: SwupdateDevice, work: Callable[[], object], dies_at: DiesAt) -> None:
    """Each cut from the state that was before the step."""
    state, told = device.root / "installer.json", device.root / "next"
    before, next_before = state.read_bytes(), told.read_bytes()
    cuts = 0
    while True:
        state.write_bytes(before)
        told.write_bytes(next_before)
        if not dies_at(cuts, device.root, work):
            break
        work()
        cuts += 1
    assert cuts > 0
