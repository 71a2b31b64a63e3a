"""Keeps closed devices out of one broker: lists written, loaded, seen to be loaded; then open sessions ended.

    rows -> list on disk -> SIGHUP -> probe refused as revoked -> the device's client id is taken -> noted as done

In this order: a session that is ended before the list is in force comes back. Each step is repeated until it was seen
to be done, so a broker that is down now is made right when it returns. Lists are renewed daily, before the broker
starts and while it runs; one that is past half of its life is an alarm, because past its end nobody gets in.
"""

import asyncio
import dataclasses
from collections.abc import Callable, Sequence
from datetime import datetime
from random import Random

import structlog

from orchestrator.config import Home, Settings
from orchestrator.delivery.broker_access import service_connection, service_host
from orchestrator.delivery.crl_probe import Answer, ask
from orchestrator.delivery.revocation_lists import DEVICES, CaList, NotYetError, RevocationLists
from orchestrator.errors import OperationError
from orchestrator.fleet.crls import CRL_KEPT
from orchestrator.model.device import DeviceState
from orchestrator.storage import certificates, dirty, events, expelling
from orchestrator.storage.database import Database
from protocol.clock import Clock
from protocol.mqtt.connection import ConnectionLost, backoff, connect
from protocol.topics import DELIVERY, Kind

log = structlog.get_logger(__name__)

BATCH = 100
RETRY_S = 5.0
"""Between two tries to reach a broker that is down, at most."""
LOOK_S = 60.0
"""The longest time between two looks at the lists' age."""
PROBE_TRIES = 20
RELOAD_EVERY = 10
PROBE_WAIT_S = 0.1
TAKEOVER_S = 5.0


class KeepingOut:
    """One broker's door."""

    def __init__(
        self,
        db: Database,
        home: Home,
        settings: Settings,
        clock: Clock,
        reload_broker: Callable[[], bool],
        tell_signer: Callable[[Sequence[str], str], None],
        lists: RevocationLists | None = None,
    ) -> None:
        """Make it.

        Args:
            reload_broker: Makes the broker load its lists; False where it does not run here.
            tell_signer: Names revoked devices, and why; blocking.
            lists: Those of the home, where several brokers load them.
        """
        self._db = db
        self._home = home
        self._settings = settings
        self._clock = clock
        self._reload_broker = reload_broker
        self._tell_signer = tell_signer
        self.broker = settings.broker.name
        self.lists = lists or RevocationLists(db, home, clock)
        self._in_force: dict[str, int] = {}  # number of the list that this broker uses, by CA
        self._random = Random()
        self._woken = asyncio.Event()
        self._looked = asyncio.Condition()
        self.why = ""  # what is still to be done

    @property
    def expiry(self) -> dict[str, datetime]:
        """When each CA's revocation list runs out."""
        return self.lists.expiry

    async def prepare(self) -> None:
        """Renew the lists before the broker starts; raises as ``RevocationLists.prepare``."""
        await self.lists.prepare()

    def wake(self) -> None:
        """A device was closed: look at once."""
        self._woken.set()

    async def run(self) -> None:
        """Look at rows, lists and the broker until cancelled."""
        attempt = 0
        while True:
            self._woken.clear()
            try:
                await self.look()
                attempt, self.why = 0, ""
                wait_s = LOOK_S
            except (OperationError, ConnectionLost) as error:
                if str(error) != self.why:
                    log.warning("not kept out yet", why=str(error))
                attempt, self.why = attempt + 1, str(error)
                wait_s = backoff(attempt, self._random, base_s=0.2, cap_s=RETRY_S)
            async with self._looked:
                self._looked.notify_all()
            try:
                async with asyncio.timeout(wait_s):
                    await self._woken.wait()
            except TimeoutError:
                pass

    async def look(self) -> None:
        """One round.

        Raises:
            OperationError: Something is not done yet; says what.
            ConnectionLost: The broker went away in between.
        """
        async with self._db.read() as conn:
            closed = await expelling.to_expel(conn, self.broker, BATCH)
            revoked = await certificates.revoked(conn, self._clock.now() - CRL_KEPT)
        revoked_now = [device for device, state in closed.items() if state == DeviceState.REVOKED]
        if revoked_now:  # it remembers by itself, so that an older database revives nobody
            await asyncio.to_thread(self._tell_signer, revoked_now, "revoked")
        await self.lists.renew(revoked)
        await self._bring_into_force()
        if closed:
            await self._end_sessions(list(closed))
            if len(closed) == BATCH:
                self.wake()

    async def pending(self, device: str, timeout_s: float) -> str | None:
        """Wait until a closed device is kept out; returns what is still to be done, or None when all is.

        Args:
            timeout_s: How long to wait for the broker.
        """
        try:
            async with asyncio.timeout(timeout_s), self._looked:
                while not await self._is_out(device):
                    self.wake()
                    await self._looked.wait()
            return None
        except TimeoutError:
            return self.why or f"broker {self.broker} has not confirmed it yet"

    async def _is_out(self, device: str) -> bool:
        async with self._db.read() as conn:
            return await expelling.is_out(conn, self.broker, device)

    async def _bring_into_force(self) -> None:
        broker = self._settings.broker
        for one in self.lists.all:
            if one.crl is None or self._in_force.get(one.name) == one.crl.number:
                continue
            number = one.crl.number
            if one.probe is None or (broker.certificate and one.name != DEVICES):
                # A list from elsewhere has no probe of ours, and services of another CA's broker are not ours to name.
                self._reload_broker()
                self._in_force[one.name] = number
                continue
            reloaded, answer = False, Answer.NO_ANSWER
            ca = self._home.path / broker.ca if broker.ca else self._home.devices_ca
            for attempt in range(PROBE_TRIES):
                answer = await ask(*self._door(one), ca, one.probe)
                if answer in (Answer.IN_FORCE, Answer.NO_ANSWER):
                    break
                if attempt % RELOAD_EVERY == 0:
                    reloaded = self._reload_broker()
                await asyncio.sleep(PROBE_WAIT_S)
            if answer is not Answer.IN_FORCE:
                hint = "" if broker.managed or reloaded else f"; copy {one.path} to the broker and make it reload it"
                raise NotYetError(
                    f"broker {self.broker}: list {number} of {one.name} is not in force "
                    f"({answer}){hint}; it is tried again until the broker confirms it"
                )
            self._in_force[one.name] = number
            log.info("revocation list in force", broker=self.broker, ca=one.name, number=number)

    def _door(self, one: CaList) -> tuple[str, int]:
        """Where the clients whom a list judges come in."""
        broker = self._settings.broker
        if one.name == DEVICES:
            return broker.host, broker.device_port
        return service_host(self._settings), broker.service_port

    async def _end_sessions(self, closed: list[str]) -> None:
        """Take each client id for a moment: the broker ends the session that has it and forgets what it kept."""
        target = await asyncio.to_thread(service_connection, self._home, self._settings, DELIVERY)
        for device in closed:
            async with connect(dataclasses.replace(target, client_id=device, timeout_s=TAKEOVER_S)):
                pass
        now = self._clock.now()
        async with self._db.begin() as conn:
            await expelling.expelled(conn, self.broker, closed, now)
            where = f"broker {self.broker}: list {self.lists.number} in force, session ended"
            for device in closed:
                text = f"{device}: kept out of {where}"
                await events.add(conn, "device_kept_out", text, now, device=device)
            await dirty.mark(conn, Kind.STATUS_DEVICE, closed, now)
        log.info("sessions ended", broker=self.broker, devices=len(closed), first=closed[0])
