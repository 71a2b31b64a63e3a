"""Chunks, once each: published retained in windows, read back, recorded. What a broker holds is not sent again."""

import asyncio
import hashlib
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Protocol

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from orchestrator.config_brokers import BrokerSettings
from orchestrator.delivery.publisher import Outgoing, send_all, send_proven, together
from orchestrator.delivery.readback import LANES, WINDOW, ReadBack, windows
from orchestrator.errors import OperationError
from orchestrator.storage import chunk_audits, chunk_keeping, published, removals
from orchestrator.storage.database import Database
from orchestrator.storage.published import Publication
from protocol.errors import FlagshipError
from protocol.mqtt.connection import Session
from protocol.topics import Kind, Topics

log = structlog.get_logger(__name__)

PAGE = 16 * WINDOW


class Chunks(Protocol):
    """Where ciphertexts stand. Blocking."""

    def get(self, cid_hex: str) -> bytes:
        """One chunk's ciphertext."""
        ...


class ChunkPublishing:
    """One broker's chunks: on it, off it, and how many bytes stand there."""

    def __init__(
        self, db: Database, broker: BrokerSettings, chunks: Chunks, topics: Topics, readback: ReadBack, timeout_s: float
    ) -> None:  # fmt: skip
        self._db = db
        self._name = broker.name
        self._timeout_s = timeout_s
        self._chunks = chunks
        self._topics = topics
        self._readback = readback
        self._marker = topics.build(Kind.STATUS_SYNC)
        self.prefix = topics.build(Kind.CHUNK, cid="0" * 64)[:-64]
        self.retained_bytes = 0

    async def count(self) -> None:
        """Find out how many bytes stand on the broker; from then on they are counted."""
        self.retained_bytes = await self._db.look(self._retained)

    async def _retained(self, conn: AsyncConnection) -> int:
        return await chunk_audits.retained_bytes(conn, self._name, self.prefix)

    async def missing_bytes(self, release: str) -> int:
        """Bytes that a release has and the broker has not."""
        async with self._db.read() as conn:
            return await chunk_keeping.missing_bytes(conn, self._name, self.prefix, release)

    async def missing_page(self, release: str, after: str) -> list[tuple[str, int]]:
        """(cid, bytes) of chunks that a release has and the broker has not, a page in order of their ids."""
        async with self._db.read() as conn:
            return await chunk_keeping.missing_page(conn, self._name, self.prefix, release, after=after, limit=PAGE)

    async def publish_page(self, session: Session, release: str, page: Sequence[tuple[str, int]]) -> int:
        """Bring chunks that the broker lacks, several windows at once.

        Returns:
            Ciphertext bytes that were sent.

        Raises:
            ConnectionLost: What was recorded is there; the rest is still missing.
            OperationError: The store has lost one, or the broker does not retain.
        """
        waiting = iter(list(windows(page)))
        return sum(await together([self._publish_windows(session, release, waiting) for _ in range(LANES)]))

    async def _publish_windows(
        self, session: Session, release: str, waiting: Iterator[Sequence[tuple[str, int]]]
    ) -> int:
        sent = 0
        for window in waiting:  # one iterator for all lanes: each takes the next
            found, lost = await asyncio.to_thread(self._read, [cid for cid, _ in window])
            if lost:
                raise OperationError(
                    f"chunk {lost[0][:16]}: missing or damaged in the home's chunk store; import {release} again"
                )
            sent += await self._publish(session, found)
            self.retained_bytes += sum(length for _, length in window)
        return sent

    async def publish_again(self, session: Session, cids: Sequence[str]) -> int:
        """Bring chunks that the broker lost; those that are not in the store any more are forgotten.

        Returns:
            Ciphertext bytes that were sent.

        Raises:
            ConnectionLost: Some are still missing.
            UnreachableError: The broker does not retain.
        """
        sent = 0
        for window in windows(cids):
            found, lost = await asyncio.to_thread(self._read, window)
            sent += await self._publish(session, found)
            if lost:
                await self._forget(lost)
                await self.count()
        return sent

    async def look(self, session: Session, topics: Sequence[str]) -> tuple[list[str], int]:
        """Read back at most ``WINDOW`` chunk topics; (cids that are lost or damaged there, bytes that came)."""
        held = await self._readback.fetch(session, topics, self._timeout_s, last=self._marker)

        def compare() -> list[str]:
            cids = [topic.removeprefix(self.prefix) for topic in topics]
            return [c for c in cids if hashlib.sha256(held.get(self.prefix + c, b"")).hexdigest() != c]

        return await asyncio.to_thread(compare), sum(map(len, held.values()))

    async def clear(self, session: Session, page: Sequence[tuple[str, int]], now: datetime) -> int:
        """Take chunks off the broker; forgotten when they were read back as absent.

        That they were cleared is kept for a while: a broker that comes back from an old file has them again.

        Returns:
            How many are gone; the others are still recorded.

        Raises:
            ConnectionLost: Some are still recorded, though they may be gone.
        """
        gone = 0
        for window in windows(page):
            lengths = {self.prefix + cid: length for cid, length in window}
            await send_all(session, [Outgoing(kind=Kind.CHUNK, topic=topic, payload=b"") for topic in lengths])
            left = await self._readback.fetch(session, [*lengths], self._timeout_s, last=self._marker)
            if self._marker not in left:  # nothing proves that what did not come is gone
                return gone
            absent = [topic for topic in lengths if topic not in left]
            async with self._db.begin() as conn:
                gone_now = [Publication(kind=Kind.CHUNK, topic=topic, digest="") for topic in absent]
                await removals.cleared(conn, self._name, gone_now, now)
                await chunk_keeping.lost(conn, self._name, [topic.removeprefix(self.prefix) for topic in absent])
            self.retained_bytes -= sum(lengths[topic] for topic in absent)
            gone += len(absent)
        return gone

    async def held(self, cids: Sequence[str]) -> list[str]:
        """Those of the chunks that stand on the broker, as far as is recorded."""
        topics = [self.prefix + cid for cid in cids]
        async with self._db.read() as conn:
            there = await published.held(conn, self._name, topics)
        return [cid for cid in cids if self.prefix + cid in there]

    async def _forget(self, cids: Sequence[str]) -> None:
        if cids:
            async with self._db.begin() as conn:
                await published.forget(conn, self._name, [self.prefix + cid for cid in cids])
                await chunk_keeping.lost(conn, self._name, cids)

    async def _publish(self, session: Session, found: Sequence[Outgoing]) -> int:
        items = {item.topic: item for item in found}
        if not items:
            return 0
        sent = await send_proven(session, self._readback, items, self._timeout_s)
        async with self._db.begin() as conn:
            await published.record(conn, self._name, [item.publication(keep_payload=False) for item in items.values()])
        return sent

    def _read(self, cids: Sequence[str]) -> tuple[list[Outgoing], list[str]]:
        """What to publish, and the cids that the store has lost. Blocking."""
        found: list[Outgoing] = []
        lost: list[str] = []
        for cid in cids:
            try:
                payload = self._chunks.get(cid)
            except (FlagshipError, OSError, KeyError) as error:
                log.error("chunk not in the store", cid=cid, why=str(error)[:200])
                lost.append(cid)
                continue
            if hashlib.sha256(payload).hexdigest() != cid:
                log.error("chunk damaged in the store", cid=cid)
                lost.append(cid)
                continue
            found.append(Outgoing(kind=Kind.CHUNK, topic=self.prefix + cid, payload=payload))
        return found, lost
