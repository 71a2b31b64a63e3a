"""The inventory: sent with each session, on change, when something new is refused or stale, and as a sign of life.

News of refusals is sent at a limited rate: who floods a device with forgeries does not make it flood the fleet.
"""

import asyncio
from datetime import datetime

import structlog

from device_client.config import DeviceSettings
from device_client.errors import DeviceError
from device_client.freshness import Freshness
from device_client.heartbeat import Heartbeat
from device_client.installers.installer import Installer
from device_client.refusals import Refusals
from device_client.reporter import Reporter
from protocol.clock import Clock

log = structlog.get_logger(__name__)


class SelfReport:
    """What this device is and what is wrong with what it hears."""

    def __init__(
        self,
        settings: DeviceSettings,
        installer: Installer,
        freshness: Freshness,
        refusals: Refusals,
        reporter: Reporter,
        heartbeat: Heartbeat,
        clock: Clock,
    ) -> None:
        self._settings = settings
        self._installer = installer
        self._freshness = freshness
        self._refusals = refusals
        self._reporter = reporter
        self._heartbeat = heartbeat
        self._clock = clock
        self._said: tuple[int, datetime | None] = (0, None)
        self._next_at = 0.0

    async def send(self) -> None:
        """Say it now; without a connection nothing is said, and the next session begins with it."""
        try:
            running = await asyncio.to_thread(self._installer.running)
        except (DeviceError, OSError) as error:  # what is wrong with it is worth more than silence
            log.error("running version unknown", why=str(error)[:500])
            running = None
        self._said = self._now()
        self._next_at = self._clock.monotonic() + self._settings.timing.refusal_interval_s
        await self._reporter.inventory(
            self._settings, running.version if running else None, self._freshness.stale_since, self._refusals.report()
        )

    async def send_news(self) -> None:
        """Say it when something is refused for a new reason or freshness came or went; called while connected."""
        if self._now() != self._said and self._clock.monotonic() >= self._next_at:
            await self.send()

    async def send_sign_of_life(self) -> None:
        """Say it when nothing signed was said for long; called while connected."""
        if self._heartbeat.is_due(self._reporter.spoke_at, self._clock.monotonic()):
            await self.send()

    def say_again(self) -> None:
        """What was said may be lost: say it soon."""
        self._heartbeat.hurry(self._settings.timing.readiness_retry_s, self._clock.monotonic())

    def _now(self) -> tuple[int, datetime | None]:
        return self._refusals.changes, self._freshness.stale_since
