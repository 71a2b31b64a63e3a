"""The door for programs that use the device: a Unix socket whose inhibitor lives as long as the connection.

    {"who": "player", "why": "a film is running"}      in, one line
    {"ok": true}                                       out; from then until the connection closes it inhibits

It cannot be forgotten: when the program ends, however it ends, the kernel closes its connection. The socket says which
user connected (SO_PEERCRED), and the reason names them. A program on a device that is not up is not bound to this: see
the files of ``gates/in_use.py``.
"""

import asyncio
import json
import socket
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import structlog
from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError

from device_client.errors import ConflictError, UnreachableError
from device_client.gates.in_use import Inhibitor
from device_client.local_socket import listen, who_asks
from device_client.programs import clean
from protocol.identifiers import IdText

log = structlog.get_logger(__name__)

MAX_CONNECTIONS = 64
MAX_LINE_BYTES = 4096
TIMEOUT_S = 10.0
"""How long a program may take to say who it is."""


class Wish(BaseModel):
    """What a program says when it comes."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    who: IdText
    why: Annotated[str, StringConstraints(max_length=200)] = ""


class InhibitDoor:
    """One device's."""

    def __init__(self) -> None:
        self._held: dict[asyncio.StreamWriter, Inhibitor] = {}
        self._connections = 0

    def held(self) -> Sequence[Inhibitor]:
        """Who inhibits now, in the order in which they came."""
        return list(self._held.values())

    async def serve(self, path: Path) -> None:
        """Take programs in until cancelled; members of the agent's group may come too.

        Raises:
            ConflictError: Another agent answers there.
        """
        await listen(path, self._receive, limit=MAX_LINE_BYTES, mode=0o660)

    async def _receive(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections += 1
        try:
            async with asyncio.timeout(TIMEOUT_S):
                inhibitor = await self._admit(reader, writer)
            if inhibitor is not None:
                await self._until_closed(reader, writer, inhibitor)
        except (TimeoutError, OSError, ValueError) as error:  # ValueError: the line is too long
            log.info("inhibitor dropped", why=str(error)[:200])
        finally:
            self._connections -= 1
            writer.close()

    async def _admit(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Inhibitor | None:
        """Who it is; None for one that goes away without a word, or must not come in."""
        if self._connections > 2 * MAX_CONNECTIONS:  # who floods the door is told nothing
            return None
        if not (line := await reader.readline()):
            return None
        if self._connections > MAX_CONNECTIONS:  # after its line: closed before that, it would not read why
            await _say(writer, {"error": f"{MAX_CONNECTIONS} programs inhibit already; end one of them"})
            return None
        try:
            wish = Wish.model_validate_json(line)
        except ValidationError:
            await _say(writer, {"error": 'expected one line of JSON: {"who": an id, "why": up to 200 characters}'})
            return None
        user = who_asks(writer)
        why = clean(wish.why.encode()).replace("\n", " ")
        return Inhibitor(who=wish.who, why=f"{why} (user {user})" if why else f"user {user}")

    async def _until_closed(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, inhibitor: Inhibitor
    ) -> None:
        self._held[writer] = inhibitor
        log.info("inhibited", who=inhibitor.who, why=inhibitor.why)
        try:
            await _say(writer, {"ok": True})
            while await reader.read(MAX_LINE_BYTES):
                pass  # nothing more is asked for
        finally:
            del self._held[writer]
            log.info("inhibitor ended", who=inhibitor.who)


def hold(path: Path, who: str, why: str) -> socket.socket:
    """Inhibit until the socket that is returned is closed. Blocking, for programs.

    Raises:
        UnreachableError: No agent runs on this home.
        ConflictError: It refused; its sentence.
    """
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.settimeout(TIMEOUT_S)
        connection.connect(str(path))
        connection.sendall(json.dumps({"who": who, "why": why}).encode() + b"\n")
        with connection.makefile("rb") as answer:
            data = json.loads(answer.readline(MAX_LINE_BYTES))
    except (OSError, ValueError) as error:
        connection.close()
        raise UnreachableError(f"no agent answers on {path}: start it with 'flagship-device run'") from error
    if not data.get("ok"):
        connection.close()
        raise ConflictError(f"{who}: {data.get('error', 'refused')}")
    connection.settimeout(None)
    return connection


async def _say(writer: asyncio.StreamWriter, answer: dict[str, object]) -> None:
    writer.write(json.dumps(answer).encode() + b"\n")
    with suppress(ConnectionError):
        await writer.drain()
