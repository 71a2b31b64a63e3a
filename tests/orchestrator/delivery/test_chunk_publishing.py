"""Chunks on a real broker: once each, within the byte budget, whole or not at all."""

import asyncio
import contextlib
import hashlib
import os
from collections.abc import AsyncIterator

import pytest
from sqlalchemy import select

from orchestrator.config import BrokerSettings
from orchestrator.delivery.broker_access import service_connection
from orchestrator.delivery.chunk_publishing import ChunkPublishing
from orchestrator.delivery.readback import ReadBack
from orchestrator.errors import OperationError
from orchestrator.storage.tables import published
from protocol.mqtt.connection import Session, connect
from protocol.topics import DELIVERY, Kind
from tests.orchestrator.delivery.lab import RELEASE, Lab


@contextlib.asynccontextmanager
async def publishing(lab: Lab, max_bytes: int = 2**30) -> AsyncIterator[tuple[ChunkPublishing, Session]]:
    """A publishing of chunks with a session whose messages are read."""
    broker = BrokerSettings(**(lab.settings.broker.model_dump() | {"max_retained_bytes": max_bytes}))
    settings = lab.settings.model_copy(update={"broker": broker})
    readback = ReadBack()
    async with connect(service_connection(lab.home, settings, DELIVERY)) as session:

        async def read() -> None:
            async for message in session.messages():
                readback.deliver(message)

        task = asyncio.create_task(read())
        try:
            yield ChunkPublishing(lab.db, settings, lab.chunks, lab.topics, readback), session
        finally:
            task.cancel()


async def recorded(lab: Lab) -> set[str]:
    """Chunk topics that are recorded as held."""
    async with lab.db.read() as conn:
        return set(await conn.scalars(select(published.c.topic).where(published.c.kind == Kind.CHUNK.name)))


async def test_only_what_the_broker_lacks_is_sent(lab: Lab) -> None:
    """A second release that shares chunks costs its own ones."""
    chunks = [os.urandom(100) for _ in range(20)]
    await lab.add_release(chunks)
    async with publishing(lab) as (part, session):
        assert await part.publish_missing(session, RELEASE) == 2000
        assert len(await recorded(lab)) == 20
        assert await part.publish_missing(session, RELEASE) == 0


async def test_the_byte_budget_is_kept_before_anything_is_sent(lab: Lab) -> None:
    """The sentence names figures and the setting; nothing was published. At the budget it fits."""
    await lab.add_release([os.urandom(100) for _ in range(20)])
    async with publishing(lab, 1999) as (part, session):
        with pytest.raises(OperationError, match=r"needs 2000 B more.*max_retained_bytes"):
            await part.publish_missing(session, RELEASE)
    assert await recorded(lab) == set()
    async with publishing(lab, 2000) as (part, session):
        assert await part.publish_missing(session, RELEASE) == 2000


async def test_a_damaged_chunk_is_never_published(lab: Lab) -> None:
    """What the store holds under a name is hashed before it goes out."""
    data = os.urandom(100)
    await lab.add_release([data])
    cid = lab.put(data)
    (path,) = [file for file in lab.home.chunks.rglob("*") if file.is_file() and file.read_bytes() == data]
    path.chmod(0o600)
    path.write_bytes(os.urandom(100))
    async with publishing(lab) as (part, session):
        with pytest.raises(OperationError, match=rf"chunk {cid[:16]}: missing or damaged"):
            await part.publish_missing(session, RELEASE)
    assert await lab.retained(lab.topics.build(Kind.CHUNK, cid=cid)) is None


async def test_a_chunk_that_cannot_be_healed_is_forgotten(lab: Lab) -> None:
    """So that publishing its release again asks for it, instead of believing that the broker has it."""
    good, bad = os.urandom(100), os.urandom(100)
    await lab.add_release([good, bad])
    async with publishing(lab) as (part, session):
        await part.publish_missing(session, RELEASE)
        lab.chunks.remove([lab.put(bad)])
        await part.publish_again(session, [lab.put(good), hashlib.sha256(bad).hexdigest()])
        assert await recorded(lab) == {lab.topics.build(Kind.CHUNK, cid=lab.put(good))}
        with pytest.raises(OperationError, match="import"):
            await part.publish_missing(session, RELEASE)
