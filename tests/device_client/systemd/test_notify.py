"""What the service manager hears, over real datagram sockets: by path and by abstract name."""

import asyncio
import os
import secrets
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from device_client.config import write
from device_client.systemd.notify import ServiceManager
from tests.device_client.test_service import make_device

ROOT = Path(__file__).parents[3]


class Listener:
    """Stands where systemd listens."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(f"\0{address[1:]}" if address.startswith("@") else address)
        self._socket.setblocking(False)
        self.heard: list[str] = []

    def words(self) -> list[str]:
        """All that came so far."""
        with suppress(BlockingIOError):
            while True:
                self.heard += self._socket.recv(4096).decode().split("\n")
        return self.heard

    async def hears(self, word: str, timeout_s: float = 20) -> None:
        """Wait for it."""
        async with asyncio.timeout(timeout_s):
            while word not in self.words():
                await asyncio.sleep(0.005)

    def close(self) -> None:
        """Listen no more."""
        self._socket.close()


@pytest.fixture(params=["path", "abstract"])
def listener(request: pytest.FixtureRequest, place: Path) -> Iterator[Listener]:
    """By either kind of name."""
    address = str(place / "notify") if request.param == "path" else f"@flagship-{secrets.token_hex(8)}"
    found = Listener(address)
    yield found
    found.close()


@asynccontextmanager
async def told(manager: ServiceManager, ready: list[bool], standing: list[str]) -> AsyncIterator[None]:
    """A manager that is kept told during the block."""
    task = asyncio.create_task(manager.keep_told(lambda: bool(ready), lambda: standing[-1]))
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def test_ready_once_and_status_on_change(listener: Listener) -> None:
    """READY when it is and never again; each status once, on one line; STOPPING at the end."""
    ready: list[bool] = []
    standing = ["no update\nREADY=1"]
    async with told(ServiceManager(listener.address, 0.04), ready, standing):
        await listener.hears("STATUS=no update?READY=1")
        assert "READY=1" not in listener.words()
        ready.append(True)
        await listener.hears("READY=1")
        standing.append("installing")
        await listener.hears("STATUS=installing")
        await asyncio.sleep(0.1)
    words = listener.words()
    assert words.count("READY=1") == words.count("STATUS=installing") == 1
    assert words[-1] == "STOPPING=1"


async def test_a_loop_that_hangs_feeds_no_watchdog(listener: Listener) -> None:
    """In its time it is fed; nothing else feeds it for a loop that does not turn. Without a watchdog nothing does."""
    async with told(ServiceManager(listener.address, 0.2), [], ["fine"]):
        began = time.monotonic()
        while listener.words().count("WATCHDOG=1") < 4:
            assert time.monotonic() - began < 5
            await asyncio.sleep(0.01)
        assert time.monotonic() - began < 4 * 0.2, "each in less than its time"
        fed = listener.words().count("WATCHDOG=1")
        time.sleep(0.4)  # noqa: ASYNC251 - that is what hangs
        assert listener.words().count("WATCHDOG=1") == fed
        await asyncio.sleep(0.15)
        assert listener.words().count("WATCHDOG=1") > fed
    listener.heard.clear()
    async with told(ServiceManager(listener.address), [], ["fine"]):
        await listener.hears("STATUS=fine")
    assert "WATCHDOG=1" not in listener.words()


def test_what_the_environment_says(listener: Listener) -> None:
    """A watchdog for another process is not ours to feed; without a socket nothing is said, to nobody's harm."""
    mine = str(os.getpid())
    for pid, usec, expected in (("", "200000", 0.2), (mine, "200000", 0.2), ("1", "200000", 0), (mine, "x", 0)):
        env = {"NOTIFY_SOCKET": listener.address, "WATCHDOG_USEC": usec, "WATCHDOG_PID": pid}
        assert ServiceManager.of(env)._watchdog_s == expected
    assert ServiceManager.of({"NOTIFY_SOCKET": listener.address}).tell("READY=1")
    assert listener.words() == ["READY=1"]
    assert not ServiceManager.of({}).tell("READY=1")
    for nowhere in ("/nowhere/notify", "@", "x" * 200, "\0"):
        assert not ServiceManager(nowhere).tell("READY=1")


async def test_the_agent_itself(place: Path) -> None:
    """Started as systemd starts it: ready, standing, fed, and stopping when it is told to."""
    home, settings = make_device(place)
    write(home, settings)
    listener = Listener(str(place / "notify"))
    env = {**os.environ, "PYTHONPATH": str(ROOT), "NOTIFY_SOCKET": listener.address, "WATCHDOG_USEC": "400000"}
    words = [sys.executable, "-m", "device_client.cli", "run", "--config", str(home.path)]
    agent = await asyncio.create_subprocess_exec(*words, env=env, stderr=asyncio.subprocess.DEVNULL)
    try:
        await listener.hears("READY=1")
        await listener.hears("STATUS=d1: not connected, no update is open")
        fed = listener.words().count("WATCHDOG=1")
        async with asyncio.timeout(5):
            while listener.words().count("WATCHDOG=1") < fed + 2:
                await asyncio.sleep(0.02)
        agent.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(agent.wait(), 10) == 0
        await listener.hears("STOPPING=1")
    finally:
        with suppress(ProcessLookupError):
            agent.kill()
        listener.close()
