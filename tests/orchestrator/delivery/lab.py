"""A home with real keys and metadata, a database, a running broker and a delivery session on it."""

import asyncio
import base64
import contextlib
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from sqlalchemy import insert

from orchestrator.config import Home, Settings
from orchestrator.delivery.broker import ManagedBroker
from orchestrator.delivery.broker_access import service_connection
from orchestrator.delivery.delivery import Delivery
from orchestrator.model.assignment import Assignment
from orchestrator.model.device import Device
from orchestrator.model.plan import RolloutSpec, StageSpec
from orchestrator.model.rollout import RolloutState
from orchestrator.publisher.ceremony import Thresholds, hold_ceremony
from orchestrator.signer.keys import load_x25519
from orchestrator.signer.seam import SigningRoom
from orchestrator.storage import assignments, devices, dirty, rollouts
from orchestrator.storage.chunk_store import ChunkStore
from orchestrator.storage.database import Database
from orchestrator.storage.tables import release_chunks, releases
from protocol.clock import SystemClock
from protocol.encryption import PACKAGE_RECIPIENT, wrap_key
from protocol.mqtt.connection import Session, connect
from protocol.topics import DELIVERY, INGEST, Kind, Topics
from tests.certificates import Authority

FLEET = "fleet"
RELEASE = "gateway/1.1.0"
CEK = b"k" * 32
DEADLINE_S = 20.0


@dataclass
class Lab:
    """Everything that a delivery needs, running."""

    home: Home
    settings: Settings
    db: Database
    signer: SigningRoom
    chunks: ChunkStore
    broker: ManagedBroker
    content_key: X25519PrivateKey
    package_key: X25519PrivateKey
    topics: Topics

    def delivery(self) -> Delivery:
        """A delivery on this home; run it with ``running``."""
        return Delivery(self.db, self.home, self.settings, self.signer, self.chunks, SystemClock())

    @contextlib.asynccontextmanager
    async def running(self, delivery: Delivery | None = None) -> AsyncIterator[Delivery]:
        """A delivery that runs for the length of the block; this one, or one of its own."""
        delivery = delivery or self.delivery()
        task = asyncio.create_task(delivery.run())
        try:
            yield delivery
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    @contextlib.asynccontextmanager
    async def observer(self, filters: Sequence[tuple[str, int]], who: str = DELIVERY) -> AsyncIterator[Session]:
        """A session that listens, under a service's certificate."""
        target = service_connection(self.home, self.settings, who, purpose="observer", max_queued=100_000)
        async with connect(target) as session:
            await session.subscribe(filters)
            yield session

    async def retained(self, topic: str, who: str = DELIVERY) -> bytes | None:
        """What the broker retains of a topic now."""
        async with self.observer([(topic, 1)], who) as session:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.3):
                    async for message in session.messages():
                        return message.payload
        return None

    def put(self, data: bytes) -> str:
        """Keep a chunk in the store; returns its name."""
        cid = hashlib.sha256(data).hexdigest()
        self.chunks.put(cid, data)
        return cid

    async def add_release(
        self, chunks: Sequence[bytes], release: str = RELEASE, pieces: Sequence[bytes] = (), at: datetime | None = None
    ) -> None:
        """A release whose pieces and chunks are these; ``chunks`` has the pieces too."""
        sha256 = hashlib.sha256(b"sealed manifest" if release == RELEASE else release.encode()).hexdigest()
        recipient = self.package_key.public_key()
        wrapped = wrap_key(CEK, recipient, release=sha256, device=PACKAGE_RECIPIENT)
        async with self.db.begin() as conn:
            await conn.execute(
                insert(releases).values(
                    id=release,
                    product="gateway",
                    version=release.partition("/")[2],
                    component="app",
                    path=f"{release}/manifest",
                    length=100,
                    sha256=sha256,
                    counter=1,
                    info={"pieces": [self.put(piece) for piece in pieces]},
                    wrapped_key=wrapped,
                    image_bytes=1,
                    chunk_bytes=sum(map(len, chunks)),
                    state="importing",
                    imported_at=at or datetime.now(UTC),
                )
            )
            rows = [
                {"release": release, "cid": cid, "length": len(data)}
                for cid, data in {self.put(data): data for data in chunks}.items()
            ]
            if rows:
                await conn.execute(insert(release_chunks), rows)

    async def add_rollout(self, names: Sequence[str], state: RolloutState = RolloutState.RUNNING) -> None:
        """Rollout r-1 over enrolled devices, each with an open download grant that was not sent yet."""
        now = datetime.now(UTC)
        public = base64.b64encode(self.content_key.public_key().public_bytes_raw()).decode()
        spec = RolloutSpec(release=RELEASE, stages=[StageSpec(name="all", percent=100)])
        async with self.db.begin() as conn:
            for name in names:
                device = Device(id=name, product="gateway", hardware="hw", enrolled_at=now)
                await devices.insert(conn, device, report_key={}, content_key=public)
            await rollouts.insert(conn, "r-1", spec, state, now)
            rows = [
                Assignment(
                    rollout="r-1", device=name, stage=0, place=0.5, state="offered", grant="download", offered_at=now
                )
                for name in names
            ]
            await assignments.insert_all(conn, rows)
            await dirty.mark(conn, Kind.ANNOUNCE, ["r-1"], now)
            await dirty.mark(conn, Kind.OFFER, [dirty.offer_key(name, "r-1") for name in names], now)


async def until(condition: Callable[[], Awaitable[bool]], what: str) -> None:
    """Wait until a condition holds, at most ``DEADLINE_S``."""
    try:
        async with asyncio.timeout(DEADLINE_S):
            while not await condition():
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise AssertionError(f"not within {DEADLINE_S:g} s: {what}") from None


def make_certificates(home: Home) -> None:
    """Both authorities and what they issue for a broker and its services."""
    devices_ca, services_ca = Authority(home.devices_ca, "devices"), Authority(home.services_ca, "services")
    for name in ("broker", "dev1"):
        devices_ca.issue(*home.certificate(name), name)
    for name in (DELIVERY, INGEST, "viewer"):
        services_ca.issue(*home.certificate(name), name)


def make_keys(home: Home) -> X25519PrivateKey:
    """The fleet's keys and first metadata by the real ceremony; returns the package key."""
    hold_ceremony(
        home.publisher,
        home.signer,
        home.trust,
        fleet=FLEET,
        products=["gateway"],
        thresholds=Thresholds(),
        now=datetime.now(UTC),
    )
    return load_x25519(home.signer / "package.key")
