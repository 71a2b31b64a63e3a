"""``flagship init DIR``: a fleet's home, whole or not at all."""

import asyncio
import fcntl
import json
import os
import secrets
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError

from orchestrator.config import ApiSettings, Home, TimingSettings
from orchestrator.config_brokers import BrokerSettings
from orchestrator.errors import ConflictError, OperationError, UsageError
from orchestrator.fleet.authority import create_authority, issue_client, issue_server
from orchestrator.fleet.crls import write_crl
from orchestrator.private_files import write_private
from orchestrator.publisher.ceremony import Thresholds, hold_ceremony
from orchestrator.storage.database import Database
from protocol.identifiers import check_id
from protocol.topics import DELIVERY, INGEST

PARTIAL = ".partial"
VIEWER = "viewer"
LOOPBACK = ("127.0.0.1", "localhost")


@dataclass(frozen=True, slots=True)
class HomePlan:
    """What a home is made from.

    Attributes:
        codesign: Components whose executables must be listed and signed.
        enrol_port: Where the broker listens for claims; None: not at all.
        host: Where devices reach the broker; a name or an address.
        hosts: Other names of the broker that its certificate holds.
    """

    fleet: str = "fleet"
    products: tuple[str, ...] = ("device",)
    thresholds: Thresholds = field(default_factory=Thresholds)
    codesign: tuple[str, ...] = ()
    api_port: int = 8420
    device_port: int = 8883
    service_port: int = 8884
    host: str = "127.0.0.1"
    hosts: tuple[str, ...] = ()
    enrol_port: int | None = None


def init(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="where the home goes; must not exist, or be empty")],
    fleet: Annotated[str, typer.Option(help="the fleet's id; stands in every topic")] = "fleet",
    product: Annotated[list[str] | None, typer.Option(help="a product of the fleet; may be repeated")] = None,
    root_threshold: Annotated[int, typer.Option(help="keys that must sign the root")] = 1,
    targets_threshold: Annotated[int, typer.Option(help="keys that must sign the delegations")] = 1,
    releases_threshold: Annotated[int, typer.Option(help="keys that must sign a release")] = 1,
    codesign: Annotated[
        list[str] | None, typer.Option(help="a component whose executables must be signed; may be repeated")
    ] = None,
    api_port: Annotated[int, typer.Option(help="of the HTTP API, on loopback")] = 8420,
    device_port: Annotated[int, typer.Option(help="where the broker listens for devices")] = 8883,
    service_port: Annotated[int, typer.Option(help="where it listens for services, on loopback")] = 8884,
    host: Annotated[str, typer.Option(help="where devices reach the broker")] = "127.0.0.1",
    enrol_port: Annotated[int | None, typer.Option(help="where it listens for devices with a claim")] = None,
    also_host: Annotated[list[str] | None, typer.Option(help="another name of the broker; may be repeated")] = None,
) -> None:
    """Make a fleet's home: keys, certificates, metadata, settings, database."""
    thresholds = Thresholds(root_threshold, targets_threshold, releases_threshold)
    plan = HomePlan(
        fleet, tuple(product or ["device"]), thresholds, tuple(codesign or []), api_port, device_port, service_port,
        host, tuple(also_host or []), enrol_port,
    )  # fmt: skip
    initialise(directory, plan)
    print(f"{directory}: home of fleet {fleet}, products {', '.join(plan.products)}")
    print(f"release keys: {directory / 'publisher'}; move that folder to where releases are made, and back it up")
    print(f"next: flagship serve --home {directory}")


def initialise(directory: Path, plan: HomePlan) -> Home:
    """Make a home beside its place and move it there when it is whole. Blocking.

    Raises:
        ConflictError: There is something at its place.
        UsageError: A name, a port, a host or a threshold makes no sense.
        OperationError: It cannot be written.
    """
    config = _config_text(plan)
    place = Path(os.path.abspath(directory))  # noqa: PTH100 - Path has no way that leaves links alone
    _check_place(directory)
    partial = place.with_name(place.name + PARTIAL)
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with _alone_in(place.parent):
            _clear(partial)
            try:
                partial.mkdir(mode=0o700)
                _fill(Home(partial), plan, config)
                partial.rename(place)  # also onto an empty folder
                _sync(place.parent)
            finally:
                shutil.rmtree(partial, ignore_errors=True)
    except OSError as error:
        raise OperationError(f"{error.filename or directory}: cannot be written: {error.strerror or error}") from error
    return Home(directory)


@contextmanager
def _alone_in(parent: Path) -> Iterator[None]:
    """One ``init`` at a time: two would build in one place."""
    descriptor = os.open(parent, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        raise ConflictError(f"{parent}: another 'flagship init' works in it; wait for it to end") from error
    finally:
        os.close(descriptor)


def _clear(partial: Path) -> None:
    """Remove what an ``init`` that was killed left, and nothing else."""
    if partial.is_symlink() or (partial.exists() and not partial.is_dir()):
        raise ConflictError(f"{partial}: is in the way; remove it")
    if partial.is_dir():
        strange = {path.name for path in partial.iterdir()} - {path.name for path in vars(Home(partial)).values()}
        if any(not name.startswith(Home(partial).database.name) for name in strange):
            raise ConflictError(f"{partial}: is in the way and holds more than a home; remove it or name another DIR")
        shutil.rmtree(partial)


def _check_place(directory: Path) -> None:
    if directory.is_symlink() or (directory.exists() and not directory.is_dir()):
        raise ConflictError(f"{directory}: expected a new or empty folder, found a file")
    if directory.is_dir() and any(directory.iterdir()):
        found = "a fleet's home" if Home(directory).config.is_file() else "a folder with files in it"
        raise ConflictError(f"{directory}: expected a new or empty folder, found {found}; name another")


def _fill(home: Home, plan: HomePlan, config: str) -> None:
    hold_ceremony(
        home.publisher, home.signer, home.trust,
        fleet=plan.fleet, products=plan.products, thresholds=plan.thresholds, now=datetime.now(UTC),
        codesign=plan.codesign,
    )  # fmt: skip
    devices, services = create_authority(home.ca, "devices-ca"), create_authority(home.ca, "services-ca")
    create_authority(home.ca, "claims-ca")
    for path, authority in ((home.devices_crl, devices), (home.services_crl, services)):
        write_crl(path, authority, {}, datetime.now(UTC))
    issue_server(devices, home.tls, "broker", _unique((plan.host, *plan.hosts, *LOOPBACK)))
    for name in (DELIVERY, INGEST, VIEWER):
        issue_client(services, home.tls, name)
    for directory in (home.chunks, home.incoming, home.broker):
        directory.mkdir(mode=0o700)
    write_private(home.admin_token, f"{secrets.token_urlsafe(32)}\n".encode())
    home.config.write_text(config)
    asyncio.run(_create_database(home.database))
    for path in home.path.iterdir():
        if path.name.startswith(home.database.name):
            path.chmod(0o600)
    for path in (*home.path.rglob("*"), home.path):
        _sync(path)


async def _create_database(path: Path) -> None:
    database = await Database.open(path)
    await database.close()


def _config_text(plan: HomePlan) -> str:
    """The settings; the environment has no say in what is written down.

    Raises:
        UsageError: A name or a port makes no sense.
    """
    if not plan.products:
        raise UsageError("products: expected at least one")
    named = (plan.api_port, plan.device_port, plan.service_port, plan.enrol_port)
    ports = [port for port in named if port is not None]
    if len(set(ports)) != len(ports):
        raise UsageError(f"ports {', '.join(map(str, ports))}: expected different ones")
    try:
        api = ApiSettings(port=plan.api_port)
        broker = BrokerSettings(
            host=plan.host,
            device_port=plan.device_port,
            service_port=plan.service_port,
            enrol_port=plan.enrol_port,
        )
        fleet, product = check_id(plan.fleet, "fleet"), check_id(plan.products[0], "product")
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise UsageError(f"{first['loc'][-1]}: {first['msg']}, found {str(first['input'])[:40]}") from error
    except ValueError as error:
        raise UsageError(str(error)) from error
    timing = TimingSettings()
    enrol = f"enrol_port = {broker.enrol_port}\n" if broker.enrol_port else ""
    return f"""# Settings of this fleet. FLAGSHIP_<SECTION>__<NAME> in the environment wins over this file.
fleet = {json.dumps(fleet)}
product = {json.dumps(product)}

[api]
port = {api.port}

[broker]
managed = true               # serve starts mosquitto itself
host = {json.dumps(broker.host)}
device_port = {broker.device_port}
service_port = {broker.service_port}
{enrol}
[timing]
lease_s = {timing.lease_s:g}               # how long devices act on an announcement without hearing anything newer
activate_grant_s = {timing.activate_grant_s:g}
"""


def _unique(hosts: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(hosts))


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
