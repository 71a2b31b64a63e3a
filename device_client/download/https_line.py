"""One HTTP/1.1 connection to a mirror: requests go out before earlier ones are answered, answers come in their order.

h11 reads what comes, so that a server's bad framing is an error and never a wrong chunk's bytes. Nothing is read beyond
the size that a chunk can have.
"""

import asyncio
import os
import socket
import ssl
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import h11

from device_client import network
from protocol.chunks import MAX_CIPHERTEXT_BYTES
from protocol.errors import FlagshipError

USER_AGENT = "flagship-device"
"""Says nothing of which device it is."""
MAX_ADDRESSES = 4
"""Of one host name, each tried once."""
_READ_BYTES = 2**18


class LineLostError(FlagshipError):
    """A mirror is not reached, went away in the middle, or does not speak HTTP."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a server listens."""

    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == 443 else f"{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Answer:
    """What came for one request.

    Attributes:
        location, retry_after: Headers, empty where absent.
        body: Of a 200 that is no larger than a chunk can be; else empty.
    """

    status: int
    location: str
    retry_after: str
    body: bytes


class Line:
    """One connection. Made by ``connect``.

    Attributes:
        answered: Requests so far that were answered whole.
        broke_off: Whether some of the answer that is waited for has come.
    """

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        origin: Origin,
        heard: Callable[[int], None],
    ) -> None:
        """Take over a connection; ``heard`` is told of all bytes that come."""
        self.origin = origin
        self.answered = 0
        self.broke_off = False
        self._reader = reader
        self._writer = writer
        self._heard = heard
        self._open: deque[h11.Connection] = deque()
        self._left = b""
        self._is_open = True

    @property
    def is_over(self) -> bool:
        """Whether no further answer comes: the server said so, or it was closed here."""
        return not self._is_open

    @property
    def may_ask(self) -> bool:
        """Whether another request may go out."""
        return self._is_open and not self._writer.is_closing() and not self._reader.at_eof()

    @property
    def may_rest(self) -> bool:
        """Whether it can be kept for later: nothing is on its way that nobody asked for."""
        return self.may_ask and not self._open and not self._left

    def ask(self, path: str) -> None:
        """Send a GET; its answer comes after those of the requests before it.

        Raises:
            LineLostError: The path is none that a request can carry.
        """
        exchange = h11.Connection(h11.CLIENT)
        headers = [("Host", str(self.origin)), ("User-Agent", USER_AGENT), ("Accept-Encoding", "identity")]
        try:
            request = exchange.send(h11.Request(method="GET", target=path, headers=headers)) or b""
        except h11.LocalProtocolError as error:
            raise LineLostError(f"{self.origin}: a path that no request can carry") from error
        self._writer.write(request + (exchange.send(h11.EndOfMessage()) or b""))
        self._open.append(exchange)

    async def answer(self) -> Answer:
        """The answer to the oldest request that has none yet.

        Raises:
            LineLostError: The connection ended before it was whole, or what came is no HTTP.
        """
        exchange, self.broke_off = self._open.popleft(), bool(self._left)
        try:
            answer = await self._read(exchange)
        except (OSError, h11.RemoteProtocolError) as error:
            raise LineLostError(f"{self.origin}: {_why(error)}") from error
        self.answered += 1
        return answer

    def close(self) -> None:
        """End it at once; what was asked for is not answered."""
        self._is_open = False
        self._writer.transport.abort()

    async def _read(self, exchange: h11.Connection) -> Answer:
        if self._left:
            exchange.receive_data(self._left)
            self._left = b""
        head: h11.Response | None = None
        blocks: list[bytes] = []
        size = 0
        while True:
            event = exchange.next_event()
            if event is h11.NEED_DATA:
                data = await self._reader.read(_READ_BYTES)
                if data:
                    self.broke_off = True
                    self._heard(len(data))
                exchange.receive_data(data)  # empty: the end, which h11 judges
            elif isinstance(event, h11.Response):
                head = event
                if _length(head) > MAX_CIPHERTEXT_BYTES:
                    return self._too_large(head)
            elif isinstance(event, h11.Data):
                size += len(event.data)
                if size > MAX_CIPHERTEXT_BYTES:
                    return self._too_large(head)
                blocks.append(bytes(event.data))
            elif isinstance(event, h11.EndOfMessage):
                break
            elif not isinstance(event, h11.InformationalResponse):
                raise LineLostError(f"{self.origin}: it closed the connection")
        self._left = exchange.trailing_data[0]
        self._is_open &= exchange.their_state is h11.DONE
        assert head is not None
        plain = _header(head, b"content-encoding").lower() in {"", "identity"}
        return _answer(head, b"".join(blocks) if head.status_code == 200 and plain else b"")

    def _too_large(self, head: h11.Response | None) -> Answer:
        """Nothing more is read of it, so nothing more can come on this connection."""
        self.close()
        assert head is not None
        return _answer(head, b"")


async def connect(
    origin: Origin, context: ssl.SSLContext, interface: str, timeout_s: float, heard: Callable[[int], None]
) -> Line:
    """Connect over TLS.

    Args:
        interface: The only one to go by; empty: as the system routes.
        timeout_s: The longest that each step may take: the name, and each address.

    Raises:
        LineLostError: None of its addresses answers as it must; says why the last one did not.
    """
    loop, failure = asyncio.get_running_loop(), "has no address"
    try:
        async with asyncio.timeout(timeout_s):
            found = await loop.getaddrinfo(origin.host, origin.port, type=socket.SOCK_STREAM)
    except (OSError, TimeoutError, UnicodeError) as error:
        raise LineLostError(f"{origin}: its name is not found: {_why(error)}") from error
    for family, kind, protocol, _, address in found[:MAX_ADDRESSES]:
        sock = socket.socket(family, kind, protocol)
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if interface:
                network.tie(sock, interface)
            async with asyncio.timeout(timeout_s):
                await loop.sock_connect(sock, address)
                reader, writer = await asyncio.open_connection(
                    sock=sock, ssl=context, server_hostname=origin.host, limit=_READ_BYTES
                )
            return Line(reader, writer, origin, heard)
        except (OSError, TimeoutError) as error:
            sock.close()
            failure = _why(error)
        except BaseException:
            sock.close()
            raise
    raise LineLostError(f"{origin}: {failure}")


def _answer(head: h11.Response, body: bytes) -> Answer:
    return Answer(head.status_code, _header(head, b"location"), _header(head, b"retry-after"), body)


def _header(head: h11.Response, name: bytes) -> str:
    return next((value.decode("latin-1") for key, value in head.headers if key == name), "")


def _length(head: h11.Response) -> int:
    text = _header(head, b"content-length")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else 0


def _why(error: BaseException) -> str:
    match error:
        case TimeoutError():
            return "no answer in time"
        case ssl.SSLCertVerificationError():
            return f"its certificate is not accepted: {error.verify_message}"
        case ssl.SSLError():
            return f"TLS failed: {error.reason or 'unknown'}"
        case OSError():
            return os.strerror(error.errno) if error.errno and error.errno > 0 else str(error) or "it went away"
        case _:
            return f"it does not speak HTTP/1.1 ({type(error).__name__})"
