"""Reads the status topics as any dashboard does: over TLS, with the home's viewer certificate. Orders nothing."""

import asyncio
import secrets
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from datetime import UTC, datetime
from random import SystemRandom

from orchestrator.config import Home
from orchestrator.errors import UnreachableError
from orchestrator.fleet.credentials import check_credentials
from protocol.envelopes import decode
from protocol.errors import ProtocolError
from protocol.mqtt.connection import ConnectionLost, ConnectionSettings, Message, RequestRefused, backoff, connect
from protocol.status_messages import DeviceStatus, FleetStatus, RolloutStatus, StatusEvent
from protocol.topics import RULES, Kind, Topics

VIEWER = "viewer"
GIVE_UP_S = 60.0
Status = FleetStatus | RolloutStatus | DeviceStatus | StatusEvent
_MODELS: dict[Kind, type[Status]] = {
    Kind.STATUS_FLEET: FleetStatus,
    Kind.STATUS_ROLLOUT: RolloutStatus,
    Kind.STATUS_DEVICE: DeviceStatus,
    Kind.STATUS_EVENT: StatusEvent,
}


class StatusReader:
    """One fleet's status topics."""

    def __init__(self, home: Home) -> None:
        """Read the address.

        Raises:
            NotFoundError: There is no home, or it has no viewer certificate.
            NotAllowedError: The certificate expired, or may not be read by this user.
            OperationError: The certificate is damaged or not this fleet's.
        """
        settings = home.load()
        certificate, key = home.certificate(VIEWER)
        # A broker would answer each of these with a word of TLS, and starting serve would not help.
        check_credentials({certificate: home.services_ca}, datetime.now(UTC))
        self.topics = Topics(settings.fleet)
        self._connection = ConnectionSettings(
            host=settings.broker.host,
            port=settings.broker.service_port,
            client_id=f"{VIEWER}-{secrets.token_hex(4)}",
            ca=home.devices_ca,
            certificate=certificate,
            key=key,
        )
        self._start = f"start it with 'flagship serve --home {home.path}'"

    async def read(self, filters: Sequence[tuple[Kind, dict[str, str]]]) -> AsyncGenerator[Status]:
        """Everything on these topics over one connection: what is retained first, then what changes.

        Raises:
            UnreachableError: No connection to the broker, or it ended.
        """
        wanted = [(self.topics.filter(kind, **values), RULES[kind].qos) for kind, values in filters]
        try:
            async with connect(self._connection) as session:
                await session.subscribe(wanted)
                async for message in session.messages():
                    status = self._parse(message)
                    if status is not None:
                        yield status
        except (ConnectionLost, RequestRefused) as error:
            raise UnreachableError(f"{error}; if serve does not run, {self._start}") from error

    async def follow(self, filters: Sequence[tuple[Kind, dict[str, str]]]) -> AsyncGenerator[Status]:
        """The same over as many connections as it takes, once the first one came about.

        Raises:
            UnreachableError: No first connection, or none for a minute.
        """
        random, loop = SystemRandom(), asyncio.get_running_loop()
        heard, lost_at = False, None
        while True:
            try:
                async with aclosing(self.read(filters)) as statuses:
                    async for status in statuses:
                        heard, lost_at = True, None
                        yield status
            except UnreachableError:
                lost_at = loop.time() if lost_at is None else lost_at
                if not heard or loop.time() - lost_at > GIVE_UP_S:
                    raise
            await asyncio.sleep(backoff(0, random, 0.5, 2.0))

    def _parse(self, message: Message) -> Status | None:
        """A status, or None for what is empty, too large or not understood: a dashboard goes on."""
        try:
            kind = self.topics.parse(message.topic).kind
            model = _MODELS.get(kind)
            if model is None or not 0 < len(message.payload) <= RULES[kind].max_bytes:
                return None
            return decode(message.payload, model)
        except ProtocolError:
            return None
