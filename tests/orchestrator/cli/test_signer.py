"""``flagship signer``: bad input is one sentence, and what a person may ask of it works without a serve."""

import json
import os
import signal
import threading
import time
from pathlib import Path

import pytest

from orchestrator.cli import signer as cli_signer
from orchestrator.cli.main import main
from orchestrator.config import Home, Settings
from orchestrator.signer.client import SignerClient
from orchestrator.signer.opening import alone_in
from orchestrator.signer.signer import Signer
from protocol.clock import ManualClock
from tests.integration.small_fleet import short_place
from tests.orchestrator.cli.homes import FLEET, make_home
from tests.orchestrator.signer.conftest import NOW, Asker


@pytest.fixture(autouse=True)
def _keep_logging(monkeypatch: pytest.MonkeyPatch) -> None:
    """Logging is the process', and this one has more tests to run."""
    monkeypatch.setattr(cli_signer, "log_to_stderr", lambda: None)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """A home that nothing serves; its signer has halted r-1."""
    home = make_home(tmp_path / "home")
    signer = Signer.open(home, Settings(fleet=FLEET), ManualClock(NOW))
    signer.sign([Asker(home).announcement("hold", halts=1, reason="smoke")])
    signer.close()
    return home


def run(capsys: pytest.CaptureFixture[str], home: Home, *words: str) -> tuple[int, str, str]:
    """Run ``flagship signer`` in this process: (exit code, stdout, stderr)."""
    code = main(["signer", "--home", str(home.path), *words])
    said = capsys.readouterr()
    return code, said.out, said.err


def test_a_home_that_names_no_socket(capsys: pytest.CaptureFixture[str], home: Home) -> None:
    """The sentence says what to add."""
    code, _, said = run(capsys, home)
    assert code == 2 and "[signer] socket" in said


@pytest.mark.parametrize(
    ("socket", "code", "sentence"),
    [("x" * 200, 2, "too long for a socket"), ("no/such/folder/s.sock", 1, "cannot be listened on")],
)
def test_a_socket_that_cannot_be(
    capsys: pytest.CaptureFixture[str],
    home: Home,
    monkeypatch: pytest.MonkeyPatch,
    socket: str,
    code: int,
    sentence: str,
) -> None:
    """One sentence, and the lock is let go."""
    monkeypatch.setenv("FLAGSHIP_SIGNER__SOCKET", socket)
    found, _, said = run(capsys, home)
    assert found == code and sentence in said.splitlines()[-1]
    with alone_in(home.signer):
        pass


def test_a_second_signer_is_refused(
    capsys: pytest.CaptureFixture[str], home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit code 5, whoever has the keys."""
    monkeypatch.setenv("FLAGSHIP_SIGNER__SOCKET", "s.sock")
    with alone_in(home.signer):
        code, _, said = run(capsys, home)
    assert code == 5 and "another signer has these keys" in said


def test_missing_keys_are_named(
    capsys: pytest.CaptureFixture[str], home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit code 3 for a key, 4 for a folder that is not there."""
    monkeypatch.setenv("FLAGSHIP_SIGNER__SOCKET", "s.sock")
    (home.signer / "director.key").unlink()
    code, _, said = run(capsys, home)
    assert code == 3 and "director.key: the key is missing" in said
    home.signer.rename(home.path / "elsewhere")
    code, _, said = run(capsys, home)
    assert code == 4 and "signer.lock: cannot be opened" in said


def test_the_log_is_checked(capsys: pytest.CaptureFixture[str], home: Home) -> None:
    """Whole, or the line that was changed."""
    code, said, _ = run(capsys, home, "check-log", "-o", "json")
    assert code == 0 and json.loads(said)["lines"] == 1
    path = home.signer / "requests.log"
    path.write_bytes(path.read_bytes() * 2)
    code, _, said = run(capsys, home, "check-log")
    assert code == 1 and "line 2 does not follow" in said


def test_a_halt_is_lifted_with_a_reason(capsys: pytest.CaptureFixture[str], home: Home) -> None:
    """While serve is stopped, by the keys themselves; once."""
    assert run(capsys, home, "lift", "r-1")[0] == 2, "a reason is needed"
    code, said, _ = run(capsys, home, "lift", "r-1", "--reason", "looked at it")
    assert code == 0 and "lifted" in said
    code, _, said = run(capsys, home, "lift", "r-1", "--reason", "again")
    assert code == 3 and "not halted" in said


def test_it_serves_until_it_is_told_to_stop(
    capsys: pytest.CaptureFixture[str], home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A relative socket begins at the home; SIGTERM ends it with 0, the socket is gone; lift asks it while it runs."""
    with short_place() as place:
        (place / "h").symlink_to(home.path)
        monkeypatch.setenv("FLAGSHIP_SIGNER__SOCKET", "s.sock")
        short, lifted = Home(place / "h"), []

        def ask() -> None:
            until = time.monotonic() + 20
            while not (short.path / "s.sock").exists() and time.monotonic() < until:
                time.sleep(0.01)
            client = SignerClient(short.path / "s.sock", 10)
            try:
                client.lift("r-1", "looked at it")
                lifted.append("r-1")
            finally:
                client.close()
                os.kill(os.getpid(), signal.SIGTERM)

        thread = threading.Thread(target=ask)
        thread.start()
        code, _, _ = run(capsys, short)
        thread.join()
        assert code == 0 and lifted == ["r-1"]
        assert not (short.path / "s.sock").exists()
