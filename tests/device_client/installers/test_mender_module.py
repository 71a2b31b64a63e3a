"""Running an update module: what it may be, what it is given, what is kept of it, and what it may not leave behind."""

import os
import subprocess
from pathlib import Path

import pytest

from device_client.installers.installer import InstallError
from device_client.programs import LOG_BYTES, PATH
from protocol.manifest import Artifact
from tests.device_client.installers.mender_bench import DIGEST, Bench, MakeArtifact, in_another_process

Made = tuple[Artifact, bytes]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """A device that runs 1.0.0."""
    return Bench(tmp_path).make()


@pytest.fixture
def new(directory_artifact: MakeArtifact) -> Made:
    """A release of one file."""
    return directory_artifact({"image": (0o644, b"new")}, {})


def test_environment(bench: Bench, new: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own, and nothing of the agent's; arguments and folder are Mender's."""
    monkeypatch.setenv("SECRET", "x")
    monkeypatch.setenv("TZ", "Europe/Berlin")
    monkeypatch.setenv("HOME", "/somewhere")
    bench.write_module(
        '#!/bin/sh\n[ "$1" != ArtifactInstall ] || { env > "${0%/*}/env"; echo "$# $2 $PWD" > "${0%/*}/args"; }\n'
    )
    bench.install(new)
    env = dict(line.split("=", 1) for line in (bench.modules / "env").read_text().splitlines())
    assert env.pop("OTA_PAYLOAD_SHA256_0") == new[0].sha256
    assert env == {
        "PATH": PATH,
        "LANG": "C.UTF-8",
        "HOME": "/somewhere",
        "TZ": "Europe/Berlin",
        "PWD": str(bench.tree),
        "OTA_CONTRACT": "1",
        "OTA_DEPLOYMENT_ID": DIGEST,
        "OTA_DEVICE_ID": "cam-7",
        "OTA_PHASE_ATTEMPT": "1",
        "OTA_BOOT_ID": "first",
    }
    assert (bench.modules / "args").read_text().split() == ["2", str(bench.tree), str(bench.tree)]


def test_tries_are_counted(bench: Bench, new: Made) -> None:
    """A module is told how often a state was begun in this update."""
    bench.write_module(
        '#!/bin/sh\ncase "$1" in SupportsRollback) echo Yes ;;\n'
        'ArtifactRollback) echo "$OTA_PHASE_ATTEMPT" >> "${0%/*}/trace"; exit 1 ;; esac\n'
    )
    bench.install(new)
    for _ in range(2):
        with pytest.raises(InstallError):
            bench.installer.rollback()
    assert bench.trace == ["1", "2"]


@pytest.mark.parametrize("mode", [0o777, 0o775, 0o757])
@pytest.mark.parametrize("what", ["ours", "."])
def test_others_may_not_change_it(bench: Bench, new: Made, what: str, mode: int) -> None:
    """Neither the module nor the folder that it lies in."""
    (bench.modules / what).chmod(mode)
    with pytest.raises(InstallError, match="others than root and the agent may change"):
        bench.install(new)
    assert bench.trace == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_it_belongs_to_root_or_the_agent(bench: Bench, new: Made) -> None:
    """Whoever owns it may change it."""
    os.chown(bench.modules / "ours", 65534, 65534)
    with pytest.raises(InstallError, match="others than root and the agent may change"):
        bench.install(new)


def test_it_lies_in_its_folder(bench: Bench, new: Made, tmp_path: Path) -> None:
    """After every link; and it is a file that may be run."""
    (bench.modules / "ours").rename(tmp_path / "elsewhere")
    (bench.modules / "ours").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InstallError, match="leads out of"):
        bench.install(new)
    (bench.modules / "ours").unlink()
    (bench.modules / "ours").mkdir(mode=0o755)
    with pytest.raises(InstallError, match="expected an executable file"):
        bench.install(new)
    (bench.modules / "ours").rmdir()
    bench.write_module('#!/bin/sh\necho "$0" > "${0%/*}/trace"\n', "theirs")
    (bench.modules / "ours").symlink_to("theirs")
    (bench.modules / "theirs").chmod(0o644)
    with pytest.raises(InstallError, match="expected an executable file"):
        bench.install(new)
    (bench.modules / "theirs").chmod(0o755)
    bench.install(new)
    assert set(bench.trace) == {str(bench.modules / "ours")}


def test_the_end_of_its_output(bench: Bench, new: Made) -> None:
    """Of both its outputs, at most 10 KiB, and nothing that moves a cursor."""
    bench.write_module(
        '#!/bin/sh\n[ "$1" != ArtifactInstall ] || { yes | head -c 100000; printf "\\033[2J\\nlast" >&2; exit 1; }\n'
    )
    with pytest.raises(InstallError) as failed:
        bench.install(new)
    assert len(failed.value.log) == LOG_BYTES
    assert failed.value.log.endswith("y\n?[2J\nlast")


def test_a_state_that_hangs(bench: Bench, new: Made) -> None:
    """It is killed at its deadline, and the former version is there again."""
    bench.write_module(
        "#!/bin/sh\ntrap '' TERM\n"
        'case "$1" in SupportsRollback) echo Yes ;; ArtifactInstall) sleep 600 ;;\n'
        'ArtifactRollback) touch "${0%/*}/back" ;; esac\n'
    )
    bench.settings = bench.settings.model_copy(update={"timeout_s": 1})
    with pytest.raises(InstallError, match=r"ArtifactInstall: .* did not end within 1 s"):
        bench.install(new)
    bench.settings = bench.settings.model_copy(update={"timeout_s": 20})
    bench.go_back()
    assert (bench.modules / "back").exists()


def test_what_an_agent_that_was_killed_left_behind(bench: Bench, new: Made) -> None:
    """The module goes on without it: it is ended before anything else is run, and a person's shell is not."""
    bench.write_module(
        '#!/bin/sh\ncase "$1" in SupportsRollback) echo Yes ;;\n'
        '    ArtifactInstall) echo $$ > "${0%/*}/pid"; kill -9 $PPID; sleep 600 ;;\n'
        "esac\n"
    )
    assert in_another_process(lambda: bench.install(new)) == -9
    left = int((bench.modules / "pid").read_text())
    assert _lives(left)
    person = subprocess.Popen(["sleep", "600"], cwd=bench.tree, start_new_session=True)
    try:
        bench.installer.rollback()
        assert not _lives(left)
        assert person.poll() is None
    finally:
        person.kill()
        person.wait()
    assert bench.state.update is None


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
