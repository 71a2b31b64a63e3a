"""One real ``flagship serve`` with its broker for every test of a client."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from orchestrator.cli.main import main
from orchestrator.config import Home
from tests.orchestrator.cli.homes import PRODUCT, make_home
from tests.orchestrator.web.requests_of_devices import enrolment_request

START_S = 30.0
RELEASE = f"{PRODUCT}/1.1.0"
DEVICES = ("gw-1", "gw-2", "gw-3")

Run = Callable[..., tuple[int, str, str]]
"""Words of ``flagship`` -> (exit code, stdout, stderr)."""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """A home with a serve, three devices and a published release, of each file's own: none depends on another's."""
    with serving(tmp_path_factory.mktemp("served")) as home:
        yield home


@contextmanager
def serving(place: Path) -> Iterator[Home]:
    """A home with a serve, three devices and a published release, at this place."""
    home = make_home(place / "home")
    with (place / "serve.log").open("wb") as log:
        words = [sys.executable, "-m", "orchestrator.cli.main", "serve", "--home", str(home.path)]
        process = subprocess.Popen(words, stdout=log, stderr=log)
    try:
        _wait_for(home, process, place / "serve.log")
        _fill(home, place)
        yield home
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@pytest.fixture
def run(served: Home, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs commands against the serve."""
    monkeypatch.setenv("FLAGSHIP_HOME", str(served.path))

    def command(*words: object) -> tuple[int, str, str]:
        code = main([str(word) for word in words])
        said = capsys.readouterr()
        return code, said.out, said.err

    return command


def ask(run: Run, *words: object) -> Any:
    """Run a command that must succeed, and read its JSON."""
    code, out, err = run(*words, "-o", "json")
    assert (code, err) == (0, ""), err
    return json.loads(out)


def write_request(directory: Path, device: str, **labels: str) -> Path:
    """A request file."""
    file = directory / f"{device}.json"
    file.write_text(json.dumps(enrolment_request(device, **labels)))
    return file


def _wait_for(home: Home, process: "subprocess.Popen[bytes]", log: Path) -> None:
    address = f"http://127.0.0.1:{home.load().api.port}/healthz"
    until = time.monotonic() + START_S
    while time.monotonic() < until:
        assert process.poll() is None, log.read_text()
        try:
            httpx.get(address, trust_env=False, timeout=1.0)
        except httpx.HTTPError:
            time.sleep(0.05)
            continue
        return
    raise AssertionError(f"no serve within {START_S} s: {log.read_text()}")


def _fill(home: Home, place: Path) -> None:
    image, package = place / "image", place / "package"
    image.mkdir()
    (image / "app").write_bytes(os.urandom(50_000))
    requests = [write_request(place, device, site="lab") for device in DEVICES]
    for words in (
        ["release", "create", image, "--version", "1.1.0", "--hardware", "rev-a", "-o", package],
        ["release", "publish", package],
        ["device", "enrol", *requests, "-o", place / "answers.json"],
        ["group", "create", "canary", DEVICES[0]],
    ):
        assert main([*(str(word) for word in words), "--home", str(home.path)]) == 0
