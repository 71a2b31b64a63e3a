"""The agent's own door: one JSON line in, one out; who asks is known from the socket."""

import asyncio
import os
import pwd
import socket
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from device_client.errors import ConflictError, NotFoundError, UnreachableError, UsageError
from device_client.local_socket import MAX_LINE_BYTES, request, serve


async def echo(verb: str, arguments: dict[str, Any], who: str) -> dict[str, Any]:
    match verb:
        case "fail":
            raise ConflictError("it is over")
        case "lose":
            raise NotFoundError("there is none")
        case "mumble":
            raise UsageError("expected a number")
    return {"verb": verb, "arguments": arguments, "who": who}


@pytest.fixture
async def path(tmp_path: Path) -> AsyncIterator[Path]:
    place = tmp_path / "agent.sock"
    task = asyncio.create_task(serve(place, echo))
    async with asyncio.timeout(5):
        while not place.is_socket():
            await asyncio.sleep(0.01)
    yield place
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_verb_is_answered_and_its_asker_known(path: Path) -> None:
    """Arguments arrive as they were sent, with the name of the user who asked."""
    answer = await asyncio.to_thread(request, path, "approve", rollout="r-1")
    assert answer == {
        "verb": "approve",
        "arguments": {"rollout": "r-1"},
        "who": pwd.getpwuid(os.getuid()).pw_name,
    }


async def test_only_this_user_may_ask(path: Path) -> None:
    """The socket's mode keeps others out."""
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_a_refusal_is_a_sentence(path: Path) -> None:
    """What the agent refuses is raised with its own words, and ends the command with the code of its kind."""
    for verb, kind, says in (
        ("fail", ConflictError, "it is over"),
        ("lose", NotFoundError, "there is none"),
        ("mumble", UsageError, "expected a number"),
    ):
        with pytest.raises(kind, match=says):
            await asyncio.to_thread(request, path, verb)


@pytest.mark.parametrize("line", [b"\n", b"{}\n", b"[]\n", b"1\n", b"\xff\n", b"{" * 5000 + b"\n"])
async def test_a_malformed_line_is_answered_with_what_was_expected(path: Path, line: bytes) -> None:
    """Nothing that is written to the door ends the agent."""

    def ask() -> bytes:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(5)
            connection.connect(str(path))
            connection.sendall(line)
            return connection.recv(4096)

    assert b"error" in await asyncio.to_thread(ask)
    assert (await asyncio.to_thread(request, path, "status"))["verb"] == "status"


async def test_a_line_without_end_is_dropped(path: Path) -> None:
    """More than the limit is not kept in memory."""

    def ask() -> bytes:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(5)
            connection.connect(str(path))
            try:
                connection.sendall(b"x" * (4 * MAX_LINE_BYTES))
                return connection.recv(4096)
            except (BrokenPipeError, ConnectionResetError):
                return b""

    assert await asyncio.to_thread(ask) == b""


async def test_a_second_agent_on_one_home_is_refused(path: Path) -> None:
    """The first one stays; the second is told so."""
    with pytest.raises(ConflictError, match="another agent runs"):
        await serve(path, echo)


async def test_a_socket_left_behind_is_replaced(tmp_path: Path) -> None:
    """A killed agent leaves its socket; the next one takes its place."""
    place = tmp_path / "agent.sock"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(place))
    task = asyncio.create_task(serve(place, echo))
    try:
        async with asyncio.timeout(5):
            while True:
                try:
                    answer = await asyncio.to_thread(request, place, "status")
                    break
                except UnreachableError:
                    await asyncio.sleep(0.01)
        assert answer["verb"] == "status"
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def test_no_agent_is_one_sentence(tmp_path: Path) -> None:
    """Exit code 9 and what to do."""
    with pytest.raises(UnreachableError, match="flagship-device run") as raised:
        request(tmp_path / "run" / "agent.sock", "status")
    assert raised.value.exit_code == 9


async def test_a_home_with_too_long_a_path_is_refused(tmp_path: Path) -> None:
    """A socket's path has a limit of the kernel's."""
    with pytest.raises(UsageError, match="too long for a socket"):
        await serve(tmp_path / ("x" * 120) / "agent.sock", echo)
