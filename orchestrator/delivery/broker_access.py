"""How the orchestrator's own sessions reach a broker.

Client ids of services are no device ids (a dot stands in them), so no device certificate can ever take one over; they
cannot be guessed, so no viewer can either; and they are fixed, so that a new session ends a stale one.
"""

import hashlib
import hmac
from pathlib import Path

from orchestrator.config import Home, Settings
from orchestrator.errors import NotFoundError
from protocol.mqtt.connection import ConnectionSettings


def service_host(settings: Settings) -> str:
    """Where the listener for services is: on loopback when the broker is managed."""
    return "127.0.0.1" if settings.broker.managed else settings.broker.host


def service_connection(
    home: Home,
    settings: Settings,
    name: str,
    *,
    purpose: str = "",
    max_inflight: int = 64,
    max_queued: int = 1000,
    mqtt5: bool = True,
) -> ConnectionSettings:
    """A connection under the certificate ``tls/NAME.pem``, verified against the devices' CA, or as the broker says.

    Reads the key file.

    Args:
        purpose: Tells two sessions of one certificate apart.
        max_queued: Messages that may wait to be read.
        mqtt5: False for a session that only reads: reasons of refused publishes are all that it would gain, and paho
            makes MQTT 5's properties anew for every packet.

    Raises:
        NotFoundError: The home has no such certificate.
    """
    broker = settings.broker
    certificate, key = home.certificate(name)
    if broker.certificate:  # another CA's: one for all of our sessions there
        certificate, key = home.path / broker.certificate, home.path / broker.key
    return ConnectionSettings(
        host=service_host(settings),
        port=settings.broker.service_port,
        client_id=client_id(name, key, purpose),
        ca=home.path / broker.ca if broker.ca else home.devices_ca,
        certificate=certificate,
        key=key,
        max_inflight=max_inflight,
        max_queued_incoming=max_queued,
        mqtt5=mqtt5,
    )


def client_id(name: str, key: Path, purpose: str = "") -> str:
    """The fixed client id of a service: its name and a mark that only the holder of the key can make."""
    try:
        mark = hmac.new(key.read_bytes(), f"client-id|{name}|{purpose}".encode(), hashlib.sha256).hexdigest()[:24]
    except OSError as error:
        raise NotFoundError(f"{key}: {error.strerror}; the home is incomplete, restore it") from error
    return ".".join(part for part in ("service", name, purpose, mark) if part)
