"""The device's command line: bad input gets one sentence and an exit code, never a traceback."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from device_client.cli import main

ENV = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
NEW = ["--id", "gw-1", "--product", "gateway", "--hardware", "rev-a"]


def enrol(home: Path, *words: str) -> int:
    return main(["enrol", "--home", str(home), *words])


def test_enrol_makes_keys_and_a_request(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Private keys stay in the home, readable by its owner alone; the request holds none of them."""
    assert enrol(tmp_path / "d", *NEW, "--label", "site=berlin") == 0
    request = (tmp_path / "d" / "request.json").read_text()
    assert json.loads(request)["labels"] == {"site": "berlin"}
    assert "PRIVATE" not in request
    for name in ("device.key", "content.key"):
        assert (tmp_path / "d" / "identity" / name).stat().st_mode & 0o777 == 0o600
    assert "flagship device enrol" in capsys.readouterr().out


def test_enrol_again_keeps_the_keys(tmp_path: Path) -> None:
    """A second request belongs to the same keys: a certificate that is on its way still fits."""
    assert enrol(tmp_path / "d", *NEW) == 0
    key = (tmp_path / "d" / "identity" / "device.key").read_bytes()
    assert enrol(tmp_path / "d") == 0
    assert (tmp_path / "d" / "identity" / "device.key").read_bytes() == key


def test_enrol_takes_in_what_the_factory_installed(tmp_path: Path) -> None:
    """The running version is a copy inside the home, and the link points at it."""
    factory = tmp_path / "factory"
    factory.mkdir()
    (factory / "app").write_text("one")
    assert enrol(tmp_path / "d", *NEW, "--installed", str(factory), "--version", "1.0.0") == 0
    assert (tmp_path / "d" / "current" / "app").read_text() == "one"


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        ([], 2, "--id, --product and --hardware"),
        (["--id", "a/b", "--product", "p", "--hardware", "h"], 2, "letters, digits"),
        ([*NEW, "--label", "berlin"], 2, "KEY=VALUE"),
        ([*NEW, "--label", "a/b=c"], 2, "letters, digits"),
        ([*NEW, "--installed", "/nowhere"], 2, "--version"),
        ([*NEW, "--version", "1.0.0"], 2, "--installed"),
        ([*NEW, "--installed", "/nowhere", "--version", "1.0.0"], 3, "/nowhere"),
        ([*NEW, "--installed", "/etc", "--version", "a/b"], 2, "version 'a/b'"),
        ([*NEW, "--installed", "/etc/hostname", "--version", "1.0.0"], 1, "not a directory"),
        ([*NEW, "-o", "/nowhere/request.json"], 3, "/nowhere/request.json"),
        (["--accept", "/nowhere"], 3, "no device here"),
        (["--nope"], 2, "see 'flagship-device --help'"),
    ],
)
def test_bad_words_of_enrol(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], code: int, sentence: str
) -> None:
    """What, expected, found, what to do: one line on stderr."""
    assert enrol(tmp_path / "d", *words) == code
    error = capsys.readouterr().err
    assert sentence in error
    assert error.count("\n") == 1
    assert error.startswith("flagship-device: ")
    assert not (tmp_path / "d").exists()  # nothing half done: the corrected command starts afresh


def test_another_id_in_one_home_is_refused(tmp_path: Path) -> None:
    """A home belongs to one device."""
    assert enrol(tmp_path / "d", *NEW) == 0
    assert enrol(tmp_path / "d", "--id", "gw-2", "--product", "gateway", "--hardware", "rev-a") == 5


@pytest.mark.parametrize("verb", ["status", "approve", "decline", "defer"])
def test_no_agent(tmp_path: Path, capsys: pytest.CaptureFixture[str], verb: str) -> None:
    """Verbs for the agent say how to start it."""
    assert enrol(tmp_path / "d", *NEW) == 0
    assert main([verb, "--home", str(tmp_path / "d")]) == 9
    assert "flagship-device run" in capsys.readouterr().err


@pytest.mark.parametrize("verb", ["status", "approve"])
def test_no_home(tmp_path: Path, capsys: pytest.CaptureFixture[str], verb: str) -> None:
    """A folder without device.toml is no device."""
    assert main([verb, "--home", str(tmp_path / "nowhere")]) == 3
    assert "flagship-device enrol" in capsys.readouterr().err


def test_run_before_enrolment_is_accepted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The agent does not start without a certificate, and says what is missing."""
    assert enrol(tmp_path / "d", *NEW) == 0
    assert main(["run", "--config", str(tmp_path / "d")]) == 3
    assert "not enrolled" in capsys.readouterr().err


def test_inhibit_and_release(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A program's word that the device is in use comes and goes."""
    home = tmp_path / "d"
    assert enrol(home, *NEW) == 0
    words = ["inhibit", "--home", str(home), "player"]
    assert main([*words, "--why", "a film", "--seconds", "60"]) == 0
    assert json.loads((home / "run" / "inhibit.d" / "player.json").read_text())["why"] == "a film"
    assert main([*words, "--release"]) == 0
    assert not list((home / "run" / "inhibit.d").iterdir())
    assert main([*words, "--release"]) == 3
    assert main(["inhibit", "--home", str(home), "../x"]) == 2
    assert main([*words, "--seconds", "0"]) == 2
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--product", "other"], "product gateway, not other"),
        (["--hardware", "rev-b"], "hardware rev-a, not rev-b"),
        (["--component", "os"], "component app, not os"),
        (["--label", "site=lab"], "no label site=lab"),
        (["--health", "/bin/true"], "another health check"),
    ],
)
def test_other_words_for_a_home_that_is_there_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], says: str
) -> None:
    """What is not taken over is said; the words of the home's own settings are no conflict."""
    assert enrol(tmp_path / "d", *NEW, "--label", "site=berlin") == 0
    assert enrol(tmp_path / "d", *NEW, "--label", "site=berlin", "--component", "app") == 0
    assert enrol(tmp_path / "d", *words) == 5
    assert says in capsys.readouterr().err


@pytest.mark.parametrize("words", [[], ["nope"], ["status", "-o", "yaml"], ["defer", "--seconds", "x"]])
def test_words_that_do_not_parse(capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    """One sentence with the way to help, as everywhere; no screen of usage."""
    assert main(words) == 2
    error = capsys.readouterr().err
    assert error.startswith("flagship-device: ")
    assert error.count("\n") == 1
    assert "--help'" in error


@pytest.mark.parametrize(
    ("redirection", "code", "says"),
    [
        (">&-", 2, "standard output is closed"),
        ("> /dev/full", 1, "standard output: No space left on device"),
        ("| true; exit ${PIPESTATUS[0]}", 141, ""),
    ],
)
def test_where_an_answer_cannot_go(tmp_path: Path, redirection: str, code: int, says: str) -> None:
    """A closed, full or abandoned standard output: a sentence or silence, never a traceback."""
    command = f"'{sys.executable}' -m device_client.cli enrol --home d {' '.join(NEW)} {redirection}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=30, cwd=tmp_path, env=ENV)
    assert done.returncode == code, done.stderr
    assert says in done.stderr
    assert done.stderr.count("\n") == (1 if says else 0)
