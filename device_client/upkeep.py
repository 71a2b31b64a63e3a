"""What the agent does now and then beside updates: follow a signed way to the fleet, forget former content keys."""

import asyncio

import structlog

from device_client import connection_sets, new_identity
from device_client.agent.runner import Runner
from device_client.config import DeviceHome, DeviceSettings
from device_client.errors import DeviceError
from device_client.refusals import Refusals
from device_client.uplink import Uplink
from device_client.verification.release import Verifier
from protocol.enrolment import ConnectionTarget
from protocol.errors import ProtocolError

log = structlog.get_logger(__name__)

RETRY_S = 60.0


class Upkeep:
    """One device's."""

    def __init__(
        self,
        home: DeviceHome,
        settings: DeviceSettings,
        verifier: Verifier,
        runner: Runner,
        uplink: Uplink,
        refusals: Refusals,
    ) -> None:
        self._home = home
        self._settings = settings
        self._verifier = verifier
        self._runner = runner
        self._uplink = uplink
        self._refusals = refusals
        self._followed: ConnectionTarget | None = None
        self._forgot_of: float | None = None
        self._again_at = 0.0

    async def tick(self) -> None:
        """Do what is due. Nothing that fails in here ends the agent."""
        if self._verifier.clock.monotonic() < self._again_at:
            return
        try:
            await self._follow()
            await self._forget()
            self._uplink.try_next_way()
        except ProtocolError as error:
            self._refusals.add("", error)
            self._again_at = self._verifier.clock.monotonic() + RETRY_S
        except DeviceError as error:
            log.error("upkeep failed", why=str(error)[:500])
            self._again_at = self._verifier.clock.monotonic() + RETRY_S

    async def _follow(self) -> None:
        target = self._verifier.connection
        if target is None or target == self._followed:
            return
        name = await asyncio.to_thread(connection_sets.offer, self._home, target)
        self._followed = target
        if name:
            log.info("new way to the fleet", version=target.version, brokers=len(target.brokers))
            self._uplink.offered(name)

    async def _forget(self) -> None:
        """Former content keys go when nothing is open that may be wrapped for them."""
        adopted_at = self._uplink.adopted_at
        update = self._runner.update
        if adopted_at == self._forgot_of or (update is not None and not update.is_over):
            return
        if self._verifier.clock.monotonic() - adopted_at >= self._settings.timing.former_key_s:
            await asyncio.to_thread(new_identity.forget_former_keys, self._home)
            self._forgot_of = adopted_at
