"""The reading session: collects what arrives for a moment, checks it in a thread, writes it in one transaction.

Nothing that a device sends ends this: what is wrong is counted and dropped. When the session was away, reports may be
lost; then a new generation is announced on its broker, and the devices there say their level again.
"""

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from random import Random
from typing import TypeVar

import structlog

from orchestrator.config import Home, Settings
from orchestrator.delivery.broker_access import service_connection
from orchestrator.errors import ConflictError, LostLeadError, OperationError
from orchestrator.fleet.renewal import use_new_keys
from orchestrator.ingest.device_keys import DeviceKeys
from orchestrator.ingest.parse import KINDS, Checked, check, device_of
from orchestrator.ingest.reading import read_for_ever
from orchestrator.ingest.rejects import Rejects
from orchestrator.ingest.silence import Engine, SilenceWatch
from orchestrator.ingest.want_gate import WantGate
from orchestrator.metrics import Metrics
from orchestrator.storage import dirty, published
from orchestrator.storage.database import Database
from orchestrator.storage.reports import Incoming, apply_batch
from protocol.clock import Clock
from protocol.errors import ProtocolError
from protocol.mqtt.connection import Message, Session, connect
from protocol.topics import INGEST, RULES, Kind, Topics

log = structlog.get_logger(__name__)

MAX_BATCH = 500
MAX_QUEUED = 20_000
LEVEL_EVERY_S = 60.0
"""The least time between two generations of one connection: devices that say their level must not overflow it again."""
_RETRY_S = 1.0
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Heard:
    """What the reading sessions of one fleet have in common: a device may speak through any broker."""

    keys: DeviceKeys
    silence: SilenceWatch
    rejects: Rejects

    @classmethod
    def of(
        cls,
        db: Database,
        settings: Settings,
        clock: Clock,
        wake_delivery: Callable[[], None],
        engine: Engine | None = None,
    ) -> "Heard":
        """For a fleet."""
        silence = SilenceWatch(db, settings.timing.silent_after_s, clock, wake_delivery, engine)
        return cls(DeviceKeys(db), silence, Rejects(clock))


class Ingest:
    """One broker's reading session."""

    def __init__(
        self,
        db: Database,
        home: Home,
        settings: Settings,
        clock: Clock,
        wake_delivery: Callable[[], None],
        wake_controller: Callable[[], None],
        shared: Heard | None = None,
        want: Callable[[Collection[str]], object] = len,
        metrics: Metrics | None = None,
    ) -> None:
        """``shared`` is for one of several: ``settings`` then are those of its own broker."""
        self._db = db
        self._home = home
        self._settings = settings
        self.broker = settings.broker.name
        self._clock = clock
        self._wake_delivery = wake_delivery
        self._wake_controller = wake_controller
        self._topics = Topics(settings.fleet)
        self._random = Random()
        self._dropped = 0
        self._generation_at = 0.0
        shared = shared or Heard.of(db, settings, clock, wake_delivery)
        self.keys, self.silence, self.rejects = shared.keys, shared.silence, shared.rejects
        self._want = want  # nobody's by default
        self._metrics = metrics or Metrics()
        self._gate = WantGate(clock, settings.chunks, self._metrics.add_wants_dropped)
        self.taken = 0

    async def run(self) -> None:
        """Connect, again and again, and take in reports until cancelled."""
        await read_for_ever(self._run_once, f"ingest of {self.broker}", self._clock, self._random)

    async def _run_once(self) -> None:
        target = await asyncio.to_thread(
            service_connection, self._home, self._settings, INGEST, max_queued=MAX_QUEUED, mqtt5=False
        )
        async with connect(target) as session:
            await session.subscribe([(self._topics.filter(kind), RULES[kind].qos) for kind in KINDS])
            self._dropped = 0
            await self._insist(self._begin_generation)
            self.silence.listens()
            try:
                async for message in session.messages():
                    await self._collect(session, message)
            finally:
                self.silence.is_deaf()

    async def _begin_generation(self) -> None:
        generation = secrets.token_hex(8)
        async with self._db.begin() as conn:
            await published.set_ingest_generation(conn, self.broker, generation)
            await dirty.mark(conn, Kind.STATUS_SYNC, [""], self._clock.now(), only=self.broker)
        log.info("ingest listens", broker=self.broker, generation=generation)
        self._generation_at = self._clock.monotonic()
        self._wake_delivery()

    async def _collect(self, session: Session, first: Message) -> None:
        await asyncio.sleep(self._settings.timing.ingest_batch_s)
        waiting = session.drain()
        batch = [first, *islice(waiting, MAX_BATCH - 1)]
        while batch:
            await self.take(batch)
            batch = list(islice(waiting, MAX_BATCH))
        await self._make_good(session)

    async def _make_good(self, session: Session) -> None:
        """What came faster than it was read is lost: devices say their level again."""
        lost = session.dropped - self._dropped
        if lost and self._clock.monotonic() - self._generation_at >= LEVEL_EVERY_S:
            self._dropped += lost
            self.rejects.add("overflow", "up/+", "more came than was taken in", count=lost)
            await self._insist(self._begin_generation)

    async def take(self, messages: Sequence[Message]) -> None:
        """Check and write one batch; waits while the database does not do what it is told."""
        known = self._known(messages)
        await self._insist(lambda: self.keys.load([device for device, _ in known]))
        checked = self._gate.admit(await asyncio.to_thread(self._check, [message for _, message in known]))
        await self._use_new_keys()
        if checked:
            await self._store([Incoming(item.device, item.content, item.digest) for item in checked])

    async def _insist(self, work: Callable[[], Awaitable[T]]) -> T:
        """Try until the database does it; what it will never do is raised."""
        while True:
            try:
                return await work()
            except ConflictError:
                raise
            except OperationError as error:
                log.error("database failed", why=str(error), retry_s=_RETRY_S)
                await asyncio.sleep(_RETRY_S)

    async def _store(self, batch: Sequence[Incoming]) -> None:
        """Write a batch; a report that the database never takes is found by halving and dropped alone."""
        work = partial(apply_batch, batch=batch, now=self._clock.now())
        try:
            applied = await self._insist(lambda: self._db.write(work))
        except LostLeadError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever one report does to the database, the others are stored
            if len(batch) > 1:
                await self._store(batch[: len(batch) // 2])
                await self._store(batch[len(batch) // 2 :])
            else:
                device = batch[0].device
                self.rejects.add("not_stored", f"up/{device}", f"{type(error).__name__}: {error}", device=device)
            return
        self.taken += len(batch)
        for reason, device in applied.rejected:
            self.rejects.add(reason, f"up/{device}", device=device)
        for reason, count in applied.wants_refused.items():
            self._metrics.add_wants_dropped(reason, count)
        if applied.wanted:
            self._want(applied.wanted)
        if applied.for_delivery:
            self._wake_delivery()
        if applied.for_engine:
            self._wake_controller()

    def _known(self, messages: Sequence[Message]) -> list[tuple[str, Message]]:
        found = []
        for message in messages:
            try:
                found.append((device_of(self._topics, message), message))
            except (ProtocolError, ValueError) as error:
                self._reject(message, error)
        return found

    def _check(self, messages: Sequence[Message]) -> list[Checked]:
        """Signatures: some 100 µs each, in a thread."""
        checked = []
        for message in messages:
            try:
                checked.append(check(self._topics, message, self.keys.get))
            except Exception as error:  # noqa: BLE001 - whatever a message does to a parser, the next one is taken
                self._reject(message, error)
        return checked

    def _reject(self, message: Message, error: Exception) -> None:
        reason = error.code.value if isinstance(error, ProtocolError) else type(error).__name__
        detail = error.detail if isinstance(error, ProtocolError) else str(error)
        self.rejects.add(reason, message.topic, detail, device=self._speaker(message.topic))

    def _speaker(self, topic: str) -> str:
        """The enrolled device in whose name something came; empty where there is none."""
        try:
            device = self._topics.parse(topic).values.get("device", "")
        except ProtocolError:
            return ""
        return device if self.keys.get(device) else ""

    async def _use_new_keys(self) -> None:
        """Devices that were heard under renewed keys: the old ones count no more, and offers are wrapped anew."""
        while self.keys.heard_new:
            device, keyid = next(iter(self.keys.heard_new.items()))
            try:
                await use_new_keys(self._db, self._clock, device, keyid)
            except OperationError as error:
                log.error("new keys not taken in use", device_id=device, why=str(error))
            else:
                self.keys.forget(device)
                self._wake_delivery()
            self.keys.heard_new.pop(device, None)  # another session may have been here
