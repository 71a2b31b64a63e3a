"""One broker's chunks on a real broker, driven step by step, with a clock that tests move."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import select, update

from orchestrator.config_brokers import BrokerSettings, ChunkSettings
from orchestrator.delivery.broker_access import service_connection
from orchestrator.delivery.chunk_audit import ChunkAudit
from orchestrator.delivery.chunk_publishing import ChunkPublishing
from orchestrator.delivery.chunk_upkeep import ChunkUpkeep
from orchestrator.delivery.publisher import Outgoing, send_all
from orchestrator.delivery.readback import ReadBack
from orchestrator.metrics import Metrics
from orchestrator.model.plan import RolloutSpec, StageSpec
from orchestrator.model.rollout import RolloutState
from orchestrator.storage import chunk_keeping, releases, rollouts
from orchestrator.storage.chunk_keeping import OnBroker
from orchestrator.storage.tables import published
from orchestrator.storage.tables import rollouts as rollouts_table
from protocol.clock import ManualClock
from protocol.mqtt.connection import Session, connect
from protocol.topics import DELIVERY, Kind
from tests.orchestrator.delivery.lab import Lab

START = datetime(2026, 11, 25, tzinfo=UTC)
DAY_S = 86_400
STEPS = 400


@dataclass
class ChunkYard:
    """What a keeper is made of, and a session."""

    lab: Lab
    session: Session
    chunks: ChunkPublishing
    upkeep: ChunkUpkeep
    audit: ChunkAudit
    clock: ManualClock
    metrics: Metrics = field(default_factory=Metrics)

    async def publish(self, release: str) -> int:
        """As an operator does."""
        async with self.lab.db.begin() as conn:
            await chunk_keeping.ask(conn, "main", release, self.clock.now())
        sent = await self.upkeep.bring(self.session, release)
        async with self.lab.db.begin() as conn:
            await releases.release_published(conn, release, sent)
        return sent

    async def settle(self) -> int:
        """Do all that is to be done; returns the bytes that were sent for it."""
        sent = 0
        for _ in range(STEPS):
            step = await self.upkeep.step(self.session)
            if step is None:
                return sent
            sent += step
        raise AssertionError(f"not settled in {STEPS} steps")

    async def held(self) -> set[str]:
        """Chunks that are recorded as retained."""
        async with self.lab.db.read() as conn:
            topics = await conn.scalars(select(published.c.topic).where(published.c.kind == Kind.CHUNK.name))
            return {topic.rpartition("/")[2] for topic in topics}

    async def retains(self, *data: bytes) -> list[bool]:
        """Whether the broker itself delivers each of these chunks."""
        found = []
        for item in data:
            lost, _ = await self.chunks.look(self.session, [self.chunks.prefix + self.lab.put(item)])
            found.append(not lost)
        return found

    async def on_broker(self, release: str) -> OnBroker:
        """How a release stands."""
        async with self.lab.db.read() as conn:
            (found,) = (await chunk_keeping.on_brokers(conn, [release]))[release]
        return found

    async def roll_out(self, rollout: str, release: str) -> None:
        """A rollout that runs."""
        spec = RolloutSpec(release=release, stages=[StageSpec(name="all", percent=100)])
        async with self.lab.db.begin() as conn:
            await rollouts.insert(conn, rollout, spec, RolloutState.RUNNING, self.clock.now())

    async def end(self, rollout: str) -> None:
        """It ends now."""
        async with self.lab.db.begin() as conn:
            ended = update(rollouts_table).where(rollouts_table.c.id == rollout)
            await conn.execute(ended.values(ended_at=self.clock.now(), state=RolloutState.COMPLETED))

    async def spoil(self, data: bytes, payload: bytes) -> None:
        """Put something else, or nothing, in a chunk's place on the broker."""
        topic = self.chunks.prefix + self.lab.put(data)
        await send_all(self.session, [Outgoing(kind=Kind.CHUNK, topic=topic, payload=payload)])

    def figure(self, name: str, **labels: str) -> float:
        """One of the metrics."""
        return self.metrics.registry.get_sample_value(name, {"broker": "main", **labels}) or 0


@contextlib.asynccontextmanager
async def chunk_yard(lab: Lab, clock: ManualClock | None = None, **broker: Any) -> AsyncIterator[ChunkYard]:
    """A session whose messages are read, on a broker that has a marker; ``broker`` changes its settings."""
    settings = BrokerSettings(**(lab.settings.broker.model_dump() | broker))
    clock, metrics, readback = clock or ManualClock(START), Metrics(), ReadBack()
    async with connect(service_connection(lab.home, lab.settings, DELIVERY, purpose="yard")) as session:

        async def read() -> None:
            async for message in session.messages():
                readback.deliver(message)

        task = asyncio.create_task(read())
        chunks = ChunkPublishing(lab.db, settings, lab.chunks, lab.topics, readback, 2.0)
        parts = (lab.db, settings, ChunkSettings(), chunks, metrics, clock)
        marker = Outgoing(kind=Kind.STATUS_SYNC, topic=lab.topics.build(Kind.STATUS_SYNC), payload=b"{}")
        try:
            await send_all(session, [marker])
            await chunks.count()
            yield ChunkYard(lab, session, chunks, ChunkUpkeep(*parts), ChunkAudit(*parts), clock, metrics)
        finally:
            task.cancel()
