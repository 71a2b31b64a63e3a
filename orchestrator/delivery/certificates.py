"""``cert/{device}``: certificates on their way, retained until their device was heard under its new key."""

import asyncio

import structlog

from orchestrator.delivery.publisher import Outgoing, send_all
from orchestrator.storage import dirty, published, removals, renewals
from orchestrator.storage.database import Database
from orchestrator.storage.dirty import Mark
from orchestrator.storage.renewals import Renewed
from protocol.clock import Clock
from protocol.enrolment import IssuedCertificate
from protocol.envelopes import encode
from protocol.mqtt.connection import Session
from protocol.topics import Kind, Topics

log = structlog.get_logger(__name__)

BATCH = 100


class CertificatePublishing:
    """One broker's certificates."""

    def __init__(self, db: Database, broker: str, topics: Topics, clock: Clock) -> None:
        self._db = db
        self._clock = clock
        self._broker = broker
        self._topics = topics

    async def run(self, session: Session, tick_s: float) -> None:
        """Send what is marked, until the connection ends.

        Raises:
            ConnectionLost: What was not acknowledged stays marked.
        """
        while True:
            if not await self.send(session):
                await asyncio.sleep(tick_s)

    async def send(self, session: Session) -> int:
        """Publish or clear what is marked; returns how many marks it took.

        Raises:
            ConnectionLost: The marks stay.
        """
        async with self._db.read() as conn:
            marks = await dirty.take(conn, self._broker, (Kind.CERT,), BATCH)
            rows = await renewals.get_many(conn, [device for _, device, _ in marks])
            topics = [self._topic(mark) for mark in marks]
            held = await published.get_many(conn, self._broker, topics)
        if not marks:
            return 0
        wanted = [self._certificate(rows[mark[1]]) for mark in marks if mark[1] in rows]
        gone = [Outgoing(kind=Kind.CERT, topic=topic, payload=b"") for topic in held.keys() - {i.topic for i in wanted}]
        await send_all(session, [*wanted, *gone])
        async with self._db.begin() as conn:
            await published.record(conn, self._broker, [item.publication(keep_payload=False) for item in wanted])
            await removals.cleared(conn, self._broker, [held[item.topic] for item in gone], self._clock.now())
            await dirty.done(conn, self._broker, marks)
        log.debug("certificates sent", sent=len(wanted), cleared=len(gone))
        return len(marks)

    def _topic(self, mark: Mark) -> str:
        return self._topics.build(Kind.CERT, device=mark[1])

    def _certificate(self, item: Renewed) -> Outgoing:
        message = IssuedCertificate(
            fleet=self._topics.fleet, device=item.device, request=item.digest, certificate=item.certificate
        )
        topic = self._topics.build(Kind.CERT, device=item.device)
        return Outgoing(kind=Kind.CERT, topic=topic, payload=encode(message), expires=item.expires)
