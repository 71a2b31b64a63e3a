"""Whether a broker still has its chunks: read back in windows, and published again where they are lost or different.

What the broker's marker leaves in doubt is looked at first and at once; everything is looked at in a slow round. How
far both are stands in the database, a page at a time: whoever begins anew goes on from there.
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

import structlog

from orchestrator.config_brokers import BrokerSettings, ChunkSettings
from orchestrator.delivery.chunk_pace import Pace
from orchestrator.delivery.chunk_publishing import PAGE, ChunkPublishing
from orchestrator.delivery.readback import WINDOW
from orchestrator.metrics import Metrics
from orchestrator.storage import chunk_audits
from orchestrator.storage.chunk_audits import Audit
from orchestrator.storage.database import Database
from protocol.clock import Clock
from protocol.mqtt.connection import Session

log = structlog.get_logger(__name__)


class ChunkAudit:
    """One broker's audit."""

    def __init__(
        self, db: Database, broker: BrokerSettings, settings: ChunkSettings, chunks: ChunkPublishing, metrics: Metrics,
        clock: Clock,
    ) -> None:  # fmt: skip
        self._db = db
        self._name = broker.name
        self._every = timedelta(seconds=settings.audit_s)
        self._chunks = chunks
        self._metrics = metrics
        self._clock = clock
        self._pace = Pace(clock, broker.audit_bytes_s)
        self._audit = Audit()
        self._page: list[str] = []  # of one of the two, never of both
        self._page_end: int | str = 0

    async def begin(self, known: int, last: int) -> None:
        """A new connection: all that was published after ``known``, up to ``last``, is in doubt."""
        async with self._db.begin() as conn:
            audit = await chunk_audits.load(conn, self._name)
            if known < last:
                after = min(known, audit.heal_after) if audit.heal_after < audit.heal_up_to else known
                audit = replace(audit, heal_after=after, heal_up_to=last)
            if audit.heal_up_to > last:  # an older database was put back
                audit = replace(audit, heal_after=min(audit.heal_after, last), heal_up_to=last)
            if audit.began_at is None:
                audit = replace(audit, began_at=self._clock.now())
            await chunk_audits.save(conn, self._name, audit)
        self._audit, self._page = audit, []

    @property
    def is_healing(self) -> bool:
        """Whether something that the broker may have lost was not looked at yet."""
        return self._audit.heal_after < self._audit.heal_up_to

    async def heal(self, session: Session) -> int:
        """Look at one window of what is in doubt; bytes that were read and sent for it.

        Raises:
            ConnectionLost: The page is looked at again.
            UnreachableError: The broker does not retain.
        """
        audit = self._audit
        if not self._page:
            async with self._db.read() as conn:
                self._page, self._page_end = await chunk_audits.later_page(
                    conn, self._name, audit.heal_after, audit.heal_up_to, PAGE
                )
        spent = await self._look(session, "lost")
        if not self._page:
            await self._save(replace(audit, heal_after=int(self._page_end)))
            if not self.is_healing:
                log.info("broker's chunks healed", broker=self._name, up_to=audit.heal_up_to)
        return spent

    async def look_around(self, session: Session) -> bool:
        """Look at one window of the round, where it is due and the pace allows it; whether that was done.

        Raises:
            ConnectionLost: The page is looked at again.
            UnreachableError: The broker does not retain.
        """
        audit, now = self._audit, self._clock.now()
        if not audit.after and audit.began_at is not None and now - audit.began_at < self._every:
            return False
        if not self._pace.allows():
            return False
        if not audit.after:
            audit = replace(audit, began_at=now)
        if not self._page:
            async with self._db.read() as conn:
                self._page = await chunk_audits.round_page(conn, self._name, self._chunks.prefix, audit.after, PAGE)
            if not self._page:
                log.info("audit ended", broker=self._name, began_at=audit.began_at)
                await self._save(replace(audit, after=""))
                return True
            self._page_end = self._page[-1]
        self._pace.spend(await self._look(session, "audit"))
        if not self._page:
            await self._save(replace(audit, after=str(self._page_end)))
        return True

    async def _look(self, session: Session, reason: str) -> int:
        topics: Sequence[str] = self._page[:WINDOW]
        lost, spent = await self._chunks.look(session, topics)
        if lost:
            # Between the page and now it may have been cleared, and then it shall not come back.
            lost = await self._chunks.held(lost)
            spent += await self._chunks.publish_again(session, lost)
            self._metrics.add_republished(self._name, reason, len(lost))
            log.warning("chunks published again", broker=self._name, reason=reason, chunks=len(lost))
        self._page = self._page[WINDOW:]
        return spent

    async def _save(self, audit: Audit) -> None:
        async with self._db.begin() as conn:
            await chunk_audits.save(conn, self._name, audit)
        self._audit = audit
