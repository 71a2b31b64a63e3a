"""``serve`` as a process: what it needs, whom it refuses, and that it ends as a whole."""

import asyncio
import contextlib
import os
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from orchestrator.cli.client import ApiClient
from orchestrator.config import Home, Settings
from orchestrator.demo.processes import program
from tests.integration.small_fleet import make_home, until

DEADLINE_S = 30.0


class Served:
    """A home and the processes of ``serve`` on it."""

    def __init__(self, home: Home, settings: Settings) -> None:
        self.home = home
        self.settings = settings

    @contextlib.asynccontextmanager
    async def process(self, **env: str) -> AsyncIterator[asyncio.subprocess.Process]:
        """``flagship serve``; killed at the end if it still runs."""
        process = await asyncio.create_subprocess_exec(
            program("flagship"), "serve", "--home", str(self.home.path),
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
            env={**os.environ, **env},
        )  # fmt: skip
        try:
            yield process
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()

    async def answers(self) -> None:
        """Wait until the API answers and the broker is reached."""
        client = ApiClient(self.home)
        async with asyncio.timeout(DEADLINE_S):
            while True:
                with contextlib.suppress(Exception):
                    if (await asyncio.to_thread(client.get, "/status"))["broker_connected"]:
                        return
                await asyncio.sleep(0.05)

    def children(self) -> list[int]:
        """Processes whose command line names this home and that are no ``serve``."""
        found = []
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                words = (entry / "cmdline").read_bytes() if entry.name.isdecimal() else b""
                if str(self.home.broker).encode() in words:
                    found.append(int(entry.name))
        return found


async def _end(process: asyncio.subprocess.Process, timeout_s: float = DEADLINE_S) -> tuple[int, str]:
    async with asyncio.timeout(timeout_s):
        _, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, err.decode(errors="replace")


@pytest.fixture
def served(tmp_path: Path) -> Served:
    """A new home on free ports; nothing runs."""
    return Served(*make_home(tmp_path))


async def test_a_signal_ends_all_of_it_in_order(served: Served) -> None:
    """Exit 0, no traceback; the broker has saved what it retains and is gone; ports and lock are free for the next."""
    for number in (signal.SIGTERM, signal.SIGINT):
        async with served.process() as process:
            await served.answers()
            assert served.children()
            process.send_signal(number)
            code, said = await _end(process)
        assert (code, "Traceback" in said) == (0, False), said[-2000:]
        assert not served.children()
        assert (served.home.broker / "retained.db").stat().st_size > 0
        with socket.create_server(("127.0.0.1", served.settings.api.port)):
            pass


async def test_a_signal_is_heard_before_the_broker_is_ready(served: Served, tmp_path: Path) -> None:
    """A broker that never answers is waited for at most until somebody wants an end."""
    programs = tmp_path / "programs"
    programs.mkdir()
    fake = programs / "mosquitto"
    fake.write_text(f"#!{sys.executable}\nimport time\ntime.sleep(300)\n")
    fake.chmod(0o755)
    async with served.process(PATH=f"{programs}:{os.environ['PATH']}") as process:
        await until(lambda: bool(served.children()), "the broker's process", DEADLINE_S)
        begun = time.monotonic()
        process.terminate()
        code, said = await _end(process, 15)
    assert (code, "Traceback" in said) == (0, False), said[-2000:]
    assert time.monotonic() - begun < 8
    assert not served.children()


async def test_a_second_serve_on_a_home_refuses(served: Served) -> None:
    """One sentence, exit 5, and the first one goes on."""
    async with served.process() as first:
        await served.answers()
        async with served.process() as second:
            code, said = await _end(second)
        assert code == 5
        assert "another 'flagship serve' runs on this home" in said
        assert "Traceback" not in said
        assert first.returncode is None
        await served.answers()


@pytest.mark.parametrize("which", ["api", "service"])
async def test_a_port_in_use_is_one_sentence(served: Served, which: str) -> None:
    """It names the port and what to do, and leaves no broker behind."""
    ports = {"api": served.settings.api.port, "service": served.settings.broker.service_port}
    with socket.create_server(("127.0.0.1", ports[which])):
        async with served.process() as process:
            code, said = await _end(process)
    assert code == 5
    assert f"cannot listen on 127.0.0.1:{ports[which]}" in said
    assert "Traceback" not in said
    assert not served.children()


@pytest.mark.parametrize(
    ("file", "words"),
    [
        ("signer/director.key", "the key is missing"),
        ("admin.token", "admin token"),
        ("trust/timestamp.json", "missing"),
    ],
)
async def test_a_home_that_lacks_something_is_one_sentence(served: Served, file: str, words: str) -> None:
    """It ends by itself with the file's name and exit 3; nothing is left running."""
    (served.home.path / file).unlink()
    async with served.process() as process:
        code, said = await _end(process)
    assert code == 3, said[-2000:]
    assert words in said
    assert "Traceback" not in said
    assert not served.children()


async def test_a_broker_that_dies_is_started_again(served: Served) -> None:
    """SIGKILL of mosquitto ends nothing: another takes its place and is reached."""
    async with served.process() as process:
        await served.answers()
        (broker,) = served.children()
        os.kill(broker, signal.SIGKILL)
        await until(lambda: served.children() not in ([], [broker]), "another broker", DEADLINE_S)
        await served.answers()
        assert process.returncode is None
        process.terminate()
        assert (await _end(process))[0] == 0
