"""The session for certificates: requests under claims are answered, renewals are issued.

A connection of its own: a flood of requests crowds out no report. How often a claim or a device may ask is limited
before any signature is checked. Answers are not retained and may be lost; a device asks until it has one.
"""

import asyncio
import hashlib
from collections.abc import Callable
from random import Random

import structlog
from securesystemslib.signer import Key

from orchestrator.config import Home, Settings
from orchestrator.delivery.broker_access import service_connection
from orchestrator.errors import OperationError
from orchestrator.fleet.admission import Admission
from orchestrator.fleet.claim_requests import read_request
from orchestrator.fleet.renewal import renew
from orchestrator.ingest.buckets import Buckets
from orchestrator.ingest.reading import read_for_ever
from orchestrator.ingest.rejects import Rejects
from orchestrator.storage import claims, devices
from orchestrator.storage.database import Database
from protocol.clock import Clock
from protocol.envelopes import encode, open_envelope, verify_with
from protocol.errors import EnvelopeError, ErrorCode, ProtocolError
from protocol.mqtt.connection import ConnectionLost, Message, RequestRefused, Session, connect
from protocol.reports import RENEWAL_TYPE, Renewal
from protocol.topics import INGEST, RULES, Kind, Topic, Topics

log = structlog.get_logger(__name__)

KINDS = (Kind.ENROL_REQUEST, Kind.RENEW)
MAX_QUEUED = 2_000
RENEWALS_PER_MINUTE = 20
UNKNOWN_PER_MINUTE = 6
"""Requests under a claim that is not known here: its name may be wrong in the database, not more."""


class Desk:
    """One broker's session for certificates."""

    def __init__(
        self,
        db: Database,
        home: Home,
        settings: Settings,
        clock: Clock,
        admission: Admission,
        wake_delivery: Callable[[], None],
        keys_changed: Callable[[str], None],
        buckets: Buckets | None = None,
    ) -> None:
        """``buckets`` are those of all desks of a fleet, where there are several."""
        self._db = db
        self._home = home
        self._settings = settings
        self.broker = settings.broker.name
        self._clock = clock
        self._wake_delivery = wake_delivery
        self._keys_changed = keys_changed
        self._topics = Topics(settings.fleet)
        self._random = Random()
        self._buckets = buckets or Buckets(clock)
        self._admission = admission
        self.rejects = Rejects(clock)

    async def run(self) -> None:
        """Connect, again and again, and answer until cancelled."""
        await read_for_ever(self._run_once, f"desk of {self.broker}", self._clock, self._random)

    async def _run_once(self) -> None:
        target = await asyncio.to_thread(
            service_connection, self._home, self._settings, INGEST, purpose="desk", max_queued=MAX_QUEUED
        )
        async with connect(target) as session:
            await session.subscribe([(self._topics.filter(kind), RULES[kind].qos) for kind in KINDS])
            async for message in session.messages():
                await self.take(session, message)

    async def take(self, session: Session, message: Message) -> None:
        """Answer one message; what is wrong with it is counted and dropped."""
        try:
            topic = self._topics.parse(message.topic)
            if topic.kind not in KINDS:
                raise EnvelopeError(ErrorCode.SCOPE, f"{topic.kind.value}: not for the desk")
            cap = RULES[topic.kind].max_bytes
            if len(message.payload) > cap:
                found = len(message.payload)
                raise EnvelopeError(ErrorCode.OVERSIZE, f"{topic.kind.value}: at most {cap} B, found {found}")
            if topic.kind is Kind.RENEW:
                await self._renew(topic, message.payload)
            else:
                await self._enrol(session, topic, message.payload)
        except ProtocolError as error:
            self.rejects.add(error.code.value, message.topic, error.detail)
        except OperationError as error:
            log.error("certificate not issued", topic=message.topic, why=str(error)[:500])
            self.rejects.add("not issued", message.topic)
        except (ConnectionLost, RequestRefused):
            raise
        except Exception:
            log.exception("request broke the desk", topic=message.topic)
            self.rejects.add("broken", message.topic)

    async def _enrol(self, session: Session, topic: Topic, payload: bytes) -> None:
        async with self._db.read() as conn:
            claim = await claims.get(conn, topic.claim)
        if not self._buckets.take(topic.claim, claim.per_minute if claim else UNKNOWN_PER_MINUTE):
            self.rejects.add("rate", f"enrol/{topic.claim}")
            return
        asked = await asyncio.to_thread(read_request, payload, self._settings.fleet, topic.claim)
        answer = await self._admission.answer(asked)
        if answer.device:
            self._wake_delivery()
        where = self._topics.build(Kind.ENROL_ANSWER, claim=topic.claim)
        await session.publish(where, encode(answer), qos=RULES[Kind.ENROL_ANSWER].qos)

    async def _renew(self, topic: Topic, payload: bytes) -> None:
        device = topic.device
        if not self._buckets.take(device, RENEWALS_PER_MINUTE):
            self.rejects.add("rate", f"up/{device}")
            return
        async with self._db.read() as conn:
            keys = (await devices.keys(conn, [device])).get(device)
        if keys is None:
            raise EnvelopeError(ErrorCode.SCOPE, f"device {device}: not enrolled")
        fields = dict(keys[0])
        verify = verify_with(Key.from_dict(fields.pop("keyid"), fields))
        cap = RULES[Kind.RENEW].max_bytes
        asked, raw = await asyncio.to_thread(open_envelope, payload, cap, RENEWAL_TYPE, verify, Renewal)
        if (asked.fleet, asked.device) != (self._settings.fleet, device):
            raise EnvelopeError(ErrorCode.SCOPE, f"renewal of {asked.device} in {asked.fleet}: came from {device}")
        digest = hashlib.sha256(raw).hexdigest()
        await renew(self._db, self._home, self._settings, self._clock, asked, digest)
        self._keys_changed(device)
        self._wake_delivery()
