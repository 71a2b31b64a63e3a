"""Keeps one broker in agreement with the database.

    connect -> how far is it? -> heal -> (directives | status | chunks | upkeep), until the connection ends

Directives are rendered from rows at send time, one batch at a time under the latch, so nothing that was offered
before a halt leaves after its barrier. Marks are removed only when the broker has acknowledged and the row is written.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection
from random import Random

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from orchestrator.config import Home, Settings
from orchestrator.delivery.broker_access import service_connection
from orchestrator.delivery.certificates import CertificatePublishing
from orchestrator.delivery.chunk_keeper import ChunkKeeper
from orchestrator.delivery.chunk_publishing import Chunks
from orchestrator.delivery.directives import Directives, Rows, SignedBatch
from orchestrator.delivery.healing import TRUST, mark_later
from orchestrator.delivery.latch import Latch
from orchestrator.delivery.marker import published_up_to
from orchestrator.delivery.publisher import Outgoing, send_all
from orchestrator.delivery.readback import ReadBack
from orchestrator.delivery.recording import record_batch
from orchestrator.delivery.signer_watch import SignerWatch
from orchestrator.delivery.status_topics import StatusTopics
from orchestrator.delivery.trust_publishing import TrustPublishing
from orchestrator.delivery.upkeep import sweep
from orchestrator.errors import NotFoundError, OperationError, SignerAwayError, UnreachableError
from orchestrator.metrics import Metrics
from orchestrator.signer.seam import SigningRoom
from orchestrator.storage import dirty, published, releases
from orchestrator.storage.database import Database
from orchestrator.storage.dirty import Mark
from protocol.clock import Clock
from protocol.mqtt.connection import ConnectionLost, RequestRefused, Session, backoff, connect
from protocol.topics import DELIVERY, Kind, Topics

log = structlog.get_logger(__name__)

BATCH = 100
"""Directives under one latch: what a halt waits for at most."""
CONNECT_WAIT_S = 60.0
MARKER_WAIT_S = 1.0
UPKEEP_S = 30.0
PUBLISH_TRIES = 10
DIRECTIVE_KINDS = (Kind.TRUST_ROOT, Kind.TRUST_BUNDLE, Kind.TRUST_TIMESTAMP, Kind.ANNOUNCE, Kind.OFFER)
"""In this order: a hold leaves before offers."""


class Delivery:
    """One broker's delivery session."""

    def __init__(
        self, db: Database, home: Home, settings: Settings, signer: SigningRoom, chunk_store: Chunks, clock: Clock,
        on_trust: Callable[[], Awaitable[None]] | None = None, metrics: Metrics | None = None,
    ) -> None:  # fmt: skip
        self._db = db
        self._home = home
        self._settings = settings
        self._clock = clock
        self._broker = settings.broker.name
        self._topics = Topics(settings.fleet)
        self._readback = ReadBack()
        self._latch = Latch()
        self._watch = SignerWatch(db, home, signer, clock)
        self._directives = Directives(self._topics, settings, signer)
        self._chunks = ChunkKeeper(
            db, settings.broker, settings, chunk_store, self._topics, self._readback, clock, metrics or Metrics()
        )
        self._trust = TrustPublishing(db, home, settings, signer, self._topics, self._readback, clock, on_trust)
        self._status = StatusTopics(db, settings, self._topics, clock, lambda: self.signer_trouble)
        self._random = Random()
        self._woken = asyncio.Event()
        self._connected = asyncio.Event()
        self._publishing = asyncio.Lock()
        self._session: Session | None = None
        self._caught_up = False  # no directive waits, as far as is known

    @property
    def connected(self) -> bool:
        """Whether the broker is reached and what it holds is known."""
        return self._connected.is_set()

    @property
    def signer_trouble(self) -> str:
        """What keeps the signer from signing, for people; "" when all is well."""
        return self._watch.trouble

    def wake(self) -> None:
        """There are new marks: look at once."""
        self._woken.set()

    def want(self, cids: Collection[str]) -> None:
        """Devices miss these chunks, and may have them."""
        self._chunks.wants.add(cids)

    async def barrier(self) -> None:
        """Wait until sends in flight have ended; what is rendered later sees what was written before this call."""
        await self._latch.barrier()

    async def run(self) -> None:
        """Connect, again and again, and keep the broker right until cancelled.

        Raises:
            OperationError: The signer's marks are below what was published, or the home's trust folder is incomplete.
        """
        await self._watch.until_begun(self._settings.timing.tick_s)
        attempt = 0
        while True:
            connected_at = self._clock.monotonic()
            try:
                # In a task of its own: a group that failed leaves its task marked as cancelled (Python 3.11.2), and no
                # timeout in that task would be one any more.
                await asyncio.create_task(self._run_once())
            except* (ConnectionLost, RequestRefused, OperationError) as group:
                why = "; ".join(str(error) for error in _leaves(group))
                log.warning("delivery interrupted", broker=self._broker, why=why[:500])
            attempt = 0 if self._clock.monotonic() - connected_at > 10 else attempt + 1
            await asyncio.sleep(backoff(attempt, self._random, base_s=0.2, cap_s=30.0))

    async def publish_release(self, release_id: str) -> int:
        """Bring a release to the broker: chunks that it lacks, then the trust metadata that names it.

        Returns:
            Ciphertext bytes that were sent; each was read back.

        Raises:
            OperationError: The broker is not reached, is full, or does not retain; calling again goes on from there.
        """
        sent = 0
        async with self._publishing:
            await self._require_release(release_id)
            for _ in range(PUBLISH_TRIES):
                session = await self._live_session()
                try:
                    sent += await self._chunks.publish(session, release_id)
                    await self._trust.publish(session)
                    break
                except (ConnectionLost, RequestRefused) as error:
                    log.warning("publishing interrupted", release=release_id, why=str(error))
                    await asyncio.sleep(0.2)
            else:
                raise UnreachableError(
                    f"broker {self._broker}: lost {PUBLISH_TRIES} times while publishing {release_id}; publish it again"
                )
            async with self._db.begin() as conn:
                await releases.release_published(conn, release_id, sent)
        log.info("release published", release=release_id, sent_bytes=sent)
        return sent

    async def _run_once(self) -> None:
        """One connection."""
        try:
            target = await asyncio.to_thread(service_connection, self._home, self._settings, DELIVERY)
            async with connect(target) as session, asyncio.TaskGroup() as group:
                group.create_task(self._read(session))
                await self._begin(session, group)
        finally:
            self._session = None
            self._connected.clear()
            self._latch.settle()  # the connection is closed: nothing is on its way

    async def _begin(self, session: Session, group: asyncio.TaskGroup) -> None:
        topic = self._topics.build(Kind.STATUS_SYNC)
        marker = await self._readback.fetch(session, [topic], min(MARKER_WAIT_S, self._settings.timing.read_back_s))
        async with self._db.read() as conn:
            last = await published.last_serial(conn, self._broker)
        known = published_up_to(marker.get(topic), self._db.id, last)
        log.info("broker reached", broker=self._broker, known_serial=known, last_serial=last)
        self._status.begin(known)
        await self._mark_later(known, last)
        await self._chunks.begin(known, last)
        self._status.healed()  # what was lost is marked, or stands in the audit
        self._caught_up = False
        self._session = session
        self._connected.set()
        self._woken.set()
        group.create_task(self._send_directives(session))
        group.create_task(self._send_status(session))
        certificates = CertificatePublishing(self._db, self._broker, self._topics)
        group.create_task(certificates.run(session, self._settings.timing.tick_s))
        group.create_task(self._chunks.run(session, lambda: self._caught_up))

    async def _mark_later(self, known: int, last: int) -> None:
        """Mark what the broker may have lost, but for chunks."""
        after = known
        while after < last:
            async with self._db.begin() as conn:
                after = await mark_later(conn, self._broker, self._topics, self._clock.now(), after=after, up_to=last)
        if known == 0:
            async with self._db.begin() as conn:
                await dirty.mark(conn, Kind.TRUST_BUNDLE, [""], self._clock.now())
                await dirty.mark(conn, Kind.STATUS_FLEET, [""], self._clock.now())

    async def _read(self, session: Session) -> None:
        async for message in session.messages():
            self._readback.deliver(message)

    async def _send_directives(self, session: Session) -> None:
        """Directives as they are marked, and upkeep between them."""
        upkeep_at = 0.0
        while True:
            self._woken.clear()
            await self._latch.take()
            try:
                more = await self._send_batch(session)
                if self._clock.monotonic() >= upkeep_at:
                    await self._keep_up(session)
                    upkeep_at = self._clock.monotonic() + self._upkeep_s
            except SignerAwayError as error:  # what is marked stays marked; nothing is on its way
                await self._watch.away(error)
                more = False
            self._latch.settle()  # only here: after a failure it is held until the connection is closed
            self._caught_up = not more
            if not more:
                try:
                    async with asyncio.timeout(self._settings.timing.tick_s):
                        await self._woken.wait()
                except TimeoutError:
                    pass

    async def _send_batch(self, session: Session) -> bool:
        """Render, sign, publish and record one batch; returns whether there may be more. Who marks later wakes us."""
        marks, orders, rows = await self._db.look(self._take_marks)
        if not marks:
            return False
        if len(orders) < len(marks):
            await self._trust.publish(session, force=True)
        batch = SignedBatch()
        if drafted := self._directives.draft(orders, rows, self._clock.now()):
            batch = await self._directives.sign(drafted)
            await self._watch.answered(batch.refused, batch.announced)
        await send_all(session, batch.messages)
        done = [mark for mark in marks if mark not in set(batch.later)]
        now = self._clock.now()
        await self._db.write(lambda conn: record_batch(conn, self._broker, self._topics, batch, done, now))
        if batch.later:
            log.info("offers wait for the signer's limit", marks=len(batch.later), retry_s=round(batch.retry_s, 3))
        log.debug("directives sent", marks=len(done), sent=len(batch.messages))
        # An announcement marks offers that were kept back; what the signer kept back waits for the next tick.
        return bool(done) and (len(marks) == BATCH or bool(batch.announced))

    async def _take_marks(self, conn: AsyncConnection) -> tuple[list[Mark], list[Mark], Rows]:
        """(all marks, those that are not of trust topics, what these are rendered from)."""
        marks = await dirty.take(conn, DIRECTIVE_KINDS, BATCH)
        orders = [mark for mark in marks if mark[0] not in TRUST]
        return marks, orders, await self._directives.load(conn, self._broker, orders)

    async def _keep_up(self, session: Session) -> None:
        """Renew the timestamp before it runs out; clear topics when all that was signed for them has expired."""
        await self._watch.try_again()
        await self._trust.keep_fresh(session)
        await self._watch.answered()
        async with self._db.begin() as conn:
            cleared = await sweep(conn, self._broker, self._topics, self._clock.now())
        if cleared:
            await send_all(session, [Outgoing(kind=i.kind, topic=i.topic, payload=b"") for i in cleared])
            async with self._db.begin() as conn:
                await published.forget(conn, self._broker, [item.topic for item in cleared])
            log.info("topics cleared", topics=len(cleared))

    async def _send_status(self, session: Session) -> None:
        while True:
            await self._status.send(session)
            await asyncio.sleep(self._settings.timing.status_interval_s)

    async def _require_release(self, release_id: str) -> None:
        async with self._db.read() as conn:
            if release_id not in await releases.release_facts(conn, [release_id]):
                raise NotFoundError(f"release {release_id}: not imported here; see 'flagship release list'")

    async def _live_session(self) -> Session:
        try:
            async with asyncio.timeout(CONNECT_WAIT_S):
                while self._session is None:
                    await self._connected.wait()
        except TimeoutError:
            raise UnreachableError(
                f"broker {self._broker}: no connection in {CONNECT_WAIT_S:g} s; see that it runs, then publish again"
            ) from None
        return self._session

    @property
    def _upkeep_s(self) -> float:
        return min(UPKEEP_S, self._settings.timing.lease_s / 4, self._settings.timing.timestamp_renew_s / 2)


def _leaves(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    found: list[BaseException] = []
    for error in group.exceptions:
        found += _leaves(error) if isinstance(error, BaseExceptionGroup) else [error]
    return found
