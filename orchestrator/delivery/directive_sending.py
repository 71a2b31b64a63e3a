"""Directives of one broker as they are marked: rendered, signed, sent and recorded in batches, each under the latch.

Between batches the upkeep that time alone makes necessary. Marks are removed only when the broker has acknowledged and
the row is written. The lock of signing is held for reading and signing, never while a broker is waited for.
"""

import asyncio
from dataclasses import dataclass, field
from datetime import timedelta

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from orchestrator.config import TimingSettings
from orchestrator.delivery.directives import Directives, Rows, SignedBatch
from orchestrator.delivery.healing import TRUST
from orchestrator.delivery.latch import Latch
from orchestrator.delivery.publisher import Outgoing, send_all
from orchestrator.delivery.recording import record_batch
from orchestrator.delivery.signer_watch import SignerWatch
from orchestrator.delivery.trust_publishing import TrustPublishing
from orchestrator.delivery.upkeep import sweep
from orchestrator.errors import SignerAwayError
from orchestrator.storage import dirty, removals
from orchestrator.storage.database import Database
from orchestrator.storage.dirty import Mark
from protocol.clock import Clock
from protocol.mqtt.connection import Session
from protocol.topics import Kind, Topics

log = structlog.get_logger(__name__)

BATCH = 100
"""Directives under one latch: what a halt waits for at most."""
UPKEEP_S = 30.0
DIRECTIVE_KINDS = (Kind.TRUST_ROOT, Kind.TRUST_BUNDLE, Kind.TRUST_TIMESTAMP, Kind.ANNOUNCE, Kind.OFFER)
"""In this order: a hold leaves before offers."""


@dataclass(kw_only=True)
class DirectiveSending:
    """One broker's directives.

    Attributes:
        caught_up: No directive waits, as far as is known.
    """

    db: Database
    broker: str
    topics: Topics
    timing: TimingSettings
    clock: Clock
    latch: Latch
    watch: SignerWatch
    directives: Directives
    trust: TrustPublishing
    woken: asyncio.Event = field(default_factory=asyncio.Event)
    caught_up: bool = False

    async def run(self, session: Session) -> None:
        """Send what is marked, until the connection ends.

        Raises:
            ConnectionLost: What was not recorded stays marked; the latch is held until the connection is closed.
        """
        upkeep_at = 0.0
        while True:
            self.woken.clear()
            await self.latch.take()
            try:
                more = await self._send_batch(session)
                if self.clock.monotonic() >= upkeep_at:
                    await self._keep_up(session)
                    upkeep_at = self.clock.monotonic() + self._upkeep_s
            except SignerAwayError as error:  # what is marked stays marked; nothing is on its way
                await self.watch.away(error)
                more = False
            self.caught_up = not more
            self.latch.settle()  # only here: after a failure it is held until the connection is closed
            if not more:
                try:
                    async with asyncio.timeout(self.timing.tick_s):
                        await self.woken.wait()
                except TimeoutError:
                    pass

    async def _send_batch(self, session: Session) -> bool:
        """Render, sign, publish and record one batch; returns whether there may be more. Who marks later wakes us."""
        async with self.directives.once.lock:
            marks, rows = await self.db.look(self._take_marks)
            is_trust = bool(marks) and marks[0][0] in TRUST
            batch = SignedBatch() if is_trust else await self._sign(marks, rows)
        if not marks:
            return False
        if is_trust:  # it names the keys of what is sent later
            await self.trust.publish(session, force=True)
        await self.watch.answered(batch.refused, batch.announced)
        await send_all(session, batch.messages)
        later = set(batch.later)
        done = [mark for mark in marks if mark not in later]
        now = self.clock.now()
        await self.db.write(lambda conn: record_batch(conn, self.broker, self.topics, batch, done, now))
        if batch.later:
            log.info("offers wait for the signer's limit", marks=len(batch.later), retry_s=round(batch.retry_s, 3))
        log.debug("directives sent", broker=self.broker, marks=len(done), sent=len(batch.messages))
        # An announcement marks offers that were kept back; what the signer kept back waits for the next tick.
        return bool(done) and (is_trust or len(marks) == BATCH or bool(batch.announced))

    async def _sign(self, marks: list[Mark], rows: Rows) -> SignedBatch:
        now = self.clock.now()
        drafted = self.directives.draft(marks, rows, now)
        return await self.directives.sign(drafted, rows, now)

    async def _take_marks(self, conn: AsyncConnection) -> tuple[list[Mark], Rows]:
        """(marks of trust topics alone, or of others; what these are rendered from)."""
        marks = await dirty.take(conn, self.broker, DIRECTIVE_KINDS, BATCH)
        if trust := [mark for mark in marks if mark[0] in TRUST]:
            return trust, await self.directives.load(conn, self.broker, ())
        return marks, await self.directives.load(conn, self.broker, marks)

    async def _keep_up(self, session: Session) -> None:
        """Renew the timestamp before it runs out; clear topics when all that was signed for them has expired."""
        await self.watch.try_again()
        await self.trust.keep_fresh(session)
        await self.watch.answered()
        now = self.clock.now()
        async with self.db.begin() as conn:
            cleared = await sweep(conn, self.broker, self.topics, now)
        if cleared:
            await send_all(session, [Outgoing(kind=i.kind, topic=i.topic, payload=b"") for i in cleared])
            async with self.db.begin() as conn:
                await removals.cleared(conn, self.broker, cleared, now)
                await removals.trim(conn, self.broker, now - timedelta(seconds=self.timing.removals_kept_s))
            log.info("topics cleared", broker=self.broker, topics=len(cleared))

    @property
    def _upkeep_s(self) -> float:
        return min(UPKEEP_S, self.timing.lease_s / 4, self.timing.timestamp_renew_s / 2)
