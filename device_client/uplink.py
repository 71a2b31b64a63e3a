"""Keeps this device connected: which broker, by which way, under which identity is tried next.

What is new is tried first and what works stays: a new identity or a new way to the fleet is taken in use when a broker
took it, and until then the present one is tried in the same round. One connection at a time.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from random import Random

import structlog
from aiomqtt import Will

from device_client import connection_sets, identity, new_identity
from device_client.clock import FlooredClock
from device_client.config import DeviceHome, DeviceSettings
from device_client.connection_sets import ConnectionSet
from device_client.errors import DeviceError
from device_client.identity_files import IdentityFiles
from device_client.new_identity import NewIdentity
from device_client.reconnecting import Reconnecting
from device_client.reporter import Reporter, will
from protocol.enrolment import BrokerAddress
from protocol.envelopes import encode
from protocol.mqtt.connection import ConnectionLost, ConnectionSettings, RequestRefused, Session, connect
from protocol.topics import Topics

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Way:
    """One try: an address, the CA that it must have, and who this device says it is."""

    address: BrokerAddress
    connection: ConnectionSet
    files: IdentityFiles
    new: NewIdentity | None


def ways(home: DeviceHome) -> list[Way]:
    """Every way there is, the newest first. Blocking.

    Raises:
        DeviceError: What is kept is damaged.
    """
    on_trial, new = connection_sets.on_trial(home), new_identity.find(home)
    identities = [new] if new is not None and new.is_whole else []
    present = IdentityFiles(home)
    return [
        Way(address, connection, one.files if one else present, one)
        for connection in (on_trial, connection_sets.present(home))
        if connection is not None
        for one in (*identities, None)
        for address in connection.brokers
    ]


class Uplink:
    """One device's connection."""

    def __init__(
        self,
        home: DeviceHome,
        settings: DeviceSettings,
        topics: Topics,
        reporter: Reporter,
        clock: FlooredClock,
        random: Random,
        converse: Callable[[Session, int], Awaitable[None]],
        before: Callable[[int], Awaitable[None]],
    ) -> None:
        """Make it.

        Args:
            converse: Speaks and listens until the session is lost.
            before: Is awaited before each round of tries, with how many failed since the last connection.
        """
        self._home = home
        self._settings = settings
        self._topics = topics
        self._reporter = reporter
        self._clock = clock
        self._random = random
        self._converse = converse
        self._before = before
        self._session: Session | None = None
        self._since = 0.0
        self._on_trial = ""
        self._turned = False
        self._left = False
        self._has_others = False
        self.adopted_at = clock.monotonic()

    async def run(self) -> None:
        """Connect, again and again, until cancelled."""
        timing = self._settings.timing
        waits = Reconnecting(timing.connect_backoff_s, timing.connect_backoff_cap_s, self._random)
        while True:
            await self._before(waits.failures)
            for way in await self._tries():
                self._turned = self._left = False
                connected_at: float | None = None
                try:
                    number = await asyncio.to_thread(identity.next_session, self._home)
                    async with connect(self._target(way, number)) as session:
                        connected_at = self._clock.monotonic()
                        await self._hold(session, way, number)
                except (ConnectionLost, RequestRefused) as error:
                    log.info("connection lost", why=str(error))
                except (DeviceError, OSError) as error:  # a disk that is full or damaged must not end what runs
                    log.error("not connected", why=str(error)[:500])
                finally:
                    self._session = None
                # A broker that was left for its slowness counts as one that was not reached.
                held_s = None if connected_at is None or self._left else self._clock.monotonic() - connected_at
                await asyncio.sleep(waits.wait_s(held_s))
                if self._turned:
                    break  # there is something else to try now

    async def _tries(self) -> list[Way]:
        """What to try in this round; never empty for long, though a file that is kept be damaged."""
        while True:
            try:
                tries = await asyncio.to_thread(ways, self._home)
                self._has_others = len({way.address for way in tries}) > 1
                self._on_trial = tries[0].connection.name if tries[0].connection != tries[-1].connection else ""
                return tries
            except (DeviceError, OSError) as error:
                log.error("not connected", why=str(error)[:500])
            await asyncio.sleep(self._settings.timing.connect_backoff_cap_s)

    def turn(self, why: str) -> None:
        """End the present connection and begin a new round of tries."""
        self._turned = True
        if self._session is not None:
            self._session.end(why)

    def leave(self, why: str) -> bool:
        """End the present connection as if it had not come about: the next way is tried, each time after more wait.

        Returns:
            Whether there was a connection to leave and is another broker to go to.
        """
        if self._session is None or not self._has_others:
            return False
        self._left = True
        self._session.end(why)
        return True

    def try_next_way(self) -> None:
        """Where a way is on trial and the old one works: leave it now and then to try the new one."""
        if self._session is None or not self._on_trial:
            return
        if self._clock.monotonic() - self._since >= self._settings.timing.connection_retry_s:
            self.turn("trying the next way to the fleet")

    def offered(self, name: str) -> None:
        """A way was signed: try it at once."""
        self._on_trial = name
        self.turn("a new way to the fleet was signed")

    async def _hold(self, session: Session, way: Way, number: int) -> None:
        await asyncio.to_thread(self._take_in_use, way)
        self._turned = way.new is not None or way.connection.name == self._on_trial != ""
        if way.connection.name == self._on_trial:
            self._on_trial = ""
        if way.new is not None:
            self._reporter.sign_as(await asyncio.to_thread(identity.load_report_signer, self._home))
            self.adopted_at = self._clock.monotonic()
            log.info("new identity in use")
        self._session, self._since = session, self._clock.monotonic()
        await self._converse(session, number)

    def _take_in_use(self, way: Way) -> None:
        """A broker took it, so it counts; durable before anything is said under it."""
        if way.new is not None:
            new_identity.adopt(self._home, way.new)
        if way.connection.name:
            connection_sets.adopt(self._home, way.connection.name)

    def _target(self, way: Way, number: int) -> ConnectionSettings:
        topic, farewell = will(self._settings.device.id, self._topics, number)
        files, broker = way.files, self._settings.broker
        return ConnectionSettings(
            host=way.address.host,
            port=way.address.port,
            client_id=self._settings.device.id,
            ca=way.connection.ca,
            certificate=files.certificate,
            key=files.device_key,
            will=Will(topic, encode(farewell), qos=1),
            keepalive_s=broker.keepalive_s,
            timeout_s=broker.timeout_s,
            mqtt5=broker.protocol == "5",
            check_time=not self._clock.doubt,
        )
