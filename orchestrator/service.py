"""``serve``: owns the database, keeps the broker, runs engine, delivery, ingest and the API in one task group.

Order: lock, ports, signer, database, broker, then everything else. Whatever ends by an error ends all with its
sentence; SIGTERM and SIGINT end all in order.
"""

import asyncio
import contextlib
import signal
import socket
from collections.abc import Coroutine, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import structlog

from orchestrator.broker_rooms import check_files, open_deliveries, open_rooms, use_brokers
from orchestrator.config import Home, Settings
from orchestrator.delivery.broker import ManagedBroker
from orchestrator.errors import OperationError
from orchestrator.expiry_watch import ExpiryWatch
from orchestrator.fleet.credentials import check_credentials
from orchestrator.metrics import Metrics
from orchestrator.private_files import hold_lock
from orchestrator.releases.importer import import_package
from orchestrator.releases.trust_updates import TrustUpdates
from orchestrator.rollouts.anchoring import Anchor
from orchestrator.rollouts.controller import Controller
from orchestrator.rollouts.offline import OfflineDesk
from orchestrator.signer.opening import open_room
from orchestrator.signer.seam import SigningRoom
from orchestrator.storage.chunk_store import ChunkStore
from orchestrator.storage.database import Database
from orchestrator.web.app import create_app
from orchestrator.web.auth import read_token
from orchestrator.web.listening import listening, run_app
from orchestrator.web.routes_chunks import ChunksOnly
from orchestrator.web.services import Services
from protocol.clock import Clock, SystemClock
from protocol.errors import FlagshipError
from protocol.topics import DELIVERY, INGEST

log = structlog.get_logger(__name__)

BROKER_WAIT_S = 30.0
MIRROR_KEEP_ALIVE_S = 60
Doors = tuple[socket.socket, socket.socket | None]
"""Where clients of the API come in, and where devices fetch chunks by HTTPS."""


async def serve(home: Home) -> None:
    """Run until SIGTERM or SIGINT.

    Raises:
        NotFoundError: There is no home, or something in it is missing.
        ConflictError: Another serve has this home, or a port is in use.
        OperationError: What else keeps it from running.
    """
    settings, clock = home.load(), SystemClock()
    await asyncio.to_thread(_check_home, home, settings, clock.now())
    with _lock(home), _doors(settings) as doors, open_room(home, settings) as signer:
        database = await Database.open(home.database)
        try:
            await database.take_lead(clock.now())
            await _run(home, settings, database, signer, doors, clock)
        except BaseExceptionGroup as errors:
            first = _first(errors)
            if isinstance(first, FlagshipError | asyncio.CancelledError):
                raise first from None
            raise
        finally:
            await database.close()
    log.info("serve ended")


def _check_home(home: Home, settings: Settings, now: datetime) -> None:
    """What would fail later, once the broker runs or with nobody looking, is said now."""
    read_token(home.admin_token)
    check_files(home, settings)
    issuers = {home.certificate(name)[0]: home.services_ca for name in (DELIVERY, INGEST)}
    if settings.broker.managed:
        issuers[home.certificate("broker")[0]] = home.devices_ca
    if settings.mirror.port is not None:
        issuers[home.certificate(settings.mirror.certificate)[0]] = home.devices_ca
    check_credentials(issuers, now)


async def _run(home: Home, settings: Settings, db: Database, signer: SigningRoom, doors: Doors, clock: Clock) -> None:
    chunks = ChunkStore(home.chunks)
    broker, metrics = ManagedBroker(home, settings), Metrics()
    expiries = ExpiryWatch(home, metrics, clock)
    await use_brokers(db, settings, clock)
    trust = TrustUpdates(
        fleet=settings.fleet,
        home=home,
        db=db,
        signer=signer,
        now=clock.now,
        wake=lambda: delivery.wake(),  # noqa: PLW0108 - delivery is made below
    )
    delivery = open_deliveries(db, home, settings, signer, chunks, clock, trust, metrics)
    anchor = Anchor(db, signer, clock, settings.timing.audit_head_s)
    controller = Controller(db, clock, settings, delivery.wake, anchor.wake)
    rooms, admission = open_rooms(db, home, settings, signer, clock, broker, delivery, controller, metrics)
    await trust.published()

    async def take_in(package: Path, actor: str) -> str:
        return (await import_package(package, home, db, chunks, signer, clock.now(), actor=actor)).id

    services = Services(
        home=home,
        settings=settings,
        db=db,
        clock=clock,
        controller=controller,
        anchor=anchor,
        offline=OfflineDesk(db, clock, signer, timedelta(seconds=settings.timing.lease_s)),
        delivery=delivery,
        admission=admission,
        keeping_out=rooms.doors,
        forget_keys=rooms.heard.keys.forget,
        import_package=take_in,
        trust=trust,
        metrics=metrics,
        dropped=rooms.heard.rejects.of,
    )
    await rooms.doors.prepare()
    told = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(broker.run(), name="broker")]
        with _signals(told):
            if settings.broker.managed:
                await _unless(told, broker.ready(BROKER_WAIT_S))
            if not told.is_set():
                parts = [
                    *rooms.parts(),
                    ("controller", controller.run),
                    ("anchor", anchor.run),
                    ("expiry", expiries.run),
                ]
                tasks += [group.create_task(run(), name=name) for name, run in parts]
                api, mirror = doors
                tasks.append(group.create_task(run_app(create_app(services), api), name="api"))
                if mirror is not None:
                    shelf, pair = ChunksOnly(db, chunks), home.certificate(settings.mirror.certificate)
                    serving = run_app(
                        shelf,
                        mirror,
                        certificate=pair,
                        connections=settings.mirror.connections,
                        keep_alive_s=MIRROR_KEEP_ALIVE_S,
                    )
                    tasks.append(group.create_task(serving, name="mirror"))
                log.info("serving", home=str(home.path), api=settings.api.port, devices=settings.broker.device_port)
            await told.wait()
            log.info("stopping")
        # The broker last: farewells still go out.
        for task in reversed(tasks):
            task.cancel()
            await asyncio.wait({task})


async def _unless(told: asyncio.Event, work: Coroutine[Any, Any, None]) -> None:
    """Do it to its end, or leave off when told to stop; what it raises is raised."""
    doing, stop = asyncio.ensure_future(work), asyncio.ensure_future(told.wait())
    try:
        await asyncio.wait({doing, stop}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        stop.cancel()
        if not doing.done():
            doing.cancel()
        await asyncio.wait({doing, stop})
    if not doing.cancelled():
        doing.result()


@contextlib.contextmanager
def _signals(told: asyncio.Event) -> Iterator[None]:
    loop = asyncio.get_running_loop()
    numbers = (signal.SIGTERM, signal.SIGINT)
    for number in numbers:
        loop.add_signal_handler(number, told.set)
    try:
        yield
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)


def _lock(home: Home) -> contextlib.AbstractContextManager[None]:
    """One serve per home."""
    return hold_lock(
        home.serve_lock, f"{home.path}: another 'flagship serve' runs on this home; stop it first, or make another home"
    )


@contextlib.contextmanager
def _doors(settings: Settings) -> Iterator[Doors]:
    """The API's socket, and the mirror's where one is configured."""
    api, mirror = settings.api, settings.mirror
    with contextlib.ExitStack() as open_until_the_end:
        first = open_until_the_end.enter_context(listening("api", api.host, api.port))
        if mirror.port is None:
            yield first, None
        else:
            yield first, open_until_the_end.enter_context(listening("mirror", mirror.host, mirror.port))


def _first(errors: BaseExceptionGroup[Any]) -> BaseException:
    """The error that ended everything, in preference to the cancellations that it caused."""
    found = [_first(error) if isinstance(error, BaseExceptionGroup) else error for error in errors.exceptions]
    return next((error for error in found if isinstance(error, OperationError)), found[0])
