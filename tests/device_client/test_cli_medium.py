"""``flagship-device update``: what a person reads of a medium."""

import asyncio
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from device_client import cli, config, local_socket
from device_client.config import DeviceHome
from device_client.errors import ConflictError
from tests.device_client.lab import until


@pytest.fixture
def home() -> Iterator[DeviceHome]:
    """A home whose path leaves room for a socket's name."""
    home = DeviceHome(Path(tempfile.mkdtemp(prefix="fs-")))
    home.create()
    words = {"device": {"id": "d1", "product": "p", "hardware": "h"}}
    config.write(home, config.settings_from(words, "test"))
    yield home
    shutil.rmtree(home.path)


async def _update(home: DeviceHome, answer: dict[str, Any] | ConflictError) -> tuple[int, dict[str, Any]]:
    asked: dict[str, Any] = {}

    async def handle(verb: str, arguments: dict[str, Any], _who: str) -> dict[str, Any]:
        await asyncio.sleep(0)
        asked.update(verb=verb, **arguments)
        if isinstance(answer, ConflictError):
            raise answer
        return answer

    door = asyncio.create_task(local_socket.serve(home.socket, handle))
    await until(home.socket.exists)
    code = await asyncio.to_thread(cli.main, ["update", "--home", str(home.path), "--from", "stick"])
    door.cancel()
    await asyncio.gather(door, return_exceptions=True)
    return code, asked


async def test_what_was_taken_and_what_was_not(home: DeviceHome, capsys: pytest.CaptureFixture[str]) -> None:
    """A line for each; the agent is told the whole path, for it works elsewhere."""
    answer = {"taken": {"r-1": "taken; acts unasked"}, "refused": {"r-2": "E_REPLAY: old", "": "E_FREEZE: late"}}
    code, asked = await _update(home, answer)
    assert code == 0
    assert asked == {"verb": "update", "medium": str(Path.cwd() / "stick")}
    assert capsys.readouterr().out.splitlines() == [
        "rollout r-1: taken; acts unasked",
        "rollout r-2: not taken: E_REPLAY: old",
        "trust: not taken: E_FREEZE: late",
    ]


async def test_a_medium_that_is_refused(home: DeviceHome, capsys: pytest.CaptureFixture[str]) -> None:
    """One sentence, and the exit code of a conflict."""
    code, _ = await _update(home, ConflictError("stick: nothing on it was taken: E_EXPIRED"))
    assert code == 5
    assert "nothing on it was taken" in capsys.readouterr().err


def test_without_an_agent(home: DeviceHome, capsys: pytest.CaptureFixture[str]) -> None:
    """It is the agent that updates: the command says how to start it."""
    assert cli.main(["update", "--home", str(home.path), "--from", "/media/stick"]) == 9
    assert "flagship-device run" in capsys.readouterr().err
