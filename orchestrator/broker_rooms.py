"""What serve keeps for each broker, and what these have in common: delivery, the door, reading sessions, the desk."""

from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from typing import Any

import structlog

from orchestrator.config import Home, Settings
from orchestrator.delivery.broker import ManagedBroker
from orchestrator.delivery.broker_set import BrokerSet
from orchestrator.delivery.chunk_publishing import Chunks
from orchestrator.delivery.delivery import Delivery, Shared
from orchestrator.delivery.doors import Doors
from orchestrator.delivery.keeping_out import KeepingOut
from orchestrator.delivery.revocation_lists import RevocationLists
from orchestrator.delivery.signed_once import SignedOnce
from orchestrator.delivery.signer_watch import SignerWatch
from orchestrator.errors import NotFoundError
from orchestrator.fleet.admission import Admission
from orchestrator.ingest.buckets import Buckets
from orchestrator.ingest.desk import Desk
from orchestrator.ingest.ingest import Heard, Ingest
from orchestrator.ingest.silence import Engine
from orchestrator.metrics import Metrics
from orchestrator.releases.trust_updates import TrustUpdates
from orchestrator.signer.seam import SigningRoom
from orchestrator.storage import brokers
from orchestrator.storage.database import Database
from protocol.clock import Clock
from protocol.topics import Topics

log = structlog.get_logger(__name__)

Part = tuple[str, Callable[[], Coroutine[Any, Any, None]]]
"""(name, what runs until it is cancelled)."""


def check_files(home: Home, settings: Settings) -> None:
    """See that what brokers of other CAs need is there. Blocking.

    Raises:
        NotFoundError: Names the file.
    """
    for broker in settings.all_brokers:
        for name in filter(None, (broker.certificate, broker.key, broker.ca)):
            if not (home.path / name).is_file():
                raise NotFoundError(
                    f"broker {broker.name}: {home.path / name} is missing; put it there, or correct config.toml"
                )


async def use_brokers(db: Database, settings: Settings, clock: Clock) -> None:
    """Let marks be made for the brokers of the settings, before anything else is done with the database."""
    names = [broker.name for broker in settings.all_brokers]
    joined, left = await brokers.use(db, names, Topics(settings.fleet), clock.now())
    if joined or left:
        log.info("brokers changed", joined=joined, left=left)


@dataclass(kw_only=True)
class BrokerRooms:
    """Made by ``open_rooms``."""

    brokers: BrokerSet
    doors: Doors
    heard: Heard
    reading: list[Ingest]
    desks: list[Desk]

    def parts(self) -> Iterator[Part]:
        """What runs, in the order of starting."""
        for door in self.doors.doors:
            yield f"keeping out of {door.broker}", door.run
        for delivery in self.brokers.deliveries:
            yield f"delivery to {delivery.broker}", delivery.run
        for ingest in self.reading:
            yield f"ingest of {ingest.broker}", ingest.run
        for desk in self.desks:
            yield f"desk of {desk.broker}", desk.run
        yield "silence", self.heard.silence.run


def open_deliveries(
    db: Database,
    home: Home,
    settings: Settings,
    signer: SigningRoom,
    chunks: Chunks,
    clock: Clock,
    trust: TrustUpdates,
    metrics: Metrics,
) -> BrokerSet:
    """One delivery for each broker; what is signed is signed once for all."""
    names = [broker.name for broker in settings.all_brokers]
    shared = Shared(SignerWatch(db, home, signer, clock), SignedOnce(names))
    deliveries = [
        Delivery(db, home, settings.for_broker(broker), signer, chunks, clock, trust.published, shared, metrics)
        for broker in settings.all_brokers
    ]
    return BrokerSet(db, deliveries, settings.timing, clock)


def open_rooms(
    db: Database,
    home: Home,
    settings: Settings,
    signer: SigningRoom,
    clock: Clock,
    process: ManagedBroker,
    deliveries: BrokerSet,
    engine: Engine,
    metrics: Metrics,
) -> tuple[BrokerRooms, Admission]:
    """Everything else; and who admits devices, to whichever desk they come."""
    wake, each = deliveries.wake, [settings.for_broker(broker) for broker in settings.all_brokers]
    heard = Heard.of(db, settings, clock, wake, engine)
    admission = Admission(db, home, settings, clock, heard.keys.forget)
    lists, buckets = RevocationLists(db, home, clock), Buckets(clock)
    doors = [
        KeepingOut(db, home, own, clock, process.reload if own.broker.managed else _elsewhere, signer.revoke, lists)
        for own in each
    ]
    rooms = BrokerRooms(
        brokers=deliveries,
        doors=Doors(doors),
        heard=heard,
        reading=[
            Ingest(db, home, own, clock, wake, engine.wake, heard, delivery.want, metrics)
            for own, delivery in zip(each, deliveries.deliveries, strict=True)
        ],
        desks=[Desk(db, home, own, clock, admission, wake, heard.keys.forget, buckets) for own in each],
    )
    return rooms, admission


def _elsewhere() -> bool:
    """A broker that does not run here is told by nobody to read its lists again."""
    return False
