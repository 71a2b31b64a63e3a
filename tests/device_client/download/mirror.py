"""A web server over TLS that has chunks, and does to each request what a test tells it to."""

import asyncio
import contextlib
import hashlib
import os
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from device_client.download.https_lines import HttpsSettings
from device_client.download.https_source import HttpsSource
from protocol.clock import SystemClock
from protocol.mqtt.tls import mirror_context
from tests.certificates import Authority

Trick = Callable[[asyncio.StreamWriter], Awaitable[None]]
"""Answers one request by hand."""
QUICK = HttpsSettings(connect_timeout_s=2, request_timeout_s=2, retry_base_s=0.05, retry_cap_s=0.2)


def some_chunks(count: int, size: int = 1000) -> dict[str, bytes]:
    """Random bytes under their hashes."""
    made = [os.urandom(size) for _ in range(count)]
    return {hashlib.sha256(data).hexdigest(): data for data in made}


def response(status: str, body: bytes = b"", *headers: str) -> bytes:
    """A whole answer."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


@dataclass
class Mirror:
    """One server; ``tricks`` by path stand before ``chunks``.

    Attributes:
        per_connection: Answers after which a connection is closed without a word; 0: never.
        one_at_a_time: A request behind another one makes it hang up.
    """

    chunks: dict[str, bytes] = field(default_factory=dict)
    tricks: dict[str, Trick] = field(default_factory=dict)
    per_connection: int = 0
    one_at_a_time: bool = False
    asked: list[str] = field(default_factory=list)
    heads: list[bytes] = field(default_factory=list)
    connections: int = 0
    at_once: int = 0
    port: int = 0
    writers: list[asyncio.StreamWriter] = field(default_factory=list)
    client_names: set[str] = field(default_factory=set)

    @property
    def url(self) -> str:
        """Its base address."""
        return f"https://127.0.0.1:{self.port}/ota"

    def trick(self, cid: str, status: str, body: bytes = b"", *headers: str) -> None:
        """Answer one chunk like this."""

        async def answer(writer: asyncio.StreamWriter) -> None:
            writer.write(response(status, body, *headers))
            await writer.drain()

        self.tricks[f"/ota/chunks/{cid}"] = answer

    def hang_up(self) -> None:
        """End every connection."""
        for writer in self.writers:
            with contextlib.suppress(AttributeError):  # of Python 3.11.2, where it was closed already
                writer.transport.abort()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        self.connections += 1
        if certificate := writer.get_extra_info("peercert"):
            self.client_names.add(str(certificate["subject"]))
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            try:
                await self._answer_all(reader, writer)
            finally:
                writer.transport.abort()

    async def _answer_all(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answered = 0
        while answered != self.per_connection or not answered:
            head = await reader.readuntil(b"\r\n\r\n")
            self.at_once = max(self.at_once, 1 + bytes(reader._buffer).count(b"\r\n\r\n"))  # type: ignore[attr-defined]
            if self.one_at_a_time:
                await asyncio.sleep(0.01)  # time for another one to come
                if reader._buffer:  # type: ignore[attr-defined]
                    return
            path = head.split(b" ", 2)[1].decode()
            self.asked.append(path)
            self.heads.append(head)
            if path in self.tricks:
                await self.tricks[path](writer)
            elif path.startswith("/ota/chunks/") and (cid := path.rpartition("/")[2]) in self.chunks:
                writer.write(response("200 OK", self.chunks[cid]))
            else:
                writer.write(response("404 Not Found", b"no such chunk"))
            await writer.drain()
            answered += 1


@contextlib.asynccontextmanager
async def serving(
    mirror: Mirror, authority: Authority, place: Path, *, ask_client: bool = False
) -> AsyncIterator[Mirror]:
    """The server on a free port, with a certificate of ``authority``."""
    certificate, key = place / f"server-{id(mirror)}.pem", place / f"server-{id(mirror)}.key"
    authority.issue(certificate, key, "mirror")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(authority.path))
    context.load_cert_chain(certificate, key)
    context.verify_mode = ssl.CERT_OPTIONAL if ask_client else ssl.CERT_NONE
    tasks: set[asyncio.Task[None]] = set()

    def begin(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        mirror.writers.append(writer)
        tasks.add(asyncio.create_task(mirror.serve(reader, writer)))

    server = await asyncio.start_server(begin, "127.0.0.1", 0, ssl=context)
    mirror.port = server.sockets[0].getsockname()[1]
    try:
        yield mirror
    finally:
        server.close()
        mirror.hang_up()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        async with asyncio.timeout(5):
            while _open_at(server):  # those in the middle of a handshake are nobody's yet
                await asyncio.sleep(0.005)


def _open_at(server: asyncio.Server) -> int:
    """How many connections are open, before Python 3.12 and since."""
    return getattr(server, "_active_count", 0) or len(getattr(server, "_clients", ()))


def source_of(url: str, ca: Path, settings: HttpsSettings = QUICK) -> HttpsSource:
    """A source that trusts ``ca`` everywhere."""
    return HttpsSource(url, lambda _own: mirror_context(ca), settings, SystemClock(), Random(1))
