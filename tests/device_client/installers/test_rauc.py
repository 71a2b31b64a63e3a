"""RAUC, the real one: installed, activated, kept or returned from; cut off and repeated at every step."""

import os
import signal
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest

from device_client.errors import ConflictError
from device_client.installers.installer import InstallError, Next
from device_client.installers.rauc import RaucInstaller
from tests.device_client.installers import rauc_rig
from tests.device_client.installers.rauc_rig import RaucDevice, artifact, image, make_bundle

pytestmark = pytest.mark.skipif(
    bool(rauc_rig.missing()),
    reason=f"RAUC IS NOT TESTED: {', '.join(rauc_rig.missing())} missing; {rauc_rig.PACKAGES}",
)
NEW, NEWER = "2" * 64, "3" * 64
DiesAt = Callable[[int, Path, Callable[[], object]], bool]


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rauc")
    rauc_rig.make_key(folder)
    return folder


@pytest.fixture(scope="module")
def bundle(keys: Path) -> Path:
    return make_bundle(keys, "2.0.0")


@pytest.fixture(scope="module")
def address(keys: Path) -> Iterator[str]:
    with rauc_rig.bus(keys) as address:
        yield address


@pytest.fixture
def device(tmp_path: Path, address: str, keys: Path) -> Iterator[RaucDevice]:
    device = RaucDevice(tmp_path, address, keys / "ca.pem")
    device.start()
    device.installer().install_factory(Path("/factory/1.0.0"), "1.0.0")
    yield device
    device.release()
    device.kill()


def install(device: RaucDevice, bundle: Path, *, timeout_s: float = 20.0) -> RaucInstaller:
    installer = device.installer(timeout_s)
    installer.install(bundle, artifact(), "2.0.0", NEW)
    return installer


def running(device: RaucDevice) -> str | None:
    found = device.installer().running()
    return None if found is None else found.version


def test_installed_activated_kept(device: RaucDevice, bundle: Path) -> None:
    """The other slots are written; the new version runs after the reboot, and its slot is good after the commit."""
    installer = install(device, bundle)
    assert device.slot("rootfs", "B").read_bytes().startswith(image("rootfs", "2.0.0"))
    assert device.slot("appfs", "B").read_bytes().startswith(image("appfs", "2.0.0"))
    assert device.slot("rootfs", "A").read_bytes().startswith(image("rootfs", "1.0.0"))
    status = installer.status()
    assert status.installed is not None and status.installed.version == "2.0.0" and status.pending is None
    assert installer.fault() == "" and installer.way_back() and installer.streams() == ()
    assert device.boot_loader() == {"STATE_A": "good", "STATE_B": "bad", "PRIMARY": "A"}

    assert installer.activate() is Next.REBOOT
    assert device.installer().activate() is Next.REBOOT, "asked again before the reboot"
    assert device.boot_loader()["PRIMARY"] == "B" and running(device) == "1.0.0"
    device.reboot()
    after = device.installer()
    assert after.activate() is Next.NOTHING and after.activate() is Next.NOTHING
    status = after.status()
    assert status.running is not None and (status.running.version, status.running.digest) == ("2.0.0", NEW)
    assert status.pending == status.running and status.former is not None and status.former.version == "1.0.0"
    assert after.way_back() and after.fault() == ""
    (device.root / "state").write_text("STATE_A=good\nSTATE_B=bad\nPRIMARY=B\n")
    after.commit()
    after.commit()
    assert device.boot_loader()["STATE_B"] == "good"
    status = device.installer().status()
    assert status.pending is None and status.former is not None and status.former.version == "1.0.0"
    assert running(device) == "2.0.0" and after.rollback() is Next.NOTHING and running(device) == "2.0.0"


@pytest.mark.slow
def test_next_release_takes_the_former_slot(device: RaucDevice, bundle: Path, keys: Path) -> None:
    """Two updates in a row end where they began, with the versions in between as the way back."""
    install(device, bundle).activate()
    device.reboot()
    device.installer().commit()
    newer = make_bundle(keys, "3.0.0")
    installer = device.installer()
    installer.install(newer, artifact(), "3.0.0", NEWER)
    assert installer.status().former is None, "it was overwritten"
    installer.activate()
    device.reboot()
    device.installer().commit()
    assert (device.running, running(device)) == ("A", "3.0.0")


@pytest.mark.parametrize("activated", [False, True], ids=["installed", "activated"])
def test_rolled_back_before_the_reboot(device: RaucDevice, bundle: Path, activated: bool) -> None:
    """The running slot stays the one that starts, and the other is not to be started."""
    installer = install(device, bundle)
    if activated:
        installer.activate()
    assert installer.rollback() is Next.NOTHING and device.installer().rollback() is Next.NOTHING
    assert device.boot_loader() == {"STATE_A": "good", "STATE_B": "bad", "PRIMARY": "A"}
    assert running(device) == "1.0.0" and installer.status().installed is None and installer.status().pending is None
    device.reboot()
    assert running(device) == "1.0.0"
    with pytest.raises(InstallError, match="nothing was installed"):
        device.installer().activate()


def test_rolled_back_after_the_reboot(device: RaucDevice, bundle: Path) -> None:
    """The former slot is started again by a reboot; called again after it, there is nothing left to do."""
    install(device, bundle).activate()
    device.reboot()
    assert device.installer().activate() is Next.NOTHING
    assert device.installer().rollback() is Next.REBOOT and device.installer().rollback() is Next.REBOOT
    assert device.boot_loader() == {"STATE_A": "good", "STATE_B": "bad", "PRIMARY": "A"}
    with pytest.raises(InstallError, match="nothing was installed"):
        device.installer().activate()
    device.reboot()
    assert device.installer().rollback() is Next.NOTHING and running(device) == "1.0.0"
    assert device.installer().status().pending is None


@pytest.mark.slow
def test_boot_loader_that_does_not_return(device: RaucDevice, bundle: Path) -> None:
    """One that starts the new version although it was told not to is an error, and no reason to reboot for ever."""
    install(device, bundle).activate()
    device.reboot()
    device.installer().rollback()
    device.reboot(starts=False)
    with pytest.raises(InstallError, match=r"did not go back: rootfs.0 was to start, rootfs.1 runs"):
        device.installer().rollback()


def test_boot_loader_that_fell_back(device: RaucDevice, bundle: Path) -> None:
    """A slot that does not start is told from a reboot that has not happened yet, by the boot's id."""
    install(device, bundle).activate()
    device.reboot(starts=False)
    assert running(device) == "1.0.0"
    with pytest.raises(InstallError, match="the boot loader fell back"):
        device.installer().activate()
    with pytest.raises(InstallError, match="does not run; it cannot be committed"):
        device.installer().commit()
    assert device.installer().rollback() is Next.NOTHING
    assert device.boot_loader() == {"STATE_A": "good", "STATE_B": "bad", "PRIMARY": "A"}


def test_flipped_byte(device: RaucDevice, bundle: Path, tmp_path: Path) -> None:
    """RAUC's own verification stops it before a slot is touched; its words and its steps are the report."""
    data = bytearray(bundle.read_bytes())
    data[100] ^= 1
    damaged = tmp_path / "staged"
    damaged.write_bytes(data)
    with pytest.raises(InstallError, match="signature verification failed") as caught:
        install(device, damaged)
    assert caught.value.code == "E_INSTALL" and "Verifying signature" in caught.value.log
    assert device.slot("rootfs", "B").read_bytes().startswith(image("rootfs", "1.0.0"))
    assert device.installer().rollback() is Next.NOTHING and running(device) == "1.0.0"
    install(device, bundle)


def test_bundle_that_does_not_fit(device: RaucDevice, keys: Path) -> None:
    """Made for other hardware, or without an image for the slot that boots: E_INSTALL with the reason."""
    with pytest.raises(InstallError, match="Compatible mismatch"):
        install(device, make_bundle(keys, "2.0.0", "other"))
    with pytest.raises(InstallError, match=r"rootfs.1 was not written by it"):
        install(device, make_bundle(keys, "2.0.0", root=False))
    with pytest.raises(InstallError, match="expected a single file"):
        device.installer().install(keys, artifact("directory"), "2.0.0", NEW)


def test_service_gone_in_mid_install(device: RaucDevice, bundle: Path) -> None:
    """Noticed at once; when it is back, the same call writes the slot."""
    device.hold()
    with ThreadPoolExecutor(1) as pool:
        installing = pool.submit(install, device, bundle)
        device.until_held()
        device.kill()
        with pytest.raises(InstallError, match="ended in mid-install"):
            installing.result(5)
    with pytest.raises(InstallError, match=r"is rauc\.service running"):
        install(device, bundle)
    device.release()
    device.start()
    assert install(device, bundle).fault() == ""


def test_running_version_while_the_service_is_down(device: RaucDevice) -> None:
    """What was seen in this boot holds; a fresh agent cannot tell."""
    installer = device.installer()
    assert installer.running() is not None
    device.kill()
    found = installer.running()
    assert found is not None and found.version == "1.0.0"
    device.boots += 1
    with pytest.raises(InstallError):
        installer.running()


def test_agent_killed_in_mid_install(device: RaucDevice, bundle: Path) -> None:
    """RAUC goes on; the next agent joins, and the slot is written once."""
    device.hold()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        try:
            install(device, bundle)
        finally:
            os._exit(0)
    device.until_held()
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    assert running(device) == "1.0.0", "known without RAUC, which answers nothing meanwhile"
    with ThreadPoolExecutor(1) as pool:
        joining = pool.submit(install, device, bundle)
        threading.Timer(0.2, device.release).start()
        assert joining.result(10).fault() == ""
    assert "installed.count=1" in (device.root / "rauc.status").read_text()


def test_others_install(device: RaucDevice, bundle: Path) -> None:
    """An installation of somebody else is not ours: it is not joined."""
    device.hold()
    env = {"DBUS_STARTER_BUS_TYPE": "session", "DBUS_SESSION_BUS_ADDRESS": device.address, "PATH": os.environ["PATH"]}
    with (
        subprocess.Popen(["rauc", "install", bundle], env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL),
        ExitStack() as stack,
    ):
        stack.callback(device.release)
        device.until_held()
        with pytest.raises(InstallError, match="refused while an installation is under way"):
            install(device, bundle)
        device.release()
        assert device.installer().rollback() is Next.NOTHING
    assert running(device) == "1.0.0"


@pytest.mark.slow
def test_too_slow(device: RaucDevice, bundle: Path) -> None:
    """The deadline ends the wait; RAUC is not stopped, and is joined by the next call."""
    device.hold()
    with pytest.raises(InstallError, match="did not end within the time"):
        install(device, bundle, timeout_s=0.3)
    device.release()
    assert install(device, bundle).fault() == ""


@pytest.mark.slow
def test_written_by_others(device: RaucDevice, bundle: Path) -> None:
    """What a person installed by hand has no version that the fleet knows."""
    install(device, bundle).activate()
    device.reboot()
    device.installer().commit()
    status = device.root / "rauc.status"
    device.kill()
    status.write_text(status.read_text().replace("installed.count=1", "installed.count=2"))
    device.start()
    assert running(device) is None


def test_repeated_after_it_was_damaged(device: RaucDevice, bundle: Path) -> None:
    """A slot that is not as RAUC wrote it is named, whichever of the group; asked again, it is written again."""
    installer = install(device, bundle)
    data = bytearray(device.slot("appfs", "B").read_bytes())
    data[5] ^= 1
    device.slot("appfs", "B").write_bytes(data)
    assert "appfs.1" in installer.fault()
    assert device.installer(compare=("ext4",)).fault() == "", "not of a type that is compared"
    assert install(device, bundle).fault() == ""
    counted = (device.root / "rauc.status").read_text()
    assert install(device, bundle).fault() == ""
    assert (device.root / "rauc.status").read_text() == counted, "an intact one is left alone"
    device.slot("appfs", "B").unlink()
    with pytest.raises(InstallError, match="cannot be compared"):
        installer.fault()


@pytest.mark.slow
def test_on_trial_nothing_is_written(device: RaucDevice, bundle: Path) -> None:
    """While a version is on trial the other slot is the way back."""
    install(device, bundle).activate()
    device.reboot()
    with pytest.raises(InstallError, match="is on trial"):
        device.installer().install(bundle, artifact(), "3.0.0", NEWER)
    assert device.slot("rootfs", "A").read_bytes().startswith(image("rootfs", "1.0.0"))


@pytest.mark.slow
def test_way_back(device: RaucDevice, bundle: Path) -> None:
    """There is none where the boot loader calls the slot bad."""
    (device.root / "state").write_text("STATE_A=bad\nSTATE_B=bad\nPRIMARY=A\n")
    assert not device.installer().way_back()
    (device.root / "state").write_text("STATE_A=good\nSTATE_B=bad\nPRIMARY=A\n")
    install(device, bundle).activate()
    device.reboot()
    assert device.installer().way_back()
    (device.root / "state").write_text("STATE_A=bad\nSTATE_B=good\nPRIMARY=B\n")
    assert not device.installer().way_back()


@pytest.mark.slow
def test_activated_by_rauc_itself(tmp_path: Path, address: str, keys: Path, bundle: Path) -> None:
    """With activate-installed the boot loader is told back; a reboot in between is seen, and returned from."""
    device = RaucDevice(tmp_path, address, keys / "ca.pem", activate_installed=True)
    device.start()
    try:
        device.installer().install_factory(Path("1.0.0"), "1.0.0")
        install(device, bundle)
        assert device.boot_loader()["PRIMARY"] == "A"
        (tmp_path / "installer.json").write_text(
            (tmp_path / "installer.json").read_text().replace("written", "writing")
        )
        (tmp_path / "state").write_text("STATE_A=good\nSTATE_B=good\nPRIMARY=B\n")
        device.reboot()
        installer = device.installer()
        assert installer.status().pending is not None
        with pytest.raises(InstallError, match="is on trial"):
            install(device, bundle)
        assert installer.rollback() is Next.REBOOT
        device.reboot()
        assert device.installer().rollback() is Next.NOTHING and running(device) == "1.0.0"
    finally:
        device.kill()


def test_factory(device: RaucDevice) -> None:
    """Noted once; another version must come as a release."""
    assert device.installer().install_factory(Path("/factory/1.0.0"), "1.0.0").version == "1.0.0"
    with pytest.raises(ConflictError, match=r"1.0.0 is installed already"):
        device.installer().install_factory(Path("/factory/1.1.0"), "1.1.0")


def test_no_bus(device: RaucDevice, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bus that is not there, and an extra that is not installed, are sentences that say what to do."""
    device.address = "unix:path=/nowhere/bus"
    with pytest.raises(InstallError, match="D-Bus unix:path=/nowhere/bus: cannot be reached"):
        device.installer().running()
    monkeypatch.setitem(sys.modules, "jeepney", None)
    with pytest.raises(InstallError, match=r"pip install 'flagship\[dbus\]'"):
        device.installer().running()


@pytest.mark.slow
def test_cut_off_at_every_change(device: RaucDevice, bundle: Path, dies_at: DiesAt) -> None:
    """Dead before any change of the disk, in every step of an update and of a way back: repeated, it ends the same."""
    for step in ("install", "activate", "commit"):
        _die_and_repeat(device, partial(_step, device, bundle, step), dies_at)
        if step == "activate":
            device.reboot()
            assert device.installer().activate() is Next.NOTHING
    assert (device.running, running(device)) == ("B", "2.0.0")
    device.installer().install(bundle, artifact(), "3.0.0", NEWER)
    device.installer().activate()
    device.reboot()
    _die_and_repeat(device, lambda: device.installer().rollback(), dies_at)
    device.reboot()
    _die_and_repeat(device, lambda: device.installer().rollback(), dies_at)
    assert (device.running, running(device)) == ("B", "2.0.0") and device.installer().status().pending is None


def _step(device: RaucDevice, bundle: Path, step: str) -> None:
    match step:
        case "install":
            install(device, bundle)
        case "activate":
            assert device.installer().activate() is Next.REBOOT
        case "commit":
            device.installer().commit()


def _die_and_repeat(device: RaucDevice, work: Callable[[], object], dies_at: DiesAt) -> None:
    """Each cut from the state that was before the step."""
    state = device.root / "installer.json"
    before, told = state.read_bytes(), (device.root / "state").read_bytes()
    cuts = 0
    while True:
        state.write_bytes(before)
        (device.root / "state").write_bytes(told)
        if not dies_at(cuts, device.root, work):
            break
        work()
        cuts += 1
    assert cuts > 0
