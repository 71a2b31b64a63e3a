"""Keeps one broker in agreement with the database.

    connect -> how far is it? -> clear, mark -> (directives | status | chunks | releases), until the connection ends

Directives are rendered from rows at send time, one batch at a time under the latch, so nothing that was offered
before a halt leaves after its barrier. Every broker has a delivery of its own, and none waits for another.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, field
from random import Random

import structlog

from orchestrator.config import Home, Settings
from orchestrator.delivery.broker_access import service_connection
from orchestrator.delivery.catching_up import CatchingUp
from orchestrator.delivery.certificates import CertificatePublishing
from orchestrator.delivery.chunk_keeper import ChunkKeeper
from orchestrator.delivery.chunk_publishing import Chunks
from orchestrator.delivery.directive_sending import DirectiveSending
from orchestrator.delivery.directives import Directives
from orchestrator.delivery.healing import clear_again, mark_later
from orchestrator.delivery.latch import Latch
from orchestrator.delivery.marker import published_up_to
from orchestrator.delivery.readback import ReadBack
from orchestrator.delivery.signed_once import SignedOnce
from orchestrator.delivery.signer_watch import SignerWatch
from orchestrator.delivery.status_topics import StatusTopics
from orchestrator.delivery.trust_publishing import TrustPublishing
from orchestrator.errors import NotFoundError, OperationError, UnreachableError
from orchestrator.metrics import Metrics
from orchestrator.signer.seam import SigningRoom
from orchestrator.storage import dirty, published, releases
from orchestrator.storage.database import Database
from protocol.clock import Clock
from protocol.mqtt.connection import ConnectionLost, RequestRefused, Session, backoff, connect
from protocol.topics import DELIVERY, Kind, Topics

log = structlog.get_logger(__name__)

CONNECT_WAIT_S = 60.0
MARKER_WAIT_S = 1.0
PUBLISH_TRIES = 10
CUT = "cut off: a halt waited for it"


@dataclass(frozen=True)
class Shared:
    """What the deliveries of one fleet have in common."""

    watch: SignerWatch
    once: SignedOnce
    renewing: asyncio.Lock = field(default_factory=asyncio.Lock)


class Delivery:
    """One broker's delivery session."""

    def __init__(
        self, db: Database, home: Home, settings: Settings, signer: SigningRoom, chunk_store: Chunks, clock: Clock,
        on_trust: Callable[[], Awaitable[None]] | None = None, shared: Shared | None = None,
        metrics: Metrics | None = None,
    ) -> None:  # fmt: skip
        """``shared`` is for one of several: ``settings`` then are those of its own broker."""
        self._db = db
        self._home = home
        self._settings = settings
        self._clock = clock
        self.broker = settings.broker.name
        self._topics = topics = Topics(settings.fleet)
        self._readback = ReadBack()
        self._latch = Latch()
        shared = shared or Shared(SignerWatch(db, home, signer, clock), SignedOnce([self.broker]))
        self._watch = shared.watch
        self._chunks = ChunkKeeper(
            db, settings.broker, settings, chunk_store, topics, self._readback, clock, metrics or Metrics()
        )
        self._trust = TrustPublishing(
            db, home, settings, signer, topics, self._readback, clock, on_trust, shared.renewing
        )
        self._directives = DirectiveSending(
            db=db, broker=self.broker, topics=topics, timing=settings.timing, clock=clock, latch=self._latch,
            watch=self._watch, directives=Directives(topics, settings, signer, shared.once), trust=self._trust,
        )  # fmt: skip
        self._releases = CatchingUp(db, self.broker, self._chunks, self._trust)
        self._status = StatusTopics(db, settings, topics, clock, lambda: self.signer_trouble)
        self._random = Random()
        self._connected = asyncio.Event()
        self._session: Session | None = None
        self._connection: asyncio.Task[None] | None = None
        self._cut = False
        self._lost = ""

    @property
    def why(self) -> str:
        """Why the broker is not reached, lacks a release or does not keep chunks; "" when all is well."""
        return self._lost or self._releases.why or self._chunks.why

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
        self._directives.woken.set()

    def want(self, cids: Collection[str]) -> None:
        """Devices miss these chunks, and may have them."""
        self._chunks.wants.add(cids)

    def look_for_releases(self) -> None:
        """It lacks a release: bring it."""
        self._releases.woken.set()

    async def barrier(self, timeout_s: float | None = None) -> bool:
        """Wait until sends in flight have ended; what is rendered later sees what was written before this call.

        Args:
            timeout_s: After which the connection is cut, so that nothing of it is sent any more.

        Returns:
            Whether they ended by themselves.
        """
        try:
            async with asyncio.timeout(timeout_s):
                await self._latch.barrier()
                return True
        except TimeoutError:
            log.warning("connection cut", broker=self.broker, why="a halt waited for it")
            self._lost, self._cut = CUT, True
            if self._session is not None:
                self._session.abort(CUT)
            if self._connection is not None:
                self._connection.cancel()
            await self._latch.barrier()
            return False

    async def run(self) -> None:
        """Connect, again and again, and keep the broker right until cancelled.

        Raises:
            OperationError: The signer's marks are below what was published, or the home's trust folder is incomplete.
        """
        await self._watch.until_begun(self._settings.timing.tick_s)
        attempt = 0
        while True:
            connected_at = self._clock.monotonic()
            # In a task of its own: a group that failed leaves its task marked as cancelled (Python 3.11.2), and no
            # timeout in that task would be one any more.
            self._connection = asyncio.create_task(self._run_once())
            try:
                await self._connection
            except asyncio.CancelledError:
                task = asyncio.current_task()
                if not self._cut or (task is not None and task.cancelling()):  # this is meant for us
                    raise
            except (ConnectionLost, RequestRefused, OperationError) as error:
                self._lost = str(error)
            except BaseExceptionGroup as group:
                expected, others = group.split((ConnectionLost, RequestRefused, OperationError))
                if others is not None or expected is None:
                    raise
                self._lost = "; ".join(str(error) for error in _leaves(expected))
            log.warning("delivery interrupted", broker=self.broker, why=self._lost[:500])
            self._cut = False
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
        await self._require_release(release_id)
        for _ in range(PUBLISH_TRIES):
            session = await self._live_session()
            try:
                sent += await self._releases.bring(session, release_id)
                break
            except (ConnectionLost, RequestRefused) as error:
                log.warning("publishing interrupted", broker=self.broker, release=release_id, why=str(error))
                await asyncio.sleep(0.2)
        else:
            raise UnreachableError(
                f"broker {self.broker}: lost {PUBLISH_TRIES} times while publishing {release_id}; publish it again"
            )
        log.info("release published", broker=self.broker, release=release_id, sent_bytes=sent)
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
        read_back_s = self._settings.timing.read_back_s
        async with self._db.read() as conn:
            last = await published.last_serial(conn, self.broker)
        marker = await self._readback.fetch(session, [topic], min(MARKER_WAIT_S, read_back_s))
        if not marker and last:  # it had one: a slow broker is not taken for one that lost everything
            marker = await self._readback.fetch(session, [topic], read_back_s)
        known = published_up_to(marker.get(topic), self._db.id, last)
        log.info("broker reached", broker=self.broker, known_serial=known, last_serial=last)
        self._status.begin(known)
        await self._mark_later(known, last)
        cleared = await clear_again(self._db, session, self.broker, after=known)
        if cleared:
            log.info("topics cleared again", broker=self.broker, topics=cleared)
        await self._chunks.begin(known, last)
        self._status.healed()  # what was lost is marked, or stands in the audit
        self._directives.caught_up = False
        self._session = session
        self._lost = ""
        self._connected.set()
        self.wake()
        group.create_task(self._directives.run(session))
        group.create_task(self._send_status(session))
        certificates = CertificatePublishing(self._db, self.broker, self._topics, self._clock)
        group.create_task(certificates.run(session, self._settings.timing.tick_s))
        group.create_task(self._chunks.run(session, lambda: self._directives.caught_up))
        group.create_task(self._releases.run(session))

    async def _mark_later(self, known: int, last: int) -> None:
        """Mark what the broker may have lost, but for chunks."""
        after, now = known, self._clock.now()
        while after < last:
            async with self._db.begin() as conn:
                after = await mark_later(conn, self.broker, self._topics, now, after=after, up_to=last)
        if known == 0:
            async with self._db.begin() as conn:
                for kind in (Kind.TRUST_BUNDLE, Kind.STATUS_FLEET):
                    await dirty.mark(conn, kind, [""], now, only=self.broker)

    async def _read(self, session: Session) -> None:
        async for message in session.messages():
            self._readback.deliver(message)

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
                f"broker {self.broker}: no connection in {CONNECT_WAIT_S:g} s; see that it runs, then publish again"
            ) from None
        return self._session


def _leaves(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    found: list[BaseException] = []
    for error in group.exceptions:
        found += _leaves(error) if isinstance(error, BaseExceptionGroup) else [error]
    return found
