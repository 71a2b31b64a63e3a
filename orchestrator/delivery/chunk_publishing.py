"""Chunks, once each: published retained in windows, read back, recorded. What a broker holds is not sent again."""

import asyncio
import hashlib
from collections.abc import Sequence
from functools import partial
from typing import Protocol

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from orchestrator.config import Settings
from orchestrator.delivery.publisher import Outgoing, send_proven
from orchestrator.delivery.readback import WINDOW, ReadBack, windows
from orchestrator.errors import OperationError
from orchestrator.storage import dirty, published
from orchestrator.storage.database import Database
from orchestrator.storage.dirty import Mark
from protocol.errors import FlagshipError
from protocol.mqtt.connection import Session
from protocol.topics import Kind, Topics

log = structlog.get_logger(__name__)


class Chunks(Protocol):
    """Where ciphertexts stand. Blocking."""

    def get(self, cid_hex: str) -> bytes:
        """One chunk's ciphertext."""
        ...


class ChunkPublishing:
    """One broker's chunks."""

    def __init__(self, db: Database, settings: Settings, chunks: Chunks, topics: Topics, readback: ReadBack) -> None:
        self._db = db
        self._broker = settings.broker
        self._timeout_s = settings.timing.read_back_s
        self._chunks = chunks
        self._topics = topics
        self._readback = readback
        self._prefix = f"{topics.root}/chunk/"

    async def publish_missing(self, session: Session, release: str) -> int:
        """Bring the chunks of a release that the broker lacks.

        Returns:
            Ciphertext bytes that were sent.

        Raises:
            ConnectionLost: What was recorded is there; the rest is still missing.
            OperationError: The byte budget is used up, or the broker does not retain.
        """
        async with self._db.read() as conn:
            missing = await published.missing_chunks(conn, self._broker.name, self._prefix, release)
            held = await published.retained_chunk_bytes(conn, self._broker.name, self._prefix)
        wanted = sum(length for _, length in missing)
        if held + wanted > self._broker.max_retained_bytes:
            raise OperationError(
                f"broker {self._broker.name}: release {release} needs {wanted} B more, "
                f"{held} B of {self._broker.max_retained_bytes} B are in use; raise broker.max_retained_bytes"
            )
        sent = 0
        for window in windows(missing):
            found, lost = await asyncio.to_thread(self._read, [cid for cid, _ in window])
            if lost:
                raise OperationError(
                    f"chunk {lost[0][:16]}: missing or damaged in the home's chunk store; import {release} again"
                )
            sent += await self._publish(session, found)
        return sent

    async def publish_wanted(self, session: Session) -> None:
        """Bring one window of the chunks that devices miss and the broker should hold; raises as ``publish_again``."""
        marks, cids = await self._db.look(self._wanted)
        if marks:
            await self.publish_again(session, cids)
            await self._db.write(partial(dirty.done, broker=self._broker.name, items=marks))

    async def _wanted(self, conn: AsyncConnection) -> tuple[list[Mark], list[str]]:
        marks = await dirty.take(conn, self._broker.name, (Kind.CHUNK,), WINDOW)
        topics = {self._topics.build(Kind.CHUNK, cid=key): key for _, key, _ in marks}
        return marks, [topics[topic] for topic in await published.get_many(conn, self._broker.name, topics)]

    async def publish_again(self, session: Session, cids: Sequence[str]) -> None:
        """Bring chunks that the broker lost; those that are not in the store any more are forgotten.

        Raises:
            ConnectionLost: Some are still missing.
            UnreachableError: The broker does not retain.
        """
        for window in windows(cids):
            found, damaged = await asyncio.to_thread(self._read, window)
            await self._publish(session, found)
            if damaged:
                async with self._db.begin() as conn:
                    topics = [self._topics.build(Kind.CHUNK, cid=cid) for cid in damaged]
                    await published.forget(conn, self._broker.name, topics)

    async def _publish(self, session: Session, found: Sequence[Outgoing]) -> int:
        items = {item.topic: item for item in found}
        if not items:
            return 0
        sent = await send_proven(session, self._readback, items, self._timeout_s)
        async with self._db.begin() as conn:
            await published.record(
                conn, self._broker.name, [item.publication(keep_payload=False) for item in items.values()]
            )
        return sent

    def _read(self, cids: Sequence[str]) -> tuple[list[Outgoing], list[str]]:
        """What to publish, and the cids that the store has lost. Blocking."""
        found: list[Outgoing] = []
        lost: list[str] = []
        for cid in cids:
            topic = self._topics.build(Kind.CHUNK, cid=cid)
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
            found.append(Outgoing(kind=Kind.CHUNK, topic=topic, payload=payload))
        return found, lost
