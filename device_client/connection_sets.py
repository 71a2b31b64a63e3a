"""Ways to the fleet: brokers and the CA that they must have. The present one, and one that was signed and is on trial.

    identity/ca.pem, fleet.json                  what enrolment brought
    connections/DIGEST/ca.pem, connection.json   what the offline keys signed since
    connections/current -> DIGEST                in use        connections/next -> DIGEST   on trial

The present way is kept until the next one connected; then it counts no more, for its CA may be why there is a next one.
All functions block.
"""

import hashlib
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from device_client.config import DeviceHome, first_mistake
from device_client.durable import explained, make_directory, read_capped, switch_link, sync_directory, write_durably
from device_client.errors import StorageError
from device_client.identity import load_enrolment
from device_client.identity_files import IdentityFiles
from protocol.enrolment import BrokerAddress, ConnectionTarget, MirrorAddress
from protocol.envelopes import encode

MAX_BYTES = 65_536
CURRENT, NEXT = "current", "next"


@dataclass(frozen=True, slots=True)
class ConnectionSet:
    """One way: any of the brokers, whose certificate must chain to the CA.

    Attributes:
        name: Of its folder; empty for what enrolment brought.
        mirrors: Where chunks are to be had beside the brokers.
    """

    name: str
    brokers: Sequence[BrokerAddress]
    ca: Path
    mirrors: Sequence[MirrorAddress] = ()


def present(home: DeviceHome) -> ConnectionSet:
    """The way that connected last, or that enrolment brought.

    Raises:
        StorageError: It is damaged.
    """
    found = _linked(home, CURRENT)
    if found is not None:
        return found
    enrolment = load_enrolment(home)
    return ConnectionSet("", enrolment.brokers, IdentityFiles(home).ca, enrolment.mirrors)


def on_trial(home: DeviceHome) -> ConnectionSet | None:
    """The way that was signed and has not connected yet.

    Raises:
        StorageError: It is damaged.
    """
    return _linked(home, NEXT)


def offer(home: DeviceHome, target: ConnectionTarget) -> str:
    """Keep what the offline keys signed, to be tried; its folder's name, or empty where it is known already.

    Raises:
        StorageError: The disk is full; the present way is untouched.
    """
    content = encode(target)
    name = hashlib.sha256(content).hexdigest()[:16]
    if name in (_name(home, CURRENT), _name(home, NEXT)):
        return ""
    directory = home.connections / name
    make_directory(directory, 0o700)
    write_durably(directory / "ca.pem", target.ca.encode(), 0o644)
    write_durably(directory / "connection.json", content, 0o644)
    switch_link(home.connections / NEXT, name)
    return name


def adopt(home: DeviceHome, name: str) -> None:
    """It connected: it is the present way from now on, and others are removed."""
    if name == _name(home, NEXT):
        switch_link(home.connections / CURRENT, name)
        with explained(home.connections, "cleared"):
            (home.connections / NEXT).unlink()
            for path in home.connections.iterdir():
                if not path.is_symlink() and path.name != name:
                    shutil.rmtree(path)
            sync_directory(home.connections)


def _name(home: DeviceHome, link: str) -> str:
    path = home.connections / link
    return path.readlink().name if path.is_symlink() else ""


def _linked(home: DeviceHome, link: str) -> ConnectionSet | None:
    name = _name(home, link)
    if not name:
        return None
    directory = home.connections / name
    try:
        target = ConnectionTarget.model_validate_json(read_capped(directory / "connection.json", MAX_BYTES))
    except ValidationError as error:
        raise StorageError(f"{directory}: damaged ({first_mistake(error)}); remove it and its links") from error
    return ConnectionSet(name, target.brokers, directory / "ca.pem", target.mirrors)
