"""Mender's update modules as an installer: the order of states, failures and kills in each, reboots, the way back."""

import os
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from device_client.errors import ConflictError, NotFoundError
from device_client.installers.installer import Installer, InstallError, Next
from protocol.errors import ContentError, ErrorCode
from protocol.manifest import Artifact
from tests.device_client.installers.mender_bench import DIGEST, Bench, MakeArtifact, in_another_process

DiesAt = Callable[[int, Path, Callable[[], object]], bool]
Made = tuple[Artifact, bytes]
ASKED_FIRST = ["ProvidePayloadFileSizes", "Download", "SupportsRollback", "ArtifactInstall", "NeedsArtifactReboot"]
WENT_BACK = ["ArtifactRollback", "ArtifactFailure", "Cleanup"]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """A device that runs 1.0.0."""
    return Bench(tmp_path).make()


@pytest.fixture
def new(directory_artifact: MakeArtifact) -> Made:
    """A release of one file."""
    return directory_artifact({"image": (0o644, b"new")}, {})


def test_there(bench: Bench, new: Made) -> None:
    """The states of an update that succeeds, in Mender's order; then nothing is left of it but the new version."""
    installer: Installer = bench.installer
    assert installer.way_back()
    assert bench.trace == ["SupportsRollback"]
    (bench.modules / "trace").unlink()
    (bench.home / "mender" / "asked-0-of-an-agent-that-was-killed").mkdir()
    bench.install(new)
    assert bench.trace == ASKED_FIRST
    status = bench.installer.status()
    assert (status.installed, bench.version) == (status.pending, "1.0.0")
    assert bench.installer.activate() is Next.NOTHING
    assert bench.installer.activate() is Next.NOTHING
    status = bench.installer.status()
    assert (status.running, status.installed) == (status.pending, None)
    assert status.former is not None
    assert status.former.version == "1.0.0"
    bench.installer.commit()
    bench.installer.commit()
    assert bench.trace == [*ASKED_FIRST, "ArtifactCommit", "Cleanup"]
    assert (bench.version, bench.software, bench.installer.fault()) == ("1.1.0", "new", "")
    running = bench.installer.running()
    assert running is not None
    assert (running.digest, running.path) == (DIGEST, None)
    assert list((bench.home / "mender").iterdir()) == []
    assert bench.synced == ["Download", "ArtifactInstall", "ArtifactCommit", "Cleanup"]
    assert bench.installer.streams() == ()


def test_and_back(bench: Bench, new: Made) -> None:
    """The states of a rollback; what ran before runs, and a next release can come."""
    bench.install(new)
    bench.installer.activate()
    assert (bench.version, bench.software) == ("1.1.0", "new")
    assert bench.installer.rollback() is Next.NOTHING
    assert bench.installer.rollback() is Next.NOTHING
    assert bench.trace == [*ASKED_FIRST, *WENT_BACK]
    assert (bench.version, bench.software, bench.state.update) == ("1.0.0", "old", None)
    bench.install(new)
    bench.installer.activate()
    bench.installer.commit()
    assert (bench.version, bench.software) == ("1.1.0", "new")


@pytest.mark.parametrize(
    ("state", "then"),
    [
        ("ProvidePayloadFileSizes", ["Cleanup"]),
        ("Download", ["Cleanup"]),
        ("SupportsRollback", ["Cleanup"]),
        ("ArtifactInstall", WENT_BACK),
        ("NeedsArtifactReboot", WENT_BACK),
        ("ArtifactCommit", WENT_BACK),
    ],
)
@pytest.mark.parametrize("when", [pytest.param("before", marks=pytest.mark.slow), "after"])
def test_a_state_fails(bench: Bench, new: Made, state: str, then: list[str], when: str) -> None:
    """What it wrote goes with the report, and the former version runs: Mender's table of failures."""
    bench.disturb(state, "fail", when)
    with pytest.raises(InstallError, match=f"module ours: {state}: .* ended with code 3") as failed:
        bench.install(new)
        bench.installer.activate()
        bench.installer.commit()
    assert failed.value.log == f"broke in {state}\n"
    assert bench.trace[-1] == state
    before = len(bench.trace)
    bench.go_back()
    assert bench.trace[before:] == then
    assert (bench.version, bench.software, bench.state.update) == ("1.0.0", "old", None)


@pytest.mark.parametrize("state", ["ArtifactFailure", "Cleanup"])
def test_what_fails_at_the_end_changes_nothing(bench: Bench, new: Made, state: str) -> None:
    """It is logged; the version that was decided for stays."""
    bench.disturb(state, "fail", "before")
    bench.install(new)
    bench.go_back()
    assert (bench.version, bench.software, bench.state.update) == ("1.0.0", "old", None)
    bench.install(new)
    bench.installer.activate()
    bench.installer.commit()
    assert (bench.version, bench.software, bench.state.update) == ("1.1.0", "new", None)


def test_no_way_back(bench: Bench, new: Made) -> None:
    """A module that cannot go back says so before; after it failed nobody knows what runs, until the next release."""
    bench.say("SupportsRollback", "No")
    assert not bench.installer.way_back()
    bench.install(new)
    assert not bench.installer.way_back()
    bench.installer.activate()
    for _ in range(2):
        with pytest.raises(InstallError, match=r"cannot go back from 1\.1\.0; nobody knows what runs"):
            bench.installer.rollback()
    assert bench.trace[-2:] == ["ArtifactFailure", "Cleanup"]
    assert bench.trace.count("ArtifactFailure") == 1
    assert (bench.version, bench.installer.status().pending) == (None, None)
    assert "nobody knows" in bench.installer.fault()
    bench.install(new, "1.2.0", "cd" * 32)
    bench.installer.activate()
    bench.installer.commit()
    assert (bench.version, bench.installer.fault()) == ("1.2.0", "")


def test_a_rollback_that_fails_ends(bench: Bench, new: Made) -> None:
    """Three tries, as the agent makes them; then the device is not asked again, and takes the next release."""
    bench.install(new)
    bench.disturb("ArtifactRollback", "fail", "before")
    for attempt in range(4):
        with pytest.raises(InstallError, match="ArtifactRollback") as failed:
            bench.installer.rollback()
        assert ("nobody knows" in failed.value.detail) == (attempt >= 2)
    assert bench.trace.count("ArtifactRollback") == 3
    assert bench.version is None
    bench.mend()
    bench.install(new)
    bench.installer.activate()
    assert bench.version == "1.1.0"


def test_a_rollback_that_fails_once(bench: Bench, new: Made) -> None:
    """The next try ends it."""
    bench.install(new)
    bench.disturb("ArtifactRollback", "fail", "after")
    with pytest.raises(InstallError):
        bench.installer.rollback()
    bench.mend()
    bench.go_back()
    assert (bench.version, bench.software) == ("1.0.0", "old")


@pytest.mark.parametrize(
    ("answers", "match"),
    [
        ({"SupportsRollback": "Maybe"}, "expected Yes or No, found 'Maybe'"),
        ({"NeedsArtifactReboot": "Soon"}, "Automatic"),
    ],
)
def test_answers_that_mean_nothing(bench: Bench, new: Made, answers: dict[str, str], match: str) -> None:
    """They are a failure, not a guess."""
    for state, answer in answers.items():
        bench.say(state, answer)
    with pytest.raises(InstallError, match=match):
        bench.install(new)
    bench.say("SupportsRollback", "Yes")
    bench.go_back()
    assert (bench.version, bench.software) == ("1.0.0", "old")


def test_one_at_a_time(bench: Bench, new: Made) -> None:
    """What is on trial is ended before the next; what was only installed is rolled back for it."""
    bench.install(new)
    bench.install(new, "1.2.0", "cd" * 32)
    assert bench.trace == [*ASKED_FIRST, *WENT_BACK, *ASKED_FIRST]
    bench.installer.activate()
    with pytest.raises(ConflictError, match=r"1\.2\.0 is on trial"):
        bench.install(new)
    bench.installer.rollback()
    with pytest.raises(ConflictError, match="nothing was installed"):
        bench.installer.activate()
    bench.install(new)
    with pytest.raises(ConflictError, match="cannot be committed"):
        bench.installer.commit()


def test_what_runs_is_told_while_the_module_works(bench: Bench, new: Made) -> None:
    """A module may take hours; reports do not wait for it."""
    bench.write_module('#!/bin/sh\n[ "$1" != ArtifactInstall ] || cat "${0%/*}/wait"\n')
    os.mkfifo(bench.modules / "wait")
    with ThreadPoolExecutor(1) as thread:
        one = bench.installer
        bench.write_stream(new)
        installing = thread.submit(one.install, bench.path / "stream", new[0], "1.1.0", DIGEST)
        with (bench.modules / "wait").open("w"):  # until the module reads
            running = one.running()
            assert running is not None
            assert (running.version, one.fault(), one.way_back()) == ("1.0.0", "", False)
            assert not installing.done()
        installing.result(timeout=20)
    assert bench.installer.status().installed is not None


def test_factory(bench: Bench, tmp_path: Path) -> None:
    """Noted, not copied; once."""
    running = bench.installer.install_factory(bench.device / "software", "1.0.0")
    assert (running, bench.version) == (bench.installer.running(), "1.0.0")
    with pytest.raises(ConflictError, match=r"1\.0\.0 is installed already"):
        bench.installer.install_factory(bench.device / "software", "1.0.1")
    other = Bench(tmp_path / "other")
    with pytest.raises(NotFoundError):
        other.installer.install_factory(tmp_path / "nothing", "1.0.0")
    assert other.version is None


def test_a_module_that_is_not_there(bench: Bench, new: Made) -> None:
    """E_INSTALL; there is no way back that anybody could ask for."""
    (bench.modules / "ours").unlink()
    assert not bench.installer.way_back()
    with pytest.raises(ContentError, match="not found in") as refused:
        bench.install(new)
    assert refused.value.code is ErrorCode.INSTALL
    bench.go_back()
    assert (bench.version, bench.state.update) == ("1.0.0", None)


def _whole_way(bench: Bench, new: Made, end: str) -> None:
    bench.install(new)
    bench.installer.activate()
    getattr(bench.installer, end)()


@pytest.mark.parametrize("when", ["before", pytest.param("after", marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    ("state", "end"),
    [
        *((state, "commit") for state in (*ASKED_FIRST, "ArtifactCommit", "Cleanup")),
        *((state, "rollback") for state in WENT_BACK),
    ],
)
def test_killed_in_a_state(bench: Bench, new: Made, state: str, end: str, when: str) -> None:
    """The agent dies while the module works; repeated, each step ends as if it had not, from whole to whole."""
    bench.disturb(state, "its-parent", when)
    assert in_another_process(lambda: _whole_way(bench, new, end)) == -9
    if bench.state.update is not None and not bench.state.update.is_activated:
        assert bench.version == "1.0.0"
        before = len(bench.trace)
        bench.install(new)
        if state == "ArtifactInstall":
            assert bench.trace[before] == "ArtifactRollback"
        bench.installer.activate()
    getattr(bench.installer, end)()
    assert bench.state.update is None
    assert (bench.version, bench.software) == (("1.1.0", "new") if end == "commit" else ("1.0.0", "old"))


def test_killed_while_installing_without_a_way_back(bench: Bench, new: Made) -> None:
    """Nothing is installed over what may be half there: it is said instead."""
    bench.say("SupportsRollback", "No")
    bench.disturb("ArtifactInstall", "its-parent", "before")
    assert in_another_process(lambda: bench.install(new)) == -9
    with pytest.raises(InstallError, match="cannot go back"):
        bench.install(new)
    assert bench.version is None
    assert bench.trace.count("ArtifactInstall") == 1


@pytest.mark.slow
@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_cut_off_anywhere(tmp_path: Path, bench: Bench, new: Made, end: str, dies_at: DiesAt) -> None:
    """A process that dies before any change of the disk leaves something that repeating ends, whole."""
    if end == "rollback":
        bench.install(new)
        bench.installer.activate()

    def work(bench: Bench) -> None:
        if end == "commit" and bench.version != "1.1.0":
            bench.install(new)
            bench.installer.activate()
        getattr(bench.installer, end)()

    for number in range(1000):
        copy = Bench(tmp_path / f"cut-{number}")
        shutil.copytree(bench.home, copy.home)
        shutil.copytree(bench.modules, copy.modules)
        cut = dies_at(number, copy.path, lambda copy=copy: work(copy))  # type: ignore[misc]
        work(copy)
        assert copy.state.update is None
        assert (copy.version, copy.software) == (("1.1.0", "new") if end == "commit" else ("1.0.0", "old"))
        shutil.rmtree(copy.path)
        if not cut:
            return
    pytest.fail("the way never ended")
