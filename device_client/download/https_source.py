"""Chunks from a mirror: ``GET {url}/chunks/{cid}`` over HTTPS, on a few connections that are kept and kept busy.

A mirror is as untrusted as a broker: whatever it answers costs a bounded number of bytes and of seconds. One that is
not reached, or says that it is too busy, is left alone for a while; a chunk that it does not have is lost, no more.
"""

import asyncio
import ssl
from collections.abc import Callable, Sequence
from random import Random
from urllib.parse import urlsplit

import structlog

from device_client import network
from device_client.download.https_answer import Answer
from device_client.download.https_line import LineLostError, Origin
from device_client.download.https_lines import HttpsSettings, Lines
from device_client.download.redirects import Ask, redirected
from device_client.download.sources import Collected
from protocol.clock import Clock
from protocol.errors import FlagshipError
from protocol.mqtt.connection import backoff

log = structlog.get_logger(__name__)

LOOK_AGAIN_S = 2.0
_REDIRECTS, _NOT_THERE, _BUSY = frozenset({301, 302, 303, 307, 308}), frozenset({404, 410}), frozenset({429, 503})


class _Window:
    """What came of one window so far, who is at work on it, and whether the mirror is to be left alone."""

    def __init__(self) -> None:
        self.arrived: dict[str, bytes] = {}
        self.at_work: set[asyncio.Future[None]] = set()
        self.delay_s: float | None = None
        self.is_gone = False

    def answered_after(self, delay_s: float) -> None:
        """An answer began so long after it was asked for; the least of them is the link's."""
        self.delay_s = delay_s if self.delay_s is None else min(self.delay_s, delay_s)

    def end(self) -> None:
        """What has not come by now did not come."""
        for one in self.at_work:
            one.cancel()


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
        self._lines = Lines(self._origin, make_context, settings, self._heard, self._is_left_alone)
        self._settings = settings
        self._clock = clock
        self._random = random
        self._failures = 0
        self._not_before = 0.0
        self._why = ""
        self._heard_at = 0.0
        self._windows: set[_Window] = set()
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
        window, began = _Window(), self._clock.monotonic()
        asks = (Ask(cid, self._origin, self._prefix + cid) for cid in cids)
        window.at_work = {asyncio.ensure_future(self._fetch(ask, window)) for ask in asks}
        self._windows.add(window)
        try:
            while window.at_work:
                left = max(began, self._heard_at) + silence_s - self._clock.monotonic()
                if left <= 0:
                    break
                done, window.at_work = await asyncio.wait(window.at_work, timeout=left)
                for one in done:
                    if not one.cancelled():
                        one.result()
            if window.at_work and self._heard_at < began:
                self._failed(f"{self._origin}: no answer in time")
        finally:
            self._windows.discard(window)
            window.end()
            await asyncio.gather(*window.at_work, return_exceptions=True)
        is_gone = window.is_gone and len(window.arrived) < len(cids)
        return Collected(window.arrived, gone=is_gone, delay_s=window.delay_s)

    def interrupt(self) -> None:
        """End every window with what came so far."""
        for window in self._windows:
            window.end()

    async def release(self) -> None:
        """Close what is open; CA files may be others when it is asked again."""
        await self._lines.close()
        await asyncio.sleep(0)  # so that the sockets are closed when this returns

    async def _fetch(self, ask: Ask, window: _Window) -> None:
        """One chunk: asked for until it came, is lost, or the mirror is to be left alone."""
        onward: Ask | None = ask
        broke_off = 0
        while onward is not None and not window.is_gone:
            try:
                answer = await self._lines.ask(onward.origin, onward.path)
            except FlagshipError as error:
                if isinstance(error, LineLostError):
                    broke_off += error.begun
                    was_good = error.line is not None and error.line.answered > 0
                    if error.too_slow or (broke_off > 1 and was_good):
                        return  # it drips, or breaks off each time: that chunk is lost
                    if self._lines.may_try_again(error):
                        continue
                self._failed(str(error))
            else:
                window.answered_after(answer.delay_s)
                onward = self._settle(onward, answer, window)

    def _settle(self, ask: Ask, answer: Answer, window: _Window) -> Ask | None:
        """What is to be asked instead; None: it came or is lost."""
        if answer.status == 200 and answer.body:
            self._failures, self._why = 0, ""
            window.arrived[ask.cid] = answer.body
        elif answer.status in _REDIRECTS:
            onward = redirected(ask, answer.location, elsewhere=self._settings.elsewhere)
            if onward is None or not self._lines.knows(onward.origin):
                self._why = f"{ask.origin}: it redirects where this device may not follow"
                return None
            return onward
        elif answer.status in _BUSY:
            self._busy(ask.origin, answer)
            return ask
        else:
            if answer.status not in _NOT_THERE:
                self._why = f"{ask.origin}: it answered {answer.status}, expected a chunk"
            log.debug("chunk not had", source=self.name, status=answer.status, cid=ask.cid[:16])
        return None

    def _is_left_alone(self) -> bool:
        return not self.is_ready

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
        """Leave it alone for a while."""
        if why != self._why:
            log.info("mirror left alone", source=self.name, why=why, pause_s=round(pause_s, 1))
        self._why = why
        self._failures += 1
        self._not_before = self._clock.monotonic() + pause_s
        for window in self._windows:
            window.is_gone = True
            window.end()

    def _absent_interface(self) -> str:
        interface = self._settings.interface
        return f"interface {interface}: not there" if interface and not network.exists(interface) else ""
