"""The door for programs that use the device: an inhibitor lives as long as its connection, and no longer."""

import asyncio
import os
import pwd
import signal
import stat
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

import pytest

from device_client.cli import main
from device_client.config import DeviceHome, settings_from, write
from device_client.errors import ConflictError, UnreachableError
from device_client.gates.gate import GateContext, Ready, Wait
from device_client.gates.in_use import Inhibitor, InUseGate
from device_client.inhibit_socket import MAX_CONNECTIONS, MAX_LINE_BYTES, InhibitDoor, hold
from protocol.clock import ManualClock
from protocol.manifest import Policy
from protocol.states import Phase
from tests.device_client.lab import until

ME = pwd.getpwuid(os.getuid()).pw_name


class Serving:
    """A door that is served."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.door = InhibitDoor()
        self.task = asyncio.create_task(self.door.serve(path))

    async def stop(self) -> None:
        """As when the agent ends."""
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


@pytest.fixture
def home(tmp_path: Path) -> DeviceHome:
    home = DeviceHome(tmp_path / "d")
    home.create()
    write(home, settings_from({"device": {"id": "d1", "product": "p", "hardware": "h"}}, "test"))
    return home


@pytest.fixture
async def serving(home: DeviceHome) -> AsyncIterator[Serving]:
    found = Serving(home.inhibit_socket)
    await until(home.inhibit_socket.is_socket)
    yield found
    await found.stop()


async def _gone(serving: Serving) -> None:
    await until(lambda: not serving.door.held())


async def test_as_long_as_the_connection(serving: Serving, tmp_path: Path) -> None:
    """The gate names who and why and which user; when the connection closes it is open again."""
    gate = InUseGate(tmp_path / "absent", ManualClock(datetime(2026, 11, 25, tzinfo=UTC)), serving.door.held)
    context = GateContext(Phase.INSTALL, "r", 0, Policy(), "ab" * 32)
    connection = await asyncio.to_thread(hold, serving.path, "player", "a film")
    assert await gate.judge(context) == Wait("in_use", f"in use by player: a film (user {ME})")
    connection.sendall(b"more is not asked for\n" * 1000)
    await asyncio.sleep(0.01)
    assert serving.door.held()
    connection.close()
    await _gone(serving)
    assert await gate.judge(context) == Ready()


async def test_a_killed_program_inhibits_no_more(serving: Serving) -> None:
    """It cannot be forgotten: the kernel closes what a dead program held."""
    begin = "import socket, sys; s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1])"
    code = f"{begin}; s.sendall(sys.argv[2].encode())"
    words = [sys.executable, "-S", "-c", f"{code}; s.recv(100); s.recv(1)", str(serving.path), '{"who": "p"}\n']
    with subprocess.Popen(words) as program:
        await until(lambda: bool(serving.door.held()))
        assert serving.door.held() == [Inhibitor(who="p", why=f"user {ME}")]
        program.kill()
        await _gone(serving)


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"\n",
        b"{\n",
        b"[]\n",
        b'{"why": "x"}\n',
        b'{"who": "a/b"}\n',
        b"[" * 3000 + b"\n",
        b"x" * 2 * MAX_LINE_BYTES,
    ],
    ids=["nothing", "empty", "cut", "list", "no who", "bad who", "deep", "too long"],
)
async def test_nonsense_inhibits_nothing(serving: Serving, line: bytes) -> None:
    """Who does not say in one line who it is gets an error, or is left."""
    reader, writer = await asyncio.open_unix_connection(serving.path)
    writer.write(line)
    writer.write_eof()
    answer = await reader.read()
    assert not serving.door.held()
    assert b"ok" not in answer
    writer.close()


async def test_what_is_said_is_bounded(serving: Serving) -> None:
    """A reason that is too long is refused; control characters move no cursor."""
    with pytest.raises(ConflictError, match="up to 200 characters"):
        await asyncio.to_thread(hold, serving.path, "player", "x" * 201)
    with await asyncio.to_thread(hold, serving.path, "player", "\x1b[2J\na"):
        assert serving.door.held()[0].why == f"?[2J a (user {ME})"
    await _gone(serving)


async def test_a_bounded_number(serving: Serving) -> None:
    """One too many is told so, and has a place when another goes."""
    connections = [await asyncio.to_thread(hold, serving.path, f"p{n}", "") for n in range(MAX_CONNECTIONS)]
    assert [one.who for one in serving.door.held()] == [f"p{n}" for n in range(MAX_CONNECTIONS)]
    with pytest.raises(ConflictError, match="64 programs inhibit already"):
        await asyncio.to_thread(hold, serving.path, "late", "")
    connections.pop().close()
    await until(lambda: len(serving.door.held()) < MAX_CONNECTIONS)
    connections.append(await asyncio.to_thread(hold, serving.path, "late", ""))
    for connection in connections:
        connection.close()
    await _gone(serving)


async def test_who_may_come(serving: Serving) -> None:
    """The agent's user and its group."""
    assert stat.S_IMODE(serving.path.stat().st_mode) == 0o660


async def test_the_agent_ends_at_once(serving: Serving) -> None:
    """Whoever holds a connection does not keep it; the socket is gone, and who asks is told to start an agent."""
    connection = await asyncio.to_thread(hold, serving.path, "player", "")
    async with asyncio.timeout(2):
        await serving.stop()
        assert await asyncio.to_thread(connection.recv, 1) == b""
    connection.close()
    with pytest.raises(UnreachableError, match="flagship-device run"):
        hold(serving.path, "player", "")


@contextmanager
def _while(home: DeviceHome, *program: str) -> Iterator[subprocess.Popen[bytes]]:
    words = ["inhibit", "--home", str(home.path), "--why", "a film", "--while", "--", *program]
    with subprocess.Popen([sys.executable, "-m", "device_client.cli", *words], start_new_session=True) as command:
        try:
            yield command
        finally:
            with suppress(ProcessLookupError):
                os.killpg(command.pid, signal.SIGKILL)


async def _comes(serving: Serving) -> None:
    async with asyncio.timeout(60):  # a command needs seconds to begin where others need the processor too
        while not serving.door.held():
            await asyncio.sleep(0.01)


async def test_while_a_program_runs(serving: Serving, home: DeviceHome, tmp_path: Path) -> None:
    """Its name is who; also over a restart of the agent; it ends with the program, whose code is the command's."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with _while(home, "/bin/sh", "-c", f"read word < {fifo}; exit $word") as command:
        await _comes(serving)
        assert serving.door.held() == [Inhibitor(who="sh", why=f"a film (user {ME})")]
        await serving.stop()
        again = Serving(home.inhibit_socket)
        await _comes(again)
        await asyncio.to_thread(fifo.write_text, "7\n")
        await _gone(again)
        assert await asyncio.to_thread(command.wait, 10) == 7
        await again.stop()


@pytest.mark.slow
async def test_while_is_ended(serving: Serving, home: DeviceHome) -> None:
    """A signal goes to the program, and its end is told as a shell tells it."""
    with _while(home, "sleep", "60") as command:
        await _comes(serving)
        command.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(command.wait, 10) == 128 + signal.SIGTERM
    await _gone(serving)


def test_while_no_agent_runs(home: DeviceHome, capsys: pytest.CaptureFixture[str]) -> None:
    """The program runs all the same, and a line says what is missing."""
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as ended:
        main(["inhibit", "--home", str(home.path), "--while", "--", "/bin/sh", "-c", "exit 3"])
    assert ended.value.code == 3
    assert "not inhibited yet: no agent answers" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["a", "b"],
        ["a", "--who", "b"],
        ["--while", "--"],
        ["--release", "--while", "true"],
        ["--who", "a/b", "--while", "true"],
    ],
    ids=["nobody", "two", "twice", "no program", "release", "bad who"],
)
def test_words_that_do_not_fit(home: DeviceHome, words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """One sentence, and nothing is run."""
    assert main(["inhibit", "--home", str(home.path), *words]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_program_that_is_not_there(home: DeviceHome, capsys: pytest.CaptureFixture[str]) -> None:
    """As a shell says it."""
    with pytest.raises(SystemExit) as ended:
        main(["inhibit", "--home", str(home.path), "--while", "--", "/nowhere/program"])
    assert ended.value.code == 127
    assert "/nowhere/program: No such file" in capsys.readouterr().err
