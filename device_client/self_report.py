"""The inventory: sent with each session, when what runs has changed, and when something new is refused or stale.

News of the last kind is sent at a limited rate: who floods a device with forgeries does not make it flood the fleet.
"""

import asyncio
from datetime import datetime

import structlog

from device_client.config import DeviceSettings
from device_client.errors import DeviceError
from device_client.installers.installer import Installer
from device_client.refusals import Refusals
from device_client.reporter import Reporter
from device_client.verification.release import Verifier
from protocol.clock import Clock

log = structlog.get_logger(__name__)


class SelfReport:
    """What this device is and what is wrong with what it hears."""

    def __init__(
        self,
        settings: DeviceSettings,
        installer: Installer,
        verifier: Verifier,
        refusals: Refusals,
        reporter: Reporter,
        clock: Clock,
    ) -> None:
        self._settings = settings
        self._installer = installer
        self._verifier = verifier
        self._refusals = refusals
        self._reporter = reporter
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
            self._settings, running.version if running else None, self._verifier.stale_since, self._refusals.report()
        )

    async def send_news(self) -> None:
        """Say it when something is refused for a new reason or freshness came or went; called while connected."""
        if self._now() != self._said and self._clock.monotonic() >= self._next_at:
            await self.send()

    def _now(self) -> tuple[int, datetime | None]:
        return self._refusals.changes, self._verifier.stale_since
