"""The trust topics of one broker: renewed when due, published in order, each read back.

Where the metadata comes from and what is due is said in ``trust_topics``.
"""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta

import structlog

from orchestrator.config import Home, Settings
from orchestrator.delivery.publisher import send_proven
from orchestrator.delivery.readback import ReadBack, windows
from orchestrator.delivery.trust_topics import TIMESTAMP_FILE, renew_timestamp, trust_messages
from orchestrator.errors import OperationError
from orchestrator.signer.seam import SigningRoom
from orchestrator.storage import published
from orchestrator.storage.database import Database
from protocol.clock import Clock
from protocol.errors import TrustError
from protocol.mqtt.connection import Session
from protocol.topics import Topics

log = structlog.get_logger(__name__)


class TrustPublishing:
    """One broker's roots, bundle and timestamp. One at a time: an import and the upkeep may both call."""

    def __init__(
        self,
        db: Database,
        home: Home,
        settings: Settings,
        signer: SigningRoom,
        topics: Topics,
        readback: ReadBack,
        clock: Clock,
        on_published: Callable[[], Awaitable[None]] | None = None,
        renewing: asyncio.Lock | None = None,
    ) -> None:
        """Make it.

        Args:
            on_published: Called when the broker has all of it, before any directive that is signed later.
            renewing: Held while the timestamp is looked at; one for all brokers of a home.
        """
        self._db = db
        self._folder = home.trust
        self._broker = settings.broker.name
        self._timing = settings.timing
        self._signer = signer
        self._topics = topics
        self._readback = readback
        self._clock = clock
        self._on_published = on_published
        self._lock = asyncio.Lock()
        self._renewing = renewing or asyncio.Lock()
        self._sent: tuple[int, int] | None = None  # what the timestamp's file was when all of it was sent

    async def publish(self, session: Session, *, force: bool = False) -> None:
        """Roots, bundle, then the timestamp over it; what is there already is passed over, unless ``force``.

        Raises:
            ConnectionLost: Some may have gone out.
            OperationError: The metadata is not there, or the broker does not retain.
        """
        async with self._lock:
            await self._renew()
            await self._publish(session, force=force)

    async def keep_fresh(self, session: Session) -> None:
        """Renew the timestamp before it runs out, and publish it; costs nothing before that.

        Raises:
            ConnectionLost: It is published with the next connection.
            OperationError: As in ``publish``.
        """
        async with self._lock:
            if await self._renew():
                log.info("timestamp renewed")
            if await asyncio.to_thread(self._seen) != self._sent:  # renewed here, or for another broker
                await self._publish(session, force=False)

    async def _renew(self) -> bool:
        renew = timedelta(seconds=self._timing.timestamp_renew_s)
        async with self._renewing:
            return await asyncio.to_thread(renew_timestamp, self._folder, self._signer, self._clock.now(), renew)

    def _seen(self) -> tuple[int, int] | None:
        """Which file the timestamp is; it is replaced by each renewal."""
        try:
            status = (self._folder / TIMESTAMP_FILE).stat()
        except OSError:
            return None  # publishing says what is missing
        return status.st_ino, status.st_mtime_ns

    async def _publish(self, session: Session, *, force: bool) -> None:
        seen = await asyncio.to_thread(self._seen)
        try:
            items = await asyncio.to_thread(trust_messages, self._folder, self._topics)
        except TrustError as error:
            raise OperationError(str(error)) from error
        async with self._db.read() as conn:
            held = await published.get_many(conn, self._broker, [item.topic for item in items])
        news = [
            item
            for item in items
            if force or item.topic not in held or held[item.topic].digest != item.publication(keep_payload=False).digest
        ]
        # The timestamp comes last, alone: whoever sees it finds the bundle that it names.
        for step in [*windows(news[:-1]), news[-1:]]:
            await send_proven(session, self._readback, {item.topic: item for item in step}, self._timing.read_back_s)
        async with self._db.begin() as conn:
            await published.record(conn, self._broker, [item.publication(keep_payload=False) for item in news])
        self._sent = seen
        if self._on_published is not None:
            await self._on_published()
