"""What one window still wants of a mirror, and who is at work on it. No IO of its own."""

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urljoin, urlsplit

from device_client.download.https_line import Origin
from protocol.enrolment import MAX_URL

MAX_HOPS = 3
MAX_ORIGINS = 4
"""Servers that one window may be sent to."""


@dataclass(frozen=True, slots=True)
class Ask:
    """One chunk, and where to ask for it.

    Attributes:
        hops: Redirects that led here.
    """

    cid: str
    origin: Origin
    path: str
    hops: int = 0


class HttpsWindow:
    """One window. Every ask is with a queue or a worker, or it is settled: came, or lost."""

    def __init__(
        self,
        asks: Sequence[Ask],
        serve: "Callable[[HttpsWindow, Origin], Coroutine[Any, Any, None]]",
        connections: int,
    ) -> None:
        """Hold the asks; ``serve`` is what a worker does, ``connections`` how many of them each server gets."""
        self._queues: dict[Origin, deque[Ask]] = {}
        self._serve = serve
        self._connections = connections
        self._workers: dict[asyncio.Future[None], Origin] = {}
        self._failed_once: set[str] = set()
        self.share = -(-len(asks) // connections)
        self.arrived: dict[str, bytes] = {}
        self.is_stopped = False
        for ask in asks:
            self._queues.setdefault(ask.origin, deque()).append(ask)

    @property
    def is_at_work(self) -> bool:
        """Whether anybody still asks for anything."""
        return bool(self._workers)

    def begin(self, origin: Origin) -> None:
        """Set the workers of one server to work."""
        busy = sum(1 for at in self._workers.values() if at == origin)
        for _ in range(min(self._connections - busy, len(self._queues.get(origin, ())))):
            self._workers[asyncio.ensure_future(self._serve(self, origin))] = origin

    async def wait(self, timeout_s: float) -> None:
        """Wait until a worker ends, or so long; what it raised is raised."""
        done, _ = await asyncio.wait(set(self._workers), timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        for worker in done:
            del self._workers[worker]
            worker.result()

    async def end(self) -> None:
        """End every worker that is left."""
        for worker in self._workers:
            worker.cancel()
        await asyncio.gather(*self._workers, return_exceptions=True)

    def has(self, origin: Origin) -> bool:
        """Whether something is to be asked for there."""
        return bool(self._queues.get(origin))

    def take(self, origin: Origin) -> Ask | None:
        """The next to ask for there."""
        queue = self._queues.get(origin)
        return queue.popleft() if queue else None

    def give_back(self, asks: Sequence[Ask]) -> None:
        """They were asked for and not answered: they are next again."""
        for ask in reversed(asks):
            self._queues[ask.origin].appendleft(ask)

    def came(self, ask: Ask, data: bytes) -> None:
        """It is here."""
        self.arrived[ask.cid] = data

    def lost(self, ask: Ask) -> None:
        """It is not to be had there; nobody asks for it again in this window."""

    def is_second_try(self, ask: Ask) -> bool:
        """Whether a connection ended on this very one before."""
        again = ask.cid in self._failed_once
        self._failed_once.add(ask.cid)
        return again

    def replace(self, ask: Ask, onward: Ask | None) -> None:
        """Ask elsewhere; None, or one server too many: it is lost."""
        if onward is None or (onward.origin not in self._queues and len(self._queues) >= MAX_ORIGINS):
            return
        self._queues.setdefault(onward.origin, deque()).append(onward)
        if onward.origin != ask.origin:  # at the same one, who was redirected goes on by itself
            self.begin(onward.origin)

    def stop(self) -> None:
        """The mirror is to be left alone: workers end, and what did not come was not lost."""
        self.is_stopped = True


def redirected(ask: Ask, location: str, *, elsewhere: bool) -> Ask | None:
    """Pure: where a redirect leads; None where it may not be followed.

    Args:
        location: The header, as it came.
        elsewhere: Whether it may lead to another host; never to anything but https, never further than ``MAX_HOPS``.
    """
    if (
        ask.hops >= MAX_HOPS
        or " " in location
        or not 0 < len(location) <= 4 * MAX_URL
        or not (location.isascii() and location.isprintable())
    ):
        return None
    try:
        parts = urlsplit(urljoin(f"https://{ask.origin}{ask.path}", location))
        origin = Origin(parts.hostname or "", parts.port or 443)
    except ValueError:
        return None
    if parts.scheme != "https" or not origin.host or "@" in parts.netloc:
        return None
    if origin.host != ask.origin.host and not elsewhere:
        return None
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return replace(ask, origin=origin, path=path, hops=ask.hops + 1)
