"""Chunks from the retained topics of whatever broker the agent is connected to.

One SUBSCRIBE per window. The UNSUBSCRIBE of a finished window goes out together with the next SUBSCRIBE, so no round
trip is lost to it. No answer of the broker is waited for: chunks may come before or after the SUBACK, and on a slow
link the SUBACK of one window comes behind all of the window before.
"""

import asyncio
import contextlib
import time
from collections.abc import Coroutine, Sequence
from typing import Protocol

import structlog

from device_client.download.sources import Collected
from protocol.errors import FlagshipError
from protocol.mqtt.connection import ConnectionLost
from protocol.topics import RULES, Kind, Topics

log = structlog.get_logger(__name__)

ANSWER_S = 600.0
"""The longest that a SUBACK may take; by then silence has ended its window long ago."""


class ChunkSession(Protocol):
    """What is needed of ``protocol.mqtt.connection.Session``."""

    async def subscribe(self, filters: Sequence[tuple[str, int]], *, timeout_s: float | None = None) -> None:
        """One SUBSCRIBE; returns after the SUBACK."""
        ...

    async def unsubscribe(self, filters: Sequence[str], *, timeout_s: float | None = None) -> None:
        """One UNSUBSCRIBE; returns after the UNSUBACK."""
        ...


class _Window:
    """What is out, and what came of it."""

    def __init__(self, cids: Sequence[str]) -> None:
        self.left = set(cids)
        self.arrived: dict[str, bytes] = {}
        self.asked_at = self.heard_at = time.monotonic()
        self.first_at: float | None = None
        self.is_answered = False
        self.is_over = self.is_gone = False
        self.changed = asyncio.Event()

    def end(self) -> None:
        """What has not come by now did not come."""
        self.is_over = True
        self.changed.set()

    def heard(self, now: float) -> None:
        """The broker is at it."""
        self.heard_at = now
        if self.first_at is None:
            self.first_at = now


class MqttSource:
    """Retained chunk topics.

    The agent's inbox calls ``deliver``; its connection loop calls ``attach`` and ``detach``.

    Attributes:
        received_bytes: Of chunks that were asked for and came, since this was made.
    """

    def __init__(
        self, topics: Topics, max_bytes: int = RULES[Kind.CHUNK].max_bytes, qos: int = RULES[Kind.CHUNK].qos
    ) -> None:
        self._topics = topics
        self._qos = qos
        self._max_bytes = max_bytes
        self._session: ChunkSession | None = None
        self._attached = asyncio.Event()
        self._windows: list[_Window] = []  # in the order in which they were asked for
        self._awaited: dict[str, _Window] = {}
        self._finished: set[str] = set()
        self._asking: set[asyncio.Task[None]] = set()
        self.received_bytes = 0

    @property
    def name(self) -> str:
        """The broker of the agent's connection, whichever it is."""
        return "mqtt"

    @property
    def is_ready(self) -> bool:
        """Whether there is a connection."""
        return self._session is not None

    def attach(self, session: ChunkSession) -> None:
        """A connection is up; it has none of the subscriptions of the one before."""
        self._session = session
        self._finished = set()
        self._attached.set()

    def detach(self) -> None:
        """The connection is gone; downloads wait for the next."""
        self._session = None
        self._finished = set()
        self._attached.clear()
        self.interrupt()
        for asking in self._asking:
            asking.cancel()

    def interrupt(self) -> None:
        """End the windows that are out, with what came so far; the rest counts as never sent."""
        for window in self._windows:
            window.is_gone = True
            window.end()

    def deliver(self, cid: str, payload: bytes) -> None:
        """Take a chunk that the broker sent; what was not asked for, or too large, is dropped."""
        window = self._awaited.get(cid)
        if window is None or not 0 < len(payload) <= self._max_bytes:
            return
        del self._awaited[cid]
        window.left.discard(cid)
        window.arrived[cid] = payload
        window.heard(time.monotonic())
        self.received_bytes += len(payload)
        if not window.left:
            self._whole(window)

    async def ready(self) -> None:
        """Wait for a connection."""
        await self._attached.wait()

    async def collect(self, cids: Sequence[str], silence_s: float) -> Collected:
        """Subscribe to the chunks and wait for them; see ``ChunkSource.collect``."""
        session = self._session
        if session is None:
            return Collected({}, gone=True)
        window = _Window(cids)
        self._windows.append(window)
        self._awaited.update(dict.fromkeys(cids, window))
        asking = self._in_background(self._ask(window, session, list(cids)))
        try:
            await self._until_over(window, silence_s)
        except asyncio.CancelledError:
            asking.cancel()
            raise
        finally:
            self._windows.remove(window)
            for cid in window.left:
                self._awaited.pop(cid, None)
            if self._session is session:
                self._finished.update(cids)
        delay_s = None if window.first_at is None else window.first_at - window.asked_at
        return Collected(window.arrived, gone=window.is_gone and bool(window.left), delay_s=delay_s)

    async def release(self) -> None:
        """Unsubscribe from what is left; the answer is not waited for."""
        session, left = self._session, self._finished
        self._finished = set()
        if session is not None:
            self._in_background(self._unsubscribe(session, left))
            await asyncio.sleep(0)

    def _in_background(self, request: Coroutine[None, None, None]) -> asyncio.Task[None]:
        """Send a request whose answer nobody waits for; it ends with the connection at the latest."""
        task = asyncio.create_task(request)
        self._asking.add(task)
        task.add_done_callback(self._asking.discard)
        return task

    async def _until_over(self, window: _Window, silence_s: float) -> None:
        """Wait until all came, the window was ended, or for ``silence_s`` nothing came of it or what goes before it."""
        while not window.is_over:
            ahead = self._windows[: self._windows.index(window) + 1]
            left_s = max(one.heard_at for one in ahead) + silence_s - time.monotonic()
            if left_s <= 0:
                return
            window.changed.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left_s):
                    await window.changed.wait()

    def _whole(self, window: _Window) -> None:
        """A broker answers in order: what was asked for before that window and has not come, was dropped."""
        window.end()
        place = self._windows.index(window)
        for earlier in self._windows[:place]:
            if earlier.is_answered:
                earlier.end()
        for later in self._windows[place + 1 :]:
            later.heard_at = max(later.heard_at, window.heard_at)

    async def _ask(self, window: _Window, session: ChunkSession, cids: list[str]) -> None:
        finished = self._finished - set(cids)
        self._finished = set()
        await asyncio.gather(self._subscribe(window, session, cids), self._unsubscribe(session, finished))

    async def _subscribe(self, window: _Window, session: ChunkSession, cids: list[str]) -> None:
        try:
            await session.subscribe([(self._topic(cid), self._qos) for cid in cids], timeout_s=ANSWER_S)
        except FlagshipError as error:
            log.info("chunk_subscribe_failed", detail=str(error), chunks=len(cids))
            window.is_gone = isinstance(error, ConnectionLost)
            window.end()
        else:
            window.is_answered = True
            window.heard(time.monotonic())

    async def _unsubscribe(self, session: ChunkSession, cids: set[str]) -> None:
        if not cids:
            return
        with contextlib.suppress(FlagshipError):  # a refusal leaves subscriptions to topics that do not change
            await session.unsubscribe([self._topic(cid) for cid in sorted(cids)], timeout_s=ANSWER_S)

    def _topic(self, cid: str) -> str:
        return self._topics.build(Kind.CHUNK, cid=cid)
