"""The agent's own door: a Unix socket, one JSON line in, one JSON line out. For people and programs on the device.

Verbs: ``status``, ``approve``, ``defer``, ``decline``, ``update``. Who asks is known from the socket (SO_PEERCRED) and
is kept with the answer. The socket's mode and folder say who may: only this user and root, by default.
"""

import asyncio
import json
import os
import pwd
import socket
import struct
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import structlog

from device_client.errors import ConflictError, DeviceError, NotFoundError, UnreachableError, UsageError

log = structlog.get_logger(__name__)

MAX_LINE_BYTES = 16_384
MAX_ANSWER_BYTES = 1_048_576
TIMEOUT_S = 10.0
MAX_PATH_BYTES = 100
_ERRORS: dict[object, type[DeviceError]] = {kind.exit_code: kind for kind in (UsageError, NotFoundError, ConflictError)}

Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
Handle = Callable[[str, dict[str, Any], str], Awaitable[dict[str, Any]]]
"""(verb, arguments, who asks) -> answer."""


async def serve(path: Path, handle: Handle) -> None:
    """Answer on the socket until cancelled.

    Raises:
        ConflictError: Another agent answers on it.
        UsageError: The path is too long for a socket.
    """
    if len(os.fsencode(path)) > MAX_PATH_BYTES:
        raise UsageError(f"{path}: too long for a socket, at most {MAX_PATH_BYTES} B; use a home with a shorter path")

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(TIMEOUT_S):
                reply = await _reply(reader, writer, handle)
                writer.write(json.dumps(reply).encode() + b"\n")
                await writer.drain()
        except (TimeoutError, OSError, ValueError) as error:
            log.info("local request dropped", why=str(error)[:200])
        finally:
            writer.close()

    await listen(path, answer, limit=MAX_LINE_BYTES, mode=0o600)


async def listen(path: Path, answer: Answer, *, limit: int, mode: int) -> None:
    """Hand each connection to ``answer`` until cancelled; then those that are left are closed.

    Args:
        limit: Longest line, in bytes.
        mode: Of the socket: who may connect.

    Raises:
        ConflictError: Another agent answers on it.
    """
    if path.is_socket() and await _answers(path):
        raise ConflictError(f"{path}: another agent runs on this home; stop it first")
    path.unlink(missing_ok=True)
    here: set[asyncio.StreamWriter] = set()

    async def receive(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        here.add(writer)
        try:
            await answer(reader, writer)
        finally:
            here.discard(writer)

    server = await asyncio.start_unix_server(receive, path, limit=limit)
    try:
        path.chmod(mode)
        await asyncio.Event().wait()
    finally:
        # Not "async with server": later Pythons wait there for connections that others may hold for days.
        server.close()
        for writer in here:
            writer.close()
        path.unlink(missing_ok=True)


def request(path: Path, verb: str, **arguments: object) -> dict[str, Any]:
    """Ask the agent; blocking, for the command line.

    Raises:
        UnreachableError: No agent runs on this home.
        DeviceError: The agent refused; its sentence.
    """
    line = json.dumps({"verb": verb, **arguments}).encode() + b"\n"
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(TIMEOUT_S)
            connection.connect(str(path))
            connection.sendall(line)
            with connection.makefile("rb") as answer:
                data = json.loads(answer.readline(MAX_ANSWER_BYTES))
    except (OSError, ValueError) as error:
        raise UnreachableError(
            f"no agent answers on {path}: start it with 'flagship-device run --config {path.parent.parent}'"
        ) from error
    if "error" in data:
        raise _ERRORS.get(data.get("exit_code"), ConflictError)(str(data["error"]))
    return dict(data)


async def _reply(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, handle: Handle) -> dict[str, Any]:
    line = await reader.readline()
    try:
        data = json.loads(line)
        verb = str(data.pop("verb"))
    except (ValueError, TypeError, AttributeError, KeyError, RecursionError):
        return {"error": 'expected one line of JSON with a "verb"', "exit_code": UsageError.exit_code}
    try:
        return await handle(verb, data, who_asks(writer))
    except DeviceError as error:
        return {"error": str(error), "exit_code": error.exit_code}


def who_asks(writer: asyncio.StreamWriter) -> str:
    """The name of the user on the other end of a Unix socket, by the kernel's word."""
    connection = writer.get_extra_info("socket")
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    _, uid, _ = struct.unpack("3i", credentials)
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"


async def _answers(path: Path) -> bool:
    try:
        async with asyncio.timeout(1.0):
            _, writer = await asyncio.open_unix_connection(path)
    except (OSError, TimeoutError):
        return False
    writer.close()
    return True
