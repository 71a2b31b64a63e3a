"""The connections to one mirror and to where it redirects to: few, kept, shared by all who ask.

Requests of two windows share them on purpose: each is answered in the order of asking, so one window comes after the
other and the link is never idle between them. On connections of their own they would share the link, end together, and
leave it idle for a round trip.
"""

import asyncio
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field

import structlog

from device_client.download.https_answer import Answer
from device_client.download.https_line import Line, LineLostError, Origin, connect
from protocol.errors import FlagshipError

log = structlog.get_logger(__name__)

CONNECTIONS = 2
"""To one server: one that loses a packet does not hold up everything."""
MAX_STRIKES = 2
"""As many connections that ended with several requests on them after at most one answer: it stands one at a time."""
GOOD_ANSWERS = 4
"""A connection that gave as many shows that it stands several."""
MAX_ORIGINS = 4
"""Servers that a mirror may send a device to, itself included."""


@dataclass(frozen=True, slots=True)
class HttpsSettings:
    """Bounds of one mirror.

    Attributes:
        interface: The only one to go by; empty: as the system routes.
        elsewhere: Whether it may redirect to other hosts.
        request_timeout_s: The longest that one chunk may take, from when it is its turn.
        retry_base_s, retry_cap_s: How long a mirror that failed is left alone.
        retry_after_cap_s: The most that it may ask for itself.
    """

    interface: str = ""
    elsewhere: bool = False
    connect_timeout_s: float = 10.0
    request_timeout_s: float = 120.0
    retry_base_s: float = 1.0
    retry_cap_s: float = 60.0
    retry_after_cap_s: float = 600.0


@dataclass(slots=True)
class _Server:
    """One origin; ``turn`` is held by who looks for a connection, so that the others need not make one each."""

    lines: list[Line] = field(default_factory=list)
    growing: "asyncio.Future[None] | None" = None
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)


class Lines:
    """Connections by origin."""

    def __init__(
        self,
        own: Origin,
        make_context: Callable[[bool], ssl.SSLContext],
        settings: HttpsSettings,
        heard: Callable[[int], None],
        is_left_alone: Callable[[], bool],
    ) -> None:
        """Nothing is connected yet; see ``HttpsSource``. No one is asked while ``is_left_alone``."""
        self._own = own
        self._make_context = make_context
        self._contexts: dict[bool, ssl.SSLContext] = {}
        self._settings = settings
        self._heard = heard
        self._is_left_alone = is_left_alone
        self._servers: dict[Origin, _Server] = {own: _Server()}
        self._pipelines = True
        self._strikes = 0

    def knows(self, origin: Origin) -> bool:
        """Whether a server may be asked: one that was asked before, or one of a few more."""
        if origin not in self._servers and len(self._servers) < MAX_ORIGINS:
            self._servers[origin] = _Server()
        return origin in self._servers

    async def ask(self, origin: Origin, path: str) -> Answer:
        """Ask over the connection that is least busy.

        Raises:
            LineLostError: It is not reached, or went away; ``may_try_again`` tells what that means.
            TlsFilesError: A file for TLS is missing or damaged.
        """
        line = await self._line(origin)
        try:
            answer = await line.ask(path)
            if line.answered >= GOOD_ANSWERS:
                self._strikes = 0
            return answer
        except LineLostError as error:
            error.line = line
            raise

    def may_try_again(self, error: LineLostError) -> bool:
        """Whether a lost connection is no failure: it had given answers, or may not stand several requests at once."""
        line = error.line
        if line is None:
            return False
        if line.answered <= 1 and line.deepest > 1 and not line.is_excused:
            self._strikes += 1
            self._pipelines = self._strikes < MAX_STRIKES
            line.is_excused = True  # those who asked behind are told the same a moment later
        return line.answered > 0 or line.is_excused

    async def close(self) -> None:
        """End every connection and forget what was learned."""
        servers, self._servers = self._servers, {self._own: _Server()}
        self._contexts.clear()
        self._pipelines, self._strikes = True, 0
        growing = [server.growing for server in servers.values() if server.growing]
        for one in growing:
            one.cancel()
        await asyncio.gather(*growing, return_exceptions=True)
        for line in (line for server in servers.values() for line in server.lines):
            line.close()

    async def _line(self, origin: Origin) -> Line:
        """One that is free, or the least busy one while another is made. Who comes first asks first."""
        server = self._servers[origin]
        async with server.turn:
            while True:
                if self._is_left_alone():
                    raise LineLostError(f"{origin}: is left alone")
                _drop_ended(server)
                if not server.lines:
                    made = await self._connect(origin)
                    server.lines.append(made)
                idlest = min(server.lines, key=lambda line: line.waiting)
                if idlest.waiting and len(server.lines) < CONNECTIONS and server.growing is None:
                    server.growing = asyncio.ensure_future(self._grow(server, origin))
                if self._pipelines or not idlest.waiting:
                    return idlest
                await idlest.rests()

    async def _grow(self, server: _Server, origin: Origin) -> None:
        """Make one more. Where that fails, those that are there go on; it is not tried again before ``close``."""
        try:
            made = await self._connect(origin)
        except FlagshipError as error:
            log.debug("no second connection", why=str(error))
        else:
            server.lines.append(made)  # of the list as it is now: who looked for a line meanwhile made a new one
            server.growing = None

    async def _connect(self, origin: Origin) -> Line:
        own, settings = origin == self._own, self._settings
        if own not in self._contexts:
            self._contexts[own] = await asyncio.to_thread(self._make_context, own)
        try:
            return await connect(
                origin,
                self._contexts[own],
                settings.interface,
                settings.connect_timeout_s,
                settings.request_timeout_s,
                self._heard,
            )
        except LineLostError:
            self._contexts.clear()
            raise


def _drop_ended(server: _Server) -> None:
    """Forget the connections that the server ended; those that still have an answer to give end by themselves."""
    ended = [line for line in server.lines if not line.may_ask]
    server.lines = [line for line in server.lines if line.may_ask]
    for line in ended:
        if not line.waiting:
            line.close()
