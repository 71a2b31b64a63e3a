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
from dataclasses import dataclass, replace

import h11

from device_client import network
from device_client.download.https_answer import Answer, announced_bytes, answer_of, header
from device_client.download.https_handshake import begin_tls
from protocol.chunks import MAX_CIPHERTEXT_BYTES
from protocol.errors import FlagshipError

USER_AGENT = "flagship-device"
"""Says nothing of which device it is."""
MAX_ADDRESSES = 4
"""Of one host name, each tried once."""
_READ_BYTES = 2**18


class LineLostError(FlagshipError):
    """A mirror is not reached, went away in the middle, or does not speak HTTP.

    Attributes:
        begun: Some of the answer that was waited for had come.
        too_slow: It took longer than an answer may.
        line: The connection that it was asked on.
    """

    line: "Line | None" = None

    def __init__(self, why: str, *, begun: bool = False, too_slow: bool = False) -> None:
        super().__init__(why)
        self.begun = begun
        self.too_slow = too_slow


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a server listens."""

    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == 443 else f"{host}:{self.port}"


@dataclass(slots=True)
class _Asked:
    exchange: h11.Connection
    at: float
    answer: "asyncio.Future[Answer]"


class Line:
    """One connection, of a mirror and of whoever asks. Made by ``connect``.

    Attributes:
        answered: Requests so far that were answered whole.
        deepest: The most requests that were on their way at once.
        is_excused: Its end is no failure of the mirror.
    """

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        origin: Origin,
        request_timeout_s: float,
        heard: Callable[[int], None],
    ) -> None:
        """Take over a connection; ``heard`` is told of all bytes that come."""
        self.origin = origin
        self.answered = self.deepest = 0
        self.is_excused = False
        self._reader = reader
        self._writer = writer
        self._request_timeout_s = request_timeout_s
        self._heard = heard
        self._asked: deque[_Asked] = deque()
        self._left = b""
        self._is_over = False
        self._begun_at: float | None = None
        self._reading: asyncio.Task[None] | None = None
        self._rests = asyncio.Event()

    @property
    def may_ask(self) -> bool:
        """Whether another request may go out."""
        return not (self._is_over or self._writer.is_closing() or self._reader.at_eof())

    @property
    def waiting(self) -> int:
        """Requests that have no answer yet."""
        return len(self._asked)

    async def ask(self, path: str) -> Answer:
        """Send a GET and wait for its answer, which comes after those of the requests before it.

        Who is cancelled ends the connection: the answer would have to be read for nobody.

        Raises:
            LineLostError: The connection ended before the answer was whole, or what came is no HTTP.
        """
        exchange = h11.Connection(h11.CLIENT)
        headers = [("Host", str(self.origin)), ("User-Agent", USER_AGENT), ("Accept-Encoding", "identity")]
        try:
            request = exchange.send(h11.Request(method="GET", target=path, headers=headers)) or b""
        except h11.LocalProtocolError as error:
            raise LineLostError(f"{self.origin}: a path that no request can carry", begun=True) from error
        self._writer.write(request + (exchange.send(h11.EndOfMessage()) or b""))
        loop = asyncio.get_running_loop()
        asked = _Asked(exchange, loop.time(), loop.create_future())
        self._asked.append(asked)
        self._rests.clear()
        self.deepest = max(self.deepest, len(self._asked))
        if self._reading is None:
            self._reading = asyncio.ensure_future(self._read_all())
        try:
            return await asked.answer
        except asyncio.CancelledError:
            self.is_excused |= not self._is_over
            self.close()
            raise

    async def rests(self) -> None:
        """Wait until everything that was asked for is answered, or it is over."""
        if self._asked:
            await self._rests.wait()

    def close(self) -> None:
        """End it at once; what was asked for is not answered."""
        self._end(LineLostError(f"{self.origin}: it was closed here"))
        if self._reading:
            self._reading.cancel()

    async def _read_all(self) -> None:
        """Hand out answers while there are requests; the next request begins it anew."""
        now = asyncio.get_running_loop().time
        try:
            while self._asked and not self._is_over:
                self._begun_at = now() if self._left else None
                async with asyncio.timeout(self._request_timeout_s):
                    answer = await self._read(self._asked[0].exchange)
                asked = self._asked.popleft()
                self.answered += 1
                if not asked.answer.done():
                    delay_s = (self._begun_at or now()) - asked.at
                    asked.answer.set_result(replace(answer, delay_s=delay_s))
            if self._is_over or self._left:  # it said that it closes, or it sends what nobody asked for
                self._end(LineLostError(f"{self.origin}: it closed the connection"))
        except TimeoutError:
            self._end(LineLostError(f"{self.origin}: a chunk took too long", begun=True, too_slow=True))
        except LineLostError as error:
            self._end(LineLostError(str(error), begun=self._begun_at is not None))
        except (OSError, h11.RemoteProtocolError) as error:
            self._end(LineLostError(f"{self.origin}: {_why(error)}", begun=self._begun_at is not None))
        finally:
            self._reading = None
            self._rests.set()

    def _end(self, why: LineLostError) -> None:
        self._is_over = True
        self._writer.transport.abort()
        self._rests.set()
        asked, self._asked = self._asked, deque()
        for number, one in enumerate(asked):
            if not one.answer.done():
                one.answer.set_exception(why if number == 0 else LineLostError(str(why)))

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
                    self._begun_at = self._begun_at or asyncio.get_running_loop().time()
                    self._heard(len(data))
                exchange.receive_data(data)  # empty: the end, which h11 judges
            elif isinstance(event, h11.Response):
                head = event
                if announced_bytes(head) > MAX_CIPHERTEXT_BYTES:
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
        self._is_over |= exchange.their_state is not h11.DONE
        assert head is not None
        plain = header(head, b"content-encoding").lower() in {"", "identity"}
        return answer_of(head, b"".join(blocks) if head.status_code == 200 and plain else b"")

    def _too_large(self, head: h11.Response | None) -> Answer:
        """Nothing more is read of it, so nothing more can come on this connection."""
        self._is_over = True
        assert head is not None
        return answer_of(head, b"")


async def connect(
    origin: Origin,
    context: ssl.SSLContext,
    interface: str,
    timeout_s: float,
    request_timeout_s: float,
    heard: Callable[[int], None],
) -> Line:
    """Connect over TLS.

    Args:
        interface: The only one to go by; empty: as the system routes.
        timeout_s: The longest that each step may take: the name, and each address.
        request_timeout_s: The longest that one answer may take, from when it is its turn.

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
        try:
            sock = socket.socket(family, kind, protocol)
        except OSError as error:  # such as IPv6 on a kernel that has none
            failure = _why(error)
            continue
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if interface:
                network.tie(sock, interface)
            async with asyncio.timeout(timeout_s):
                await loop.sock_connect(sock, address)
        except (OSError, TimeoutError) as error:
            sock.close()
            failure = _why(error)
            continue
        except BaseException:
            sock.close()
            raise
        try:
            async with asyncio.timeout(timeout_s):
                reader, writer = await begin_tls(sock, context, origin.host, _READ_BYTES, timeout_s)
            return Line(reader, writer, origin, request_timeout_s, heard)
        except (OSError, TimeoutError) as error:
            failure = _why(error)
    raise LineLostError(f"{origin}: {failure}")


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
