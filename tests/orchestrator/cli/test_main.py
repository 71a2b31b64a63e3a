"""Every failure of a command is one sentence on stderr and an exit code."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.cli.main import BROKEN_PIPE, INTERRUPTED, NOUNS, Noun, main
from orchestrator.config import Home
from orchestrator.errors import HaltedError
from tests.orchestrator.cli.homes import make_home

ROLLOUT = ("rollout", "create", "--release", "gateway/1.1.0")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """A home that nothing serves."""
    return make_home(tmp_path_factory.mktemp("fleet") / "home")


def run(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    """Run ``flagship`` in this process: (exit code, stdout, stderr)."""
    code = main([str(word) for word in words])
    said = capsys.readouterr()
    return code, said.out, said.err


def assert_sentence(err: str) -> None:
    """Exactly one line, no traceback."""
    assert err.startswith("flagship: ")
    assert err.count("\n") == 1
    assert err.endswith("\n")
    assert "Traceback" not in err
    assert "\x1b" not in err


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        pytest.param(["nope"], 2, "No such command", id="no such noun"),
        pytest.param(["--nope"], 2, "No such option", id="no such option"),
        pytest.param(["rollout", "nope"], 2, "flagship rollout --help", id="no such verb"),
        pytest.param(["rollout", "create"], 2, "--release", id="missing option"),
        pytest.param(["rollout", "start", "a/b"], 2, "rollout id 'a/b'", id="rollout id with a slash"),
        pytest.param(["device", "show", "a/b"], 2, "device id 'a/b'", id="device id with a slash"),
        pytest.param(["device", "show", "+"], 2, "device id '+'", id="device id that is a wildcard"),
        pytest.param(["device", "show", ""], 2, "device id ''", id="empty device id"),
        pytest.param(["group", "create", "g", "dev#1"], 2, "device id 'dev#1'", id="member with a hash"),
        pytest.param(["group", "create", "../g"], 2, "group '../g'", id="group with a way out"),
        pytest.param(["device", "list", "-o", "xml"], 2, "'xml' is not one of", id="unknown format"),
        pytest.param([*ROLLOUT, "--selector", "site=="], 2, "at character", id="selector that does not parse"),
        pytest.param([*ROLLOUT, "--stage", "a=site in (x"], 2, "','", id="stage's selector that does not parse"),
        pytest.param([*ROLLOUT, "--stage", "a=50%"], 2, "add up to 50%", id="percentages that end below 100"),
        pytest.param([*ROLLOUT, "--stage", "a=50%", "--stage", "b=20%"], 2, "must rise", id="percentages that fall"),
        pytest.param([*ROLLOUT, "--stage", "a=120%"], 2, "less than or equal to 100", id="percentage above 100"),
        pytest.param([*ROLLOUT, "--stage", "a=x%"], 2, "--stage 'a=x%'", id="percentage that is no number"),
        pytest.param([*ROLLOUT, "--stage", "a=x%"], 2, "such as 25%, found 'x%'", id="percentage with what to write"),
        pytest.param([*ROLLOUT, "--stage", "a=0%"], 2, "greater than 0, found 0", id="percentage with what was found"),
        pytest.param([*ROLLOUT, "--selector", ""], 2, "--selector ''", id="empty selector is not the whole fleet"),
        pytest.param([*ROLLOUT, "--group", " "], 2, "--group ''", id="empty group is not the whole fleet"),
        pytest.param([*ROLLOUT, "--soak", "99999999999999999999d"], 2, "--soak", id="soak beyond any calendar"),
        pytest.param([*ROLLOUT, "--soak", "400d"], 2, "found 34560000", id="soak longer than a plan may"),
        pytest.param([*ROLLOUT, "--pace", "1e-300"], 2, "pace_per_minute", id="pace beyond any calendar"),
        pytest.param([*ROLLOUT, "--pace", "1e300"], 2, "found 1e+300", id="pace above any broker"),
        pytest.param([*ROLLOUT, "--min-sample", "9" * 25], 2, "min_sample", id="sample that no database holds"),
        pytest.param([*ROLLOUT, "--halt-count", "9" * 25], 2, "halt_count", id="count that no database holds"),
        pytest.param([*ROLLOUT, "--stage", "a=nan%"], 2, "--stage 'a=nan%'", id="percentage that is not a number"),
        pytest.param([*ROLLOUT, "--stage", "a=100%", "--stage", "a=g"], 2, "its own", id="two stages of one name"),
        pytest.param([*ROLLOUT, "--stage", "a"], 2, "expected NAME=25%", id="stage without a share"),
        pytest.param(["rollout", "create", "--release", "gw"], 2, "expected product/version", id="release name"),
        pytest.param([*ROLLOUT, "--success", "1.5"], 2, "--success '1.5'", id="success above one"),
        pytest.param([*ROLLOUT, "--halt", "nan"], 2, "--halt 'nan'", id="halt that is not a number"),
        pytest.param([*ROLLOUT, "--soak", "soon"], 2, "--soak 'soon'", id="soak that is no duration"),
        pytest.param([*ROLLOUT, "--pace", "0"], 2, "pace_per_minute", id="pace of nothing"),
        pytest.param([*ROLLOUT, "--pace", "inf"], 2, "pace_per_minute", id="pace without an end"),
        pytest.param([*ROLLOUT, "--start-at", "2026-12-01T03:00"], 2, "with its zone", id="start without a zone"),
        pytest.param([*ROLLOUT, "--min-sample", "0"], 2, "--min-sample", id="empty sample"),
        pytest.param(["rollout", "watch", "r-1", "--timeout", "0"], 2, "above 0", id="no time to watch"),
        pytest.param(ROLLOUT, 9, "start it with 'flagship serve", id="no serve"),
        pytest.param(["device", "list"], 9, "start it with 'flagship serve", id="no serve to list devices"),
        pytest.param(["release", "list"], 9, "start it with 'flagship serve", id="no serve to list releases"),
        pytest.param(["status"], 9, "flagship serve", id="no broker for the status"),
        pytest.param(["rollout", "watch", "r-1"], 9, "flagship serve", id="no broker to watch"),
        pytest.param(["device", "enrol", "none.json", "-o", "out.json"], 3, "no such request", id="no such request"),
    ],
)
def test_bad_input_is_one_sentence(
    words: list[str], code: int, says: str, home: Home, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
) -> None:  # fmt: skip
    """What is wrong is named, with the exit code of its kind, and nothing goes to stdout."""
    monkeypatch.setenv("FLAGSHIP_HOME", str(home.path))
    monkeypatch.chdir(tmp_path)
    found, out, err = run(capsys, *words)
    assert_sentence(err)
    assert says in err
    assert (found, out) == (code, "")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("words", [["status"], ["device", "list"], ["rollout", "start", "r-1"], ["group", "list"]])
def test_no_home_is_named(words: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Without a home every client says where it looked and how to make one."""
    code, _, err = run(capsys, *words, "--home", tmp_path / "nowhere")
    assert_sentence(err)
    assert code == 3
    assert "nowhere" in err
    assert "flagship init" in err


def test_settings_with_a_mistake_are_named(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """A typing mistake in config.toml is answered with its place."""
    (tmp_path / "config.toml").write_text('fleet = "harbour"\n[api]\nport = 70000\n')
    code, _, err = run(capsys, "device", "list", "--home", tmp_path)
    assert_sentence(err)
    assert code == 2
    assert "api.port" in err


def test_help_imports_no_noun() -> None:
    """The list of commands is quick: nothing of the orchestrator is loaded for it."""
    script = (
        "import sys; from orchestrator.cli.main import main; code = main(['--help']); "
        "bad = [m for m in ('fastapi', 'sqlalchemy', 'httpx', 'aiomqtt', 'pydantic') if m in sys.modules]; "
        "print(bad, file=sys.stderr); sys.exit(code or bool(bad))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr
    assert all(name in done.stdout for name in NOUNS)


@pytest.mark.parametrize("name", NOUNS)
def test_every_noun_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Each noun of the list exists."""
    code, out, err = run(capsys, name, "--help")
    assert (code, err) == (0, "")
    assert f"flagship {name}" in out


def test_a_missing_package_is_named(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine without the orchestrator's packages a command says what to install."""
    monkeypatch.setitem(NOUNS, "status", Noun("surely_not_installed:status", ""))
    code, _, err = run(capsys, "status")
    assert_sentence(err)
    assert code == 1
    assert "install flagship[orchestrator]" in err


@pytest.mark.parametrize(
    ("error", "code", "says"),
    [
        pytest.param(KeyError("inside"), 1, "FLAGSHIP_TRACEBACK=1", id="a mistake inside"),
        pytest.param(FileNotFoundError(2, "No such file", "x.bin"), 1, "x.bin: No such file", id="a file"),
        pytest.param(HaltedError("r-1: \x1b[2Jgone\nreally"), 6, "gone really", id="a device's words"),
        pytest.param(KeyboardInterrupt(), INTERRUPTED, "interrupted", id="interrupted"),
    ],
)
def test_what_no_command_foresaw_is_a_sentence_too(
    error: BaseException, code: int, says: str,
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Even a mistake of ours ends in one sentence."""

    def fail() -> None:
        raise error

    monkeypatch.setattr("orchestrator.cli.status.status", fail)
    found, _, err = run(capsys, "status")
    assert_sentence(err)
    assert found == code
    assert says in err


def test_a_reader_that_leaves_is_no_failure_of_ours() -> None:
    """``flagship ... | head`` ends quietly."""
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "orchestrator.cli.main", "--help"],
        stdout=writing, stderr=subprocess.PIPE, timeout=30, check=False,
    )  # fmt: skip
    os.close(writing)
    assert done.returncode in {1, BROKEN_PIPE}
    assert done.stderr == b""


def test_a_closed_standard_output_is_one_sentence(home: Home) -> None:
    """``>&-``: Python has no stdout then."""
    command = f"'{sys.executable}' -m orchestrator.cli.main init '{home.path}' >&-"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=30)
    assert done.returncode == 1
    assert_sentence(done.stderr)
    assert "standard output is closed" in done.stderr


def test_a_full_disk_behind_standard_output_is_named() -> None:
    """``/dev/full`` stands for the disk that an answer no longer fits on."""
    command = f"'{sys.executable}' -m orchestrator.cli.main --help > /dev/full"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=30)
    assert done.returncode == 1
    assert_sentence(done.stderr)
    assert "standard output: cannot be written: No space left on device" in done.stderr


@pytest.mark.parametrize("words", [["status"], ["rollout", "status", "r-1"], ["rollout", "watch", "r-1"]])
def test_a_viewer_certificate_that_cannot_work_is_named(
    home: Home, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    """Not "start serve": the key of another certificate will never open the broker's door."""
    shutil.copytree(home.path, tmp_path / "home")
    tls = tmp_path / "home" / "tls"
    shutil.copy(tls / "orch-ingest.key", tls / "viewer.key")
    code, _, err = run(capsys, *words, "--home", tmp_path / "home")
    assert code == 1
    assert_sentence(err)
    assert "viewer.key: is not the key of" in err
