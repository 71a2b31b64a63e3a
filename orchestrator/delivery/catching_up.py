"""One broker's releases: brought when they are published, and later where the broker was not there or was full.

What nobody needs any more by then is not brought: ``ChunkKeeper`` would clear it again.
"""

import asyncio

import structlog

from orchestrator.delivery.chunk_keeper import ChunkKeeper
from orchestrator.delivery.trust_publishing import TrustPublishing
from orchestrator.errors import OperationError
from orchestrator.storage import brokers, releases
from orchestrator.storage.database import Database
from protocol.mqtt.connection import Session

log = structlog.get_logger(__name__)

AGAIN_S = 30.0
"""How often a release that could not be completed is tried again."""


class CatchingUp:
    """One at a time: a person and the connection may both ask."""

    def __init__(self, db: Database, broker: str, chunks: ChunkKeeper, trust: TrustPublishing) -> None:
        self._db = db
        self._broker = broker
        self._chunks = chunks
        self._trust = trust
        self._one_at_a_time = asyncio.Lock()
        self.woken = asyncio.Event()
        self.why = ""
        """What keeps the broker from having a release; "" for nothing."""

    async def bring(self, session: Session, release: str) -> int:
        """Chunks that the broker lacks, then the trust metadata that names the release.

        Returns:
            Ciphertext bytes that were sent; each was read back.

        Raises:
            ConnectionLost: What was recorded is there.
            OperationError: The broker is full, or does not retain.
        """
        async with self._one_at_a_time:
            sent = await self._chunks.publish(session, release)
            await self._trust.publish(session)
            async with self._db.begin() as conn:
                await releases.release_published(conn, release, sent)
                await brokers.catch_up(conn, self._broker, release)
        return sent

    async def run(self, session: Session) -> None:
        """Bring what the broker lacks, until the connection ends.

        Raises:
            ConnectionLost: It goes on with the next connection.
        """
        while True:
            self.woken.clear()
            async with self._db.read() as conn:
                lacking = await brokers.lacking(conn, self._broker)
            found = [await self._try(session, release) for release in lacking]
            self.why = next(filter(None, found), "")
            try:
                async with asyncio.timeout(AGAIN_S if self.why else None):
                    await self.woken.wait()
            except TimeoutError:
                pass

    async def _try(self, session: Session, release: str) -> str:
        """Why it could not be brought; "" when it was, or when nobody needs it any more."""
        if not await self._chunks.is_needed(release):
            async with self._db.begin() as conn:
                await brokers.catch_up(conn, self._broker, release)
            log.info("release not caught up: nobody needs it", broker=self._broker, release=release)
            return ""
        try:
            sent = await self.bring(session, release)
        except OperationError as error:
            if str(error) != self.why:
                log.error("release not completed", broker=self._broker, release=release, why=str(error))
            return str(error)
        log.info("release caught up", broker=self._broker, release=release, sent_bytes=sent)
        return ""
