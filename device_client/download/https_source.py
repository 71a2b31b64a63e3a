"""Chunks from a mirror: ``GET {url}/chunks/{cid}`` over HTTPS, on a few connections that are kept and kept busy.

A mirror is as untrusted as a broker: whatever it answers costs a bounded number of bytes and of seconds. One that is
not reached, or says that it is too busy, is left alone for a while; a chunk that it does not have is lost, no more.
"""

import asyncio
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from urllib.parse import urlsplit

import structlog

from device_client import network
from device_client.download.https_line import Answer, Line, LineLostError, Origin, connect
from device_client.download.https_window import Ask, HttpsWindow, redirected
from device_client.download.sources import Collected
from protocol.clock import Clock
from protocol.errors import FlagshipError
from protocol.mqtt.connection import backoff

log = structlog.get_logger(__name__)

CONNECTIONS = 2
"""Of one window to one server: one that loses a packet does not hold up everything."""
DEPTH = 32
"""Requests that are on their way at once on one connection."""
LOOK_AGAIN_S = 2.0
_REDIRECTS, _NOT_THERE, _BUSY = frozenset({301, 302, 303, 307, 308}), frozenset({404, 410}), frozenset({429, 503})


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


class HttpsSource:
    """One mirror."""

    def __init__(
        self,
        url: str,
        make_context: Callable[[bool], ssl.SSLContext],
        settings: HttpsSettings,
        clock: Clock,
        random: Random,
    ) -> None:
        """Make it; nothing is connected yet.

        Args:
            url: Base address, ``protocol.enrolment.HttpsUrl``.
            make_context: TLS for the mirror itself (True) or for where it redirects to. Blocking.
        """
        parts = urlsplit(url)
        self._url = url
        self._origin = Origin(parts.hostname or "", parts.port or 443)
        self._prefix = f"{parts.path}/chunks/"
        self._make_context = make_context
        self._contexts: dict[bool, ssl.SSLContext] = {}
        self._settings = settings
        self._clock = clock
        self._random = random
        self._idle: list[Line] = []
        self._pipelines = True
        self._failures = 0
        self._not_before = 0.0
        self._why = ""
        self._heard_at = 0.0
        self.received_bytes = 0

    @property
    def name(self) -> str:
        """The address."""
        return self._url

    @property
    def is_ready(self) -> bool:
        """Whether it may be asked now."""
        return not self._absent_interface() and self._clock.monotonic() >= self._not_before

    @property
    def trouble(self) -> str:
        """Why it is not ready, or what went wrong with it last; empty after a chunk came."""
        return self._absent_interface() or self._why

    async def ready(self) -> None:
        """Wait until it may be asked."""
        while True:
            if self.is_ready:
                return
            left = self._not_before - self._clock.monotonic()
            await asyncio.sleep(min(LOOK_AGAIN_S, left) if left > 0 else LOOK_AGAIN_S)

    async def collect(self, cids: Sequence[str], silence_s: float) -> Collected:
        """Ask for the chunks; see ``ChunkSource.collect``."""
        if not self.is_ready:
            return Collected({}, gone=True)
        asks = [Ask(cid, self._origin, self._prefix + cid) for cid in cids]
        window = HttpsWindow(asks, self._serve, CONNECTIONS)
        began = self._clock.monotonic()
        try:
            window.begin(self._origin)
            while window.is_at_work:
                left = max(began, self._heard_at) + silence_s - self._clock.monotonic()
                if left <= 0:
                    break
                await window.wait(left)
            if window.is_at_work and self._heard_at < began:
                self._failed(f"{self._origin}: no answer in time")
                window.stop()
        finally:
            await window.end()
        return Collected(window.arrived, gone=window.is_stopped and len(window.arrived) < len(cids))

    async def release(self) -> None:
        """Close what is open; CA files may be others when it is asked again."""
        idle, self._idle, self._pipelines = self._idle, [], True
        for line in idle:
            line.close()
        self._contexts.clear()
        await asyncio.sleep(0)  # so that the sockets are closed when this returns

    async def _serve(self, window: HttpsWindow, origin: Origin) -> None:
        """One worker of a window: asks for what is left, over one connection after the other."""
        while window.has(origin) and not window.is_stopped:
            line: Line | None = None
            try:
                line = self._take_idle(origin) or await self._connect(origin)
                await self._converse(line, window)
            except FlagshipError as error:
                if line is not None and line.answered:
                    continue
                if line is not None and self._pipelines:
                    self._pipelines = False  # it may not stand several requests at once
                    continue
                self._failed(str(error))
                window.stop()

    async def _converse(self, line: Line, window: HttpsWindow) -> None:
        asked: list[Ask] = []
        depth, is_new = min(DEPTH, window.share) if self._pipelines else 1, line.answered == 0
        try:
            while not window.is_stopped:
                while line.may_ask and len(asked) < depth and (ask := window.take(line.origin)):
                    asked.append(ask)
                    line.ask(ask.path)
                if not asked or line.is_over:
                    break
                answer = await self._answer(line, asked, window)
                self._settle(window, asked.pop(0), answer)
        finally:
            if asked and is_new and line.answered == 1:
                self._pipelines = False  # a server that ends each connection after one answer
            window.give_back(asked)
            if not asked and line.may_rest:
                self._idle.append(line)
            else:
                line.close()

    async def _answer(self, line: Line, asked: list[Ask], window: HttpsWindow) -> Answer:
        try:
            async with asyncio.timeout(self._settings.request_timeout_s):
                return await line.answer()
        except TimeoutError as error:  # it drips: that chunk is lost, the others are asked for anew
            window.lost(asked.pop(0))
            raise LineLostError(f"{line.origin}: a chunk took too long") from error
        except LineLostError:
            if line.answered and line.broke_off and window.is_second_try(asked[0]):
                window.lost(asked.pop(0))
            raise

    def _settle(self, window: HttpsWindow, ask: Ask, answer: Answer) -> None:
        if answer.status == 200 and answer.body:
            self._failures, self._why = 0, ""
            window.came(ask, answer.body)
        elif answer.status in _REDIRECTS:
            onward = redirected(ask, answer.location, elsewhere=self._settings.elsewhere)
            if onward is None:
                self._why = f"{ask.origin}: it redirects where this device may not follow"
            window.replace(ask, onward)
        elif answer.status in _BUSY:
            self._busy(ask.origin, answer)
            window.stop()
        else:
            if answer.status not in _NOT_THERE:
                self._why = f"{ask.origin}: it answered {answer.status}, expected a chunk"
            log.debug("chunk not had", source=self.name, status=answer.status, cid=ask.cid[:16])
            window.lost(ask)

    async def _connect(self, origin: Origin) -> Line:
        own = origin == self._origin
        if own not in self._contexts:
            self._contexts[own] = await asyncio.to_thread(self._make_context, own)
        settings = self._settings
        return await connect(origin, self._contexts[own], settings.interface, settings.connect_timeout_s, self._heard)

    def _take_idle(self, origin: Origin) -> Line | None:
        for line in reversed(self._idle):
            if line.origin == origin:
                self._idle.remove(line)
                if line.may_rest:
                    return line
                line.close()
        return None

    def _heard(self, size_bytes: int) -> None:
        self._heard_at = self._clock.monotonic()
        self.received_bytes += size_bytes

    def _failed(self, why: str) -> None:
        base, cap = self._settings.retry_base_s, self._settings.retry_cap_s
        self._rest(why, backoff(self._failures, self._random, base, cap))

    def _busy(self, origin: Origin, answer: Answer) -> None:
        asked = answer.retry_after.strip()
        pause_s = float(asked) if asked.isascii() and asked.isdigit() and len(asked) < 8 else 0.0
        least_s = backoff(self._failures, self._random, self._settings.retry_base_s, self._settings.retry_cap_s)
        pause_s = max(least_s, min(pause_s, self._settings.retry_after_cap_s))
        self._rest(f"{origin}: it answered {answer.status}, too busy", pause_s)

    def _rest(self, why: str, pause_s: float) -> None:
        """Leave it alone for a while; two windows that fail together count once each, which does no harm."""
        if why != self._why:
            log.info("mirror left alone", source=self.name, why=why, pause_s=round(pause_s, 1))
        self._why = why
        self._failures += 1
        self._not_before = self._clock.monotonic() + pause_s
        self._contexts.clear()

    def _absent_interface(self) -> str:
        interface = self._settings.interface
        return f"interface {interface}: not there" if interface and not network.exists(interface) else ""
