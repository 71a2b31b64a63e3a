"""What dashboards read, rendered from rows when it changed, at most once per interval and topic; and the marker."""

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from orchestrator.config import Settings
from orchestrator.delivery.publisher import Outgoing, send_all
from orchestrator.delivery.status_rendering import device_status, fleet_status, rollout_status
from orchestrator.rollouts.facts import Facts
from orchestrator.storage import assignments, concerns, devices, dirty, fleet_latch, published, releases, rollouts
from orchestrator.storage import events as event_store
from orchestrator.storage.database import Database
from orchestrator.storage.dirty import Mark
from orchestrator.storage.tables import events
from protocol.clock import Clock, rfc3339
from protocol.envelopes import encode
from protocol.mqtt.connection import Session
from protocol.status_messages import StatusEvent, Sync
from protocol.topics import Kind, Topics

BATCH = 200
EVENTS = 100
STATUS_KINDS = (Kind.STATUS_FLEET, Kind.STATUS_ROLLOUT, Kind.STATUS_DEVICE, Kind.STATUS_SYNC)
_TEXT_CHARS = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class _News:
    """What has changed, and how far the broker is."""

    marks: list[Mark]
    items: list[Outgoing]
    happened: Sequence[Outgoing]
    serial: int
    generation: str


class StatusTopics:
    """One broker's status topics."""

    def __init__(
        self, db: Database, settings: Settings, topics: Topics, clock: Clock, signer_trouble: Callable[[], str] = str
    ) -> None:
        self._db = db
        self._fleet = settings.fleet
        self._broker = settings.broker.name
        self._topics = topics
        self._clock = clock
        self._signer_trouble = signer_trouble
        self._generation = secrets.token_hex(4)
        self._event_id: int | None = None
        self._sync: tuple[int, str] | None = None
        self._sizes: dict[str, int] = {}
        self._healing_from: int | None = None

    def begin(self, known: int) -> None:
        """A new connection: the marker stays at what is known until ``healed``."""
        self._healing_from = known
        self._sync = None

    def healed(self) -> None:
        """Everything that the broker lost is there again, or is marked."""
        self._healing_from = None

    async def send(self, session: Session) -> None:
        """Publish what changed since the last call.

        Raises:
            ConnectionLost: What was not recorded is published again.
        """
        news = await self._db.look(self._take)
        await send_all(session, [*news.items, *news.happened])
        serial = news.serial
        if news.marks:
            serial = await self._db.write(partial(self._record, news=news))
        await self._send_marker(session, serial, news.generation)

    async def _take(self, conn: AsyncConnection) -> _News:
        marks = await dirty.take(conn, self._broker, STATUS_KINDS, BATCH)
        rendered = [await self._render(conn, kind, key) for kind, key, _ in marks if kind is not Kind.STATUS_DEVICE]
        shown = await self._render_devices(conn, [key for kind, key, _ in marks if kind is Kind.STATUS_DEVICE])
        happened = await self._new_events(conn)
        serial, generation = await published.progress(conn, self._broker)
        return _News(
            marks=marks,
            items=[*(item for item in rendered if item is not None), *shown],
            happened=happened,
            serial=serial,
            generation=generation or self._generation,
        )

    async def _record(self, conn: AsyncConnection, news: _News) -> int:
        items = [item.publication(keep_payload=False) for item in news.items]
        await dirty.done(conn, self._broker, news.marks)
        return await published.record(conn, self._broker, items)

    async def _render_devices(self, conn: AsyncConnection, ids: Sequence[str]) -> list[Outgoing]:
        """Many devices in two queries."""
        if not ids:
            return []
        now, kind = self._clock.now(), Kind.STATUS_DEVICE
        newest = await assignments.newest(conn, ids)
        return [
            Outgoing(
                kind=kind,
                topic=self._topics.build(kind, device=device.id),
                payload=encode(device_status(device, newest.get(device.id), now)),
            )
            for device in (await devices.get_many(conn, ids)).values()
        ]

    async def _render(self, conn: AsyncConnection, kind: Kind, key: str) -> Outgoing | None:
        now = self._clock.now()
        match kind:
            case Kind.STATUS_FLEET:
                figures, states = await devices.figures(conn), await rollouts.states(conn)
                matters, versions = await concerns.count(conn), await devices.versions(conn)
                latch = await fleet_latch.get(conn)
                halt = f"by {latch.by} at {rfc3339(latch.at)}: {latch.reason}" if latch else ""
                trouble = self._signer_trouble()
                fleet = fleet_status(self._fleet, figures, matters, versions, states, now, trouble, halt)
                return Outgoing(kind=kind, topic=self._topics.build(kind), payload=encode(fleet))
            case Kind.STATUS_ROLLOUT:
                rollout = await rollouts.get(conn, key)
                if rollout is None:
                    return None
                facts = Facts(
                    rollout=rollout,
                    stages=await rollouts.load_stages(conn, key),
                    counts=await assignments.load_counts(conn, key),
                )
                reasons, size = (
                    await rollouts.waiting_reasons(conn, key),
                    await self._image_bytes(conn, rollout.release),
                )
                status = rollout_status(facts, reasons, now, size)
                return Outgoing(kind=kind, topic=self._topics.build(kind, rollout=key), payload=encode(status))
            case _:
                return None  # STATUS_SYNC: the marker is compared on every call

    async def _image_bytes(self, conn: AsyncConnection, release: str) -> int:
        """A release never changes: it is read once."""
        if release not in self._sizes:
            self._sizes[release] = await releases.image_bytes(conn, release)
        return self._sizes[release]

    async def _new_events(self, conn: AsyncConnection) -> Sequence[Outgoing]:
        """Events that were added since the last call; those before the first call are history."""
        if self._event_id is None:
            self._event_id = int(await conn.scalar(select(func.max(events.c.id))) or 0)
            return []
        rows = await event_store.page(conn, after=self._event_id, limit=EVENTS)
        if rows:
            self._event_id = rows[-1]["id"]
        topic = self._topics.build(Kind.STATUS_EVENT)
        return [
            Outgoing(
                kind=Kind.STATUS_EVENT,
                topic=topic,
                payload=encode(
                    StatusEvent(
                        at=row["at"],
                        kind=row["kind"],
                        text=row["text"][:_TEXT_CHARS],
                        rollout=row["rollout"],
                        device=row["device"],
                    )
                ),
            )
            for row in rows
        ]

    async def _send_marker(self, session: Session, serial: int, generation: str) -> None:
        if self._healing_from is not None:
            serial = self._healing_from
        if (serial, generation) == self._sync:
            return
        marker = Sync(at=self._clock.now(), database=self._db.id, serial=serial, ingest=generation)
        topic = self._topics.build(Kind.STATUS_SYNC)
        await send_all(session, [Outgoing(kind=Kind.STATUS_SYNC, topic=topic, payload=encode(marker))])
        self._sync = serial, generation
