"""Update modules that need a reboot: the device's own, or one of what they update; and boot loaders that go back."""

from pathlib import Path

import pytest

from device_client.errors import ConflictError
from device_client.installers.installer import InstallError, Next
from protocol.manifest import Artifact
from tests.device_client.installers.mender_bench import MODULE, Bench, MakeArtifact, in_another_process

Made = tuple[Artifact, bytes]

COMMITS_ONCE = MODULE.replace(
    'case "$state" in',
    """case "$state" in
    ArtifactCommit) [ ! -e "$device/committed" ] || exit 1; touch "$device/committed" ;;
    ArtifactVerifyReboot) [ ! -e "$device/committed" ] || exit 1 ;;
esac
case "$state" in""",
    1,
)


@pytest.fixture
def new(directory_artifact: MakeArtifact) -> Made:
    """A release of one file."""
    return directory_artifact({"image": (0o644, b"new")}, {})


def _installed(path: Path, new: Made, reboot: str, module: str = MODULE) -> Bench:
    bench = Bench(path).make(module)
    bench.say("NeedsArtifactReboot", reboot)
    bench.install(new)
    return bench


def _rebooted(path: Path, new: Made, module: str = MODULE) -> Bench:
    bench = _installed(path, new, "Automatic", module)
    bench.installer.activate()
    bench.reboot()
    assert bench.installer.activate() is Next.NOTHING
    return bench


def test_device_reboots(tmp_path: Path, new: Made) -> None:
    """``Automatic``: asked for until another boot is seen; then the module says whether that is the new version."""
    bench = _installed(tmp_path, new, "Automatic")
    assert bench.installer.activate() is Next.REBOOT
    assert bench.installer.activate() is Next.REBOOT
    assert "ArtifactReboot" not in bench.trace
    assert bench.version == "1.0.0"
    bench.reboot()
    assert bench.installer.activate() is Next.NOTHING
    assert bench.trace[-1] == "ArtifactVerifyReboot"
    assert (bench.version, bench.installer.fault()) == ("1.1.0", "")
    bench.installer.commit()
    bench.reboot()
    assert bench.version == "1.1.0"


def test_device_reboots_back(tmp_path: Path, new: Made) -> None:
    """A rollback of what was booted needs a reboot, and is asked for until it was."""
    bench = _rebooted(tmp_path, new)
    assert bench.installer.rollback() is Next.REBOOT
    assert bench.installer.rollback() is Next.REBOOT
    assert bench.trace.count("ArtifactRollback") == 1
    assert (bench.software, bench.version) == ("old", "1.0.0")
    with pytest.raises(ConflictError, match="needs a reboot first"):
        bench.install(new)
    bench.reboot()
    assert bench.installer.rollback() is Next.NOTHING
    assert bench.trace[-3:] == ["ArtifactVerifyRollbackReboot", "ArtifactFailure", "Cleanup"]
    assert (bench.booted, bench.version, bench.state.update) == ("old", "1.0.0", None)


def test_what_was_never_booted_needs_no_reboot_back(tmp_path: Path, new: Made) -> None:
    """The order to reboot failed: the former version still runs."""
    bench = _installed(tmp_path, new, "Automatic")
    bench.installer.activate()
    assert bench.installer.rollback() is Next.NOTHING
    assert (bench.booted, bench.software, bench.version) == ("old", "old", "1.0.0")


@pytest.mark.parametrize("kind", ["Yes", "Automatic"])
def test_what_was_only_installed_needs_no_reboot_back(tmp_path: Path, new: Made, kind: str) -> None:
    """Nothing led away from the former version."""
    bench = _installed(tmp_path, new, kind)
    assert bench.installer.rollback() is Next.NOTHING
    assert bench.trace[-3:] == ["ArtifactRollback", "ArtifactFailure", "Cleanup"]
    assert (bench.booted, bench.software, bench.version) == ("old", "old", "1.0.0")


@pytest.mark.parametrize("back", [False, True])
def test_power_cut_before_the_activation(tmp_path: Path, new: Made, back: bool) -> None:
    """It booted what was installed: that was the reboot, or it is undone by one."""
    bench = _installed(tmp_path, new, "Automatic")
    bench.reboot()
    if back:
        assert bench.installer.rollback() is Next.REBOOT
        bench.reboot()
        assert bench.installer.rollback() is Next.NOTHING
        assert (bench.booted, bench.software, bench.version) == ("old", "old", "1.0.0")
    else:
        assert bench.installer.activate() is Next.NOTHING
        assert (bench.booted, bench.version) == ("new", "1.1.0")


@pytest.mark.parametrize("booted", ["old", "new"])
def test_power_cut_while_installing(tmp_path: Path, new: Made, booted: str) -> None:
    """What was booted then is left by a reboot; where it is the former version, installing goes on without one."""
    bench = Bench(tmp_path).make()
    bench.say("NeedsArtifactReboot", "Automatic")
    bench.disturb("ArtifactInstall", "its-parent", "after")
    assert in_another_process(lambda: bench.install(new)) == -9
    bench.reboot(booted)
    if booted == "new":
        with pytest.raises(ConflictError, match="needs a reboot first"):
            bench.install(new)
        bench.go_back()
        assert (bench.booted, bench.software, bench.version) == ("old", "old", "1.0.0")
    bench.install(new)
    assert bench.installer.activate() is Next.REBOOT
    bench.reboot()
    assert bench.installer.activate() is Next.NOTHING
    assert (bench.booted, bench.version) == ("new", "1.1.0")


def test_boot_loader_goes_back_at_once(tmp_path: Path, new: Made) -> None:
    """The new version did not boot: the module sees it, and the rollback ends."""
    bench = _installed(tmp_path, new, "Automatic")
    bench.installer.activate()
    bench.reboot("old")
    with pytest.raises(InstallError, match="ArtifactVerifyReboot"):
        bench.installer.activate()
    assert bench.version == "1.0.0"
    bench.go_back()
    assert (bench.booted, bench.software, bench.version) == ("old", "old", "1.0.0")


def test_boot_loader_goes_back_later(tmp_path: Path, new: Made) -> None:
    """A reboot while on trial led back: what runs is the former version, and that is not committed."""
    bench = _rebooted(tmp_path, new)
    bench.reboot()
    assert (bench.version, bench.installer.fault()) == ("1.1.0", "")
    bench.reboot("old")
    assert bench.version == "1.0.0"
    asked = len(bench.trace)
    assert "is not what was booted" in bench.installer.fault()
    assert len(bench.trace) == asked
    with pytest.raises(InstallError, match="not what was booted"):
        bench.installer.commit()
    assert "ArtifactCommit" not in bench.trace
    bench.go_back()
    assert (bench.booted, bench.software, bench.version) == ("old", "old", "1.0.0")


def test_module_reboots(tmp_path: Path, new: Made) -> None:
    """``Yes``: the module reboots what it updates, there and back; the device stays up."""
    bench = _installed(tmp_path, new, "Yes")
    assert bench.installer.activate() is Next.NOTHING
    assert bench.trace[-2:] == ["ArtifactReboot", "ArtifactVerifyReboot"]
    assert (bench.booted, bench.version) == ("new", "1.1.0")
    assert bench.installer.activate() is Next.NOTHING
    assert bench.trace.count("ArtifactReboot") == 1
    assert bench.installer.rollback() is Next.NOTHING
    assert bench.trace[-5:] == [
        "ArtifactRollback",
        "ArtifactRollbackReboot",
        "ArtifactVerifyRollbackReboot",
        "ArtifactFailure",
        "Cleanup",
    ]
    assert (bench.booted, bench.software, bench.version) == ("old", "old", "1.0.0")


@pytest.mark.parametrize("state", ["ArtifactReboot", "ArtifactVerifyReboot"])
def test_module_fails_to_reboot(tmp_path: Path, new: Made, state: str) -> None:
    """The rollback reboots it back."""
    bench = _installed(tmp_path, new, "Yes")
    bench.disturb(state, "fail", "after")
    with pytest.raises(InstallError, match=state):
        bench.installer.activate()
    assert bench.version == "1.0.0"
    bench.go_back()
    assert (bench.booted, bench.software, bench.version) == ("old", "old", "1.0.0")


@pytest.mark.parametrize("back", [False, True])
@pytest.mark.parametrize("whole", [False, True])
def test_killed_while_the_module_reboots(tmp_path: Path, new: Made, back: bool, whole: bool) -> None:
    """It may have rebooted the whole device: then it is not asked again; an agent that only died asks again."""
    bench = _installed(tmp_path, new, "Yes")
    state = "ArtifactRollbackReboot" if back else "ArtifactReboot"
    if back:
        bench.installer.activate()
    step = "rollback" if back else "activate"
    bench.disturb(state, "its-parent", "before")
    assert in_another_process(getattr(bench.installer, step)) == -9
    if whole:
        bench.reboot()
    assert getattr(bench.installer, step)() is Next.NOTHING
    assert bench.trace.count(state) == (1 if whole else 2)
    assert (bench.booted, bench.version) == (("old", "1.0.0") if back else ("new", "1.1.0"))


@pytest.mark.parametrize("kind", ["Yes", "Automatic"])
def test_rollback_reboots_have_an_end(tmp_path: Path, new: Made, kind: str) -> None:
    """Three tries; then nobody knows what runs."""
    bench = _installed(tmp_path, new, kind)
    bench.installer.activate()
    bench.reboot()
    bench.installer.activate()
    bench.disturb("ArtifactVerifyRollbackReboot", "fail", "before")
    with pytest.raises(InstallError, match=r"ArtifactVerifyRollbackReboot.*nobody knows what runs"):
        bench.go_back()
    assert bench.trace.count("ArtifactVerifyRollbackReboot") == 3
    assert bench.version is None


@pytest.mark.parametrize("step", ["ArtifactVerifyReboot", "ArtifactVerifyRollbackReboot", "ArtifactRollback"])
@pytest.mark.parametrize("when", ["before", pytest.param("after", marks=pytest.mark.slow)])
def test_killed_around_a_reboot(tmp_path: Path, new: Made, step: str, when: str) -> None:
    """Repeated after the power came back, each ends as if it had not been cut off."""
    bench = _installed(tmp_path, new, "Automatic")
    bench.installer.activate()
    bench.reboot()
    bench.disturb(step, "its-parent", when)

    def there_and_back() -> None:
        bench.installer.activate()
        bench.go_back()

    assert in_another_process(there_and_back) == -9
    bench.reboot()
    update = bench.state.update
    assert update is not None
    if not update.goes_back:
        assert bench.installer.activate() is Next.NOTHING
        assert bench.version == "1.1.0"
    bench.go_back()
    assert (bench.booted, bench.software, bench.version) == ("old", "old", "1.0.0")


def test_a_commit_that_is_refused_the_second_time(tmp_path: Path, new: Made) -> None:
    """A power cut right after it: the new system runs and is not on trial any more, so it was committed."""
    bench = _rebooted(tmp_path, new, COMMITS_ONCE)
    bench.disturb("ArtifactCommit", "its-parent", "after")
    assert in_another_process(bench.installer.commit) == -9
    bench.reboot()
    assert bench.version == "1.1.0"
    bench.installer.commit()
    assert (bench.version, bench.state.update) == ("1.1.0", None)


def test_a_commit_that_came_too_late(tmp_path: Path, new: Made) -> None:
    """The boot loader went back before it: another system runs, and nothing is committed."""
    bench = _rebooted(tmp_path, new, COMMITS_ONCE)
    bench.disturb("ArtifactCommit", "its-parent", "before")
    assert in_another_process(bench.installer.commit) == -9
    bench.reboot("old")
    bench.root = Path("/proc")  # of another device
    assert bench.version == "1.0.0"
    with pytest.raises(InstallError, match="not what was booted"):
        bench.installer.commit()
    bench.go_back()
    assert (bench.software, bench.version) == ("old", "1.0.0")


def test_a_commit_that_fails_twice(tmp_path: Path, new: Made) -> None:
    """What is still on trial after it was not committed."""
    bench = _rebooted(tmp_path, new)
    bench.disturb("ArtifactCommit", "fail", "before")
    for _ in range(2):
        with pytest.raises(InstallError, match="ArtifactCommit"):
            bench.installer.commit()
    bench.go_back()
    assert (bench.booted, bench.version) == ("old", "1.0.0")
