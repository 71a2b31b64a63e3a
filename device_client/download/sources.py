"""Where chunks come from. Every source is equally untrusted; what it gives is verified by the store.

A source hands out what came of one window and says nothing of why the rest did not.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import structlog

from protocol.errors import FlagshipError
from protocol.topics import RULES, Kind, Topics

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Collected:
    """What came of one window.

    Attributes:
        chunks: Ciphertext by id, unverified.
        gone: The source itself went away: what is absent was not lost, it was never sent.
    """

    chunks: dict[str, bytes]
    gone: bool = False


class ChunkSource(Protocol):
    """Gives ciphertexts by id."""

    @property
    def name(self) -> str:
        """For people and logs: ``mqtt``, an address, a directory."""
        ...

    @property
    def is_ready(self) -> bool:
        """Whether there is any use in asking now."""
        ...

    async def ready(self) -> None:
        """Wait until there is any use in asking."""
        ...

    async def collect(self, cids: Sequence[str], silence_s: float) -> Collected:
        """Ask for chunks and wait until all have come, nothing came for ``silence_s``, or the source is gone."""
        ...

    async def release(self) -> None:
        """Nothing more is asked for at present."""
        ...


class ChunkSession(Protocol):
    """What is needed of ``protocol.mqtt.connection.Session``."""

    async def subscribe(self, filters: Sequence[tuple[str, int]]) -> None:
        """One SUBSCRIBE; returns after the SUBACK."""
        ...

    async def unsubscribe(self, filters: Sequence[str]) -> None:
        """One UNSUBSCRIBE; returns after the UNSUBACK."""
        ...


class Meter(Protocol):
    """Measures how quickly chunks come."""

    def asked(self) -> None:
        """Chunks are waited for from now on."""
        ...

    def arrived(self, size_bytes: int) -> None:
        """One of them came."""
        ...

    def rested(self, *, gone: bool) -> None:
        """None is waited for now; ``gone``: because the connection went."""
        ...


class MqttSource:
    """Retained chunk topics of whatever broker the agent is connected to.

    The agent's inbox calls ``deliver``; its connection loop calls ``attach`` and ``detach``. One SUBSCRIBE per window;
    the UNSUBSCRIBE of a finished window goes out together with the next SUBSCRIBE, so no round trip is lost to it.

    Attributes:
        meter: Told of what is asked for and what comes, if anybody measures.
    """

    def __init__(self, topics: Topics, max_bytes: int = RULES[Kind.CHUNK].max_bytes) -> None:
        self._topics = topics
        self._max_bytes = max_bytes
        self._session: ChunkSession | None = None
        self._attached = asyncio.Event()
        self._changed = asyncio.Event()
        self._awaited: set[str] = set()
        self._arrived: dict[str, bytes] = {}
        self._subscribed: set[str] = set()
        self.meter: Meter | None = None

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
        self._subscribed = set()
        self._attached.set()

    def detach(self) -> None:
        """The connection is gone; downloads wait for the next."""
        self._session = None
        self._subscribed = set()
        self._attached.clear()
        self._changed.set()

    def deliver(self, cid: str, payload: bytes) -> None:
        """Take a chunk that the broker sent; what was not asked for, or too large, is dropped."""
        if cid not in self._awaited or not 0 < len(payload) <= self._max_bytes:
            return
        self._awaited.discard(cid)
        self._arrived[cid] = payload
        if self.meter:
            self.meter.arrived(len(payload))
        self._changed.set()

    async def ready(self) -> None:
        """Wait for a connection."""
        await self._attached.wait()

    async def collect(self, cids: Sequence[str], silence_s: float) -> Collected:
        """Subscribe to the chunks and wait for them; see ``ChunkSource.collect``."""
        session = self._session
        if session is None:
            return Collected({}, gone=True)
        self._awaited, self._arrived = set(cids), {}
        if self.meter:
            self.meter.asked()
        try:
            answered = await self._subscribe(session, cids)
            while answered and self._awaited and self._session is session:
                self._changed.clear()
                try:
                    async with asyncio.timeout(silence_s):
                        await self._changed.wait()
                except TimeoutError:
                    break
            return Collected(self._arrived, gone=self._session is not session)
        finally:
            self._awaited, self._arrived = set(), {}
            if self.meter:
                self.meter.rested(gone=self._session is not session)

    async def release(self) -> None:
        """Unsubscribe from what is left."""
        session, left = self._session, self._subscribed
        self._subscribed = set()
        if session is not None:
            await self._unsubscribe(session, left)

    async def _subscribe(self, session: ChunkSession, cids: Sequence[str]) -> bool:
        finished = self._subscribed - set(cids)
        self._subscribed = set(cids)
        qos = RULES[Kind.CHUNK].qos
        asked, _ = await asyncio.gather(
            session.subscribe([(self._topic(cid), qos) for cid in cids]),
            self._unsubscribe(session, finished),
            return_exceptions=True,
        )
        if isinstance(asked, FlagshipError):
            log.info("chunk_subscribe_failed", detail=str(asked), chunks=len(cids))
            return False
        if asked is not None:
            raise asked
        return True

    async def _unsubscribe(self, session: ChunkSession, cids: set[str]) -> None:
        if not cids:
            return
        try:
            await session.unsubscribe([self._topic(cid) for cid in sorted(cids)])
        except FlagshipError as error:
            log.debug("chunk_unsubscribe_failed", detail=str(error))

    def _topic(self, cid: str) -> str:
        return self._topics.build(Kind.CHUNK, cid=cid)
