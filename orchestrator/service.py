"""``serve``: owns the database, keeps the broker, runs engine, delivery, ingest and the API in one task group.

Order: lock, API port, signer, database, broker, then everything else. Whatever ends by an error ends all with its
sentence; SIGTERM and SIGINT end all in order.
"""

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import Coroutine, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import structlog
import uvicorn

from orchestrator.config import Home, Settings
from orchestrator.delivery.broker import ManagedBroker
from orchestrator.delivery.delivery import Delivery
from orchestrator.delivery.keeping_out import KeepingOut
from orchestrator.errors import ConflictError, OperationError
from orchestrator.expiry_watch import ExpiryWatch
from orchestrator.fleet.admission import Admission
from orchestrator.fleet.credentials import check_credentials
from orchestrator.ingest.desk import Desk
from orchestrator.ingest.ingest import Ingest
from orchestrator.metrics import Metrics
from orchestrator.private_files import hold_lock
from orchestrator.releases.importer import import_package
from orchestrator.releases.trust_updates import TrustUpdates
from orchestrator.rollouts.controller import Controller
from orchestrator.signer.opening import open_room
from orchestrator.signer.seam import SigningRoom
from orchestrator.storage.chunk_store import ChunkStore
from orchestrator.storage.database import Database
from orchestrator.web.app import create_app
from orchestrator.web.auth import read_token
from orchestrator.web.services import Services
from protocol.clock import Clock, SystemClock
from protocol.errors import FlagshipError
from protocol.topics import DELIVERY, INGEST

log = structlog.get_logger(__name__)

BROKER_WAIT_S = 30.0
API_STOP_S = 5


async def serve(home: Home) -> None:
    """Run until SIGTERM or SIGINT.

    Raises:
        NotFoundError: There is no home, or something in it is missing.
        ConflictError: Another serve has this home, or a port is in use.
        OperationError: What else keeps it from running.
    """
    settings, clock = home.load(), SystemClock()
    await asyncio.to_thread(_check_home, home, settings, clock.now())
    with _lock(home), _api_socket(settings) as listener, open_room(home, settings) as signer:
        database = await Database.open(home.database)
        try:
            await _run(home, settings, database, signer, listener, clock)
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
    issuers = {home.certificate(name)[0]: home.services_ca for name in (DELIVERY, INGEST)}
    if settings.broker.managed:
        issuers[home.certificate("broker")[0]] = home.devices_ca
    check_credentials(issuers, now)


async def _run(
    home: Home, settings: Settings, db: Database, signer: SigningRoom, listener: socket.socket, clock: Clock
) -> None:
    chunks = ChunkStore(home.chunks)
    broker, metrics = ManagedBroker(home, settings), Metrics()
    expiries = ExpiryWatch(home, metrics, clock)
    trust = TrustUpdates(
        fleet=settings.fleet,
        broker=settings.broker.name,
        home=home,
        db=db,
        signer=signer,
        now=clock.now,
        wake=lambda: delivery.wake(),  # noqa: PLW0108 - delivery is made below
    )
    delivery = Delivery(db, home, settings, signer, chunks, clock, trust.published, metrics)
    controller = Controller(db, clock, settings, delivery.wake)
    ingest = Ingest(db, home, settings, clock, delivery.wake, controller.wake, delivery.want, metrics)
    keeping_out = KeepingOut(db, home, settings, clock, broker.reload, signer.revoke)
    await trust.published()

    admission = Admission(db, home, settings, clock, ingest.keys.forget)
    desk = Desk(db, home, settings, clock, admission, delivery.wake, ingest.keys.forget)

    async def take_in(package: Path) -> str:
        return (await import_package(package, home, db, chunks, signer, clock.now())).id

    services = Services(
        home=home,
        settings=settings,
        db=db,
        clock=clock,
        controller=controller,
        delivery=delivery,
        admission=admission,
        keeping_out=keeping_out,
        forget_keys=ingest.keys.forget,
        import_package=take_in,
        trust=trust,
        metrics=metrics,
        dropped=ingest.rejects.of,
    )
    await keeping_out.prepare()
    told = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(broker.run(), name="broker")]
        with _signals(told):
            if settings.broker.managed:
                await _unless(told, broker.ready(BROKER_WAIT_S))
            if not told.is_set():
                tasks += [
                    group.create_task(part.run(), name=name)
                    for name, part in (
                        ("keeping out", keeping_out),
                        ("delivery", delivery),
                        ("ingest", ingest),
                        ("desk", desk),
                        ("silence", ingest.silence),
                        ("controller", controller),
                        ("expiry", expiries),
                    )
                ]
                tasks.append(group.create_task(_serve_api(services, listener), name="api"))
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


async def _serve_api(services: Services, listener: socket.socket) -> None:
    config = uvicorn.Config(
        create_app(services),
        log_config=None,
        access_log=False,
        lifespan="off",
        timeout_graceful_shutdown=API_STOP_S,
        timeout_keep_alive=5,
        limit_concurrency=100,
        h11_max_incomplete_event_size=65_536,
        server_header=False,
    )
    server = uvicorn.Server(config)
    server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
    try:
        await server._serve([listener])  # noqa: SLF001 - serve() takes the signal handlers, which are ours
    except asyncio.CancelledError:
        server.should_exit = True
        with contextlib.suppress(Exception):
            await server.shutdown([listener])
        raise


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
def _api_socket(settings: Settings) -> Iterator[socket.socket]:
    where = f"{settings.api.host}:{settings.api.port}"
    try:
        listener = socket.create_server((settings.api.host, settings.api.port), backlog=128)
    except OSError as error:
        raise ConflictError(
            f"api: cannot listen on {where}: {os.strerror(error.errno or 0)}; "
            "stop what listens there, or set api.port in config.toml"
        ) from error
    with listener:
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        yield listener


def _first(errors: BaseExceptionGroup[Any]) -> BaseException:
    """The error that ended everything, in preference to the cancellations that it caused."""
    found = [_first(error) if isinstance(error, BaseExceptionGroup) else error for error in errors.exceptions]
    return next((error for error in found if isinstance(error, OperationError)), found[0])
