"""Is what runs still what was written? Checked now and then; a fault is told and shown until it is mended."""

import asyncio
from datetime import datetime
from typing import Any

import structlog

from device_client.agent.runner import Runner
from device_client.background import in_background
from device_client.clock import FlooredClock
from device_client.installers.installer import Installer
from device_client.refusals import Refusals
from protocol.clock import rfc3339
from protocol.errors import ErrorCode, FlagshipError, ProtocolError
from protocol.states import TOUCHED, State

log = structlog.get_logger(__name__)

TICK_S = 1.0
FIRST_S = 300.0
"""After the start, so that a device which is switched off every night is checked too."""
RETRY_S = 60.0
_CHANGING = TOUCHED | {State.ROLLING_BACK}


class Integrity:
    """One device's; ``interval_s`` 0 means never."""

    def __init__(
        self, installer: Installer, runner: Runner, refusals: Refusals, clock: FlooredClock, interval_s: float
    ) -> None:
        self._installer = installer
        self._runner = runner
        self._refusals = refusals
        self._clock = clock
        self._interval_s = interval_s
        self._next_at = clock.monotonic() + min(FIRST_S, interval_s)
        self._checked_at: datetime | None = None
        self._told: ProtocolError | None = None

    async def run(self) -> None:
        """Check, again and again, until cancelled; returns at once where it is never to be done."""
        while self._interval_s:
            await asyncio.sleep(min(TICK_S, self._interval_s))
            await self.tick()

    async def tick(self) -> None:
        """Check if it is time, and no update changes what runs. Nothing that fails in here ends the agent."""
        if not self._interval_s or self._clock.monotonic() < self._next_at or self._is_changing():
            return
        try:
            before = await asyncio.to_thread(self._installer.running)
            fault = await in_background(self._installer.fault) if before is not None else ""
            after = await asyncio.to_thread(self._installer.running)
        except (FlagshipError, OSError) as error:
            log.warning("integrity not checked", why=str(error)[:500], retry_s=RETRY_S)
            self._next_at = self._clock.monotonic() + RETRY_S
            return
        if self._is_changing() or before != after:
            return  # what was read may be of two versions; again when it is quiet
        self._next_at = self._clock.monotonic() + self._interval_s
        self._checked_at = self._clock.now()
        self._note(fault)

    def standing(self) -> dict[str, Any]:
        """When it was checked last since the start, and what was found; for people at the device."""
        return {
            "checked_at": rfc3339(self._checked_at) if self._checked_at else None,
            "fault": self._told.detail if self._told else "",
        }

    def _note(self, fault: str) -> None:
        told, self._told = self._told, ProtocolError(ErrorCode.POSTINSTALL, fault) if fault else None
        if told is not None and (self._told is None or told.detail != fault):
            self._refusals.withdraw("", told)
            log.warning("integrity fault gone", was=told.detail)
        if self._told is not None:
            if told is None or told.detail != fault:
                log.error("running version damaged", why=fault)
            self._refusals.add("", self._told)

    def _is_changing(self) -> bool:
        update = self._runner.update
        return update is not None and update.state in _CHANGING
