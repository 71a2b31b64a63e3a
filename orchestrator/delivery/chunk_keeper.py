"""Everything about one broker's chunks, one thing at a time and in order.

    wants -> what the broker lost -> releases to bring or to clear -> the slow audit

Wants come before everything; the rest waits until directives are out, and for the broker's pace. One task, one window
at a time: what a device asks for in between waits for one window. A broker that does not keep a chunk keeps its
connection: directives go out whatever becomes of chunks.
"""

import asyncio
from collections.abc import Callable

import structlog

from orchestrator.config import Settings
from orchestrator.config_brokers import BrokerSettings
from orchestrator.delivery.chunk_audit import ChunkAudit
from orchestrator.delivery.chunk_pace import Pace
from orchestrator.delivery.chunk_publishing import ChunkPublishing, Chunks
from orchestrator.delivery.chunk_upkeep import ChunkUpkeep
from orchestrator.delivery.chunk_wants import ChunkWants
from orchestrator.delivery.readback import WINDOW, ReadBack
from orchestrator.errors import OperationError
from orchestrator.metrics import Metrics
from orchestrator.storage.database import Database
from protocol.clock import Clock
from protocol.mqtt.connection import Session
from protocol.topics import Topics

log = structlog.get_logger(__name__)

UPKEEP_S = 5.0
"""How often it is asked what is needed, where nothing was to be done."""
AGAIN_S = 30.0
"""After what the broker did not take."""


class ChunkKeeper:
    """One broker's chunks, for the length of a delivery."""

    def __init__(
        self, db: Database, broker: BrokerSettings, settings: Settings, store: Chunks, topics: Topics,
        readback: ReadBack, clock: Clock, metrics: Metrics,
    ) -> None:  # fmt: skip
        self._broker = broker
        self._clock = clock
        self._metrics = metrics
        self._tick_s = settings.timing.tick_s
        self._chunks = ChunkPublishing(db, broker, store, topics, readback, settings.timing.read_back_s)
        self._upkeep = ChunkUpkeep(db, broker, settings.chunks, self._chunks, metrics, clock)
        self._audit = ChunkAudit(db, broker, settings.chunks, self._chunks, metrics, clock)
        self._repair = Pace(clock, broker.repair_bytes_s)
        self._publishing = asyncio.Lock()
        self._upkeep_at = 0.0
        self._again_at = 0.0
        self.why = ""
        """What keeps chunks from being kept right; "" for nothing."""
        self.wants = ChunkWants(clock, settings.chunks.want_interval_s, metrics.add_wants_dropped)

    async def begin(self, known: int, last: int) -> None:
        """A new connection to a broker that surely has what was published up to ``known`` of ``last``."""
        self._again_at = 0.0
        await self._chunks.count()
        await self._audit.begin(known, last)
        self._show()

    async def is_needed(self, release: str) -> bool:
        """Whether the broker shall hold a release."""
        return await self._upkeep.is_needed(release)

    async def publish(self, session: Session, release: str) -> int:
        """Bring a release now and whole; raises as ``ChunkUpkeep.bring``."""
        async with self._publishing:
            try:
                return await self._upkeep.bring(session, release)
            finally:
                self._show()

    async def run(self, session: Session, directives_are_out: Callable[[], bool]) -> None:
        """Keep this broker's chunks right until the connection ends.

        Raises:
            ConnectionLost: The connection ended.
            RequestRefused: Of which message, a session does not say for sure: all begins anew.
        """
        while True:
            self.wants.woken.clear()
            if await self._serve(session) or (directives_are_out() and await self._keep(session)):
                self._show()
                continue
            try:
                async with asyncio.timeout(self._tick_s):
                    await self.wants.woken.wait()
            except TimeoutError:
                pass

    async def _serve(self, session: Session) -> bool:
        """One window of wants; whether there was one."""
        cids = self.wants.oldest(WINDOW)
        if not cids or not self._repair.allows():
            return False
        held = await self._chunks.held(cids)
        try:
            self._repair.spend(await self._chunks.publish_again(session, held))
        except OperationError as error:
            log.error("wanted chunks not published", broker=self._broker.name, why=str(error)[:500])
            self.wants.done(cids, ())
            return True
        self.wants.done(cids, held)
        self._metrics.add_republished(self._broker.name, "wanted", len(held))
        return True

    async def _keep(self, session: Session) -> bool:
        """One piece of everything else; whether something was to be done and could be."""
        if self._publishing.locked() or self._clock.monotonic() < self._again_at:
            return False
        try:
            async with self._publishing:
                busy = await self._do_one(session)
        except OperationError as error:
            if str(error) != self.why:
                log.error("chunks not kept right", broker=self._broker.name, why=str(error)[:500])
            self.why, self._again_at = str(error), self._clock.monotonic() + AGAIN_S
            return False
        self.why = ""
        return busy

    async def _do_one(self, session: Session) -> bool:
        if self._audit.is_healing:
            if not self._repair.allows():
                return False
            self._repair.spend(await self._audit.heal(session))
            return True
        if self._clock.monotonic() >= self._upkeep_at and self._repair.allows():
            sent = await self._upkeep.step(session)
            if sent is not None:
                self._repair.spend(sent)
                return True
            self._upkeep_at = self._clock.monotonic() + min(UPKEEP_S, 5 * self._tick_s)
        return await self._audit.look_around(session)

    def _show(self) -> None:
        self._metrics.set_retained(self._broker.name, self._chunks.retained_bytes, self._broker.max_retained_bytes)
