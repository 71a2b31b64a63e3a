"""Warns before something runs out: gauges at every look, a log line once per threshold and day."""

import asyncio
from datetime import date

import structlog

from orchestrator.config import Home
from orchestrator.errors import OperationError
from orchestrator.expiries import expiring_in
from orchestrator.expiry import SEVERITY, Level
from orchestrator.metrics import Metrics
from protocol.clock import Clock

log = structlog.get_logger(__name__)

LOOK_S = 600.0


class ExpiryWatch:
    """One home's. What was said is remembered by this process: a restart says it once more."""

    def __init__(self, home: Home, metrics: Metrics, clock: Clock) -> None:
        self._home = home
        self._metrics = metrics
        self._clock = clock
        self._said: dict[tuple[str, str], tuple[Level, date]] = {}

    async def run(self) -> None:
        """Look now and then, until cancelled."""
        while True:
            try:
                await self.look()
            except OperationError as error:
                log.error("expiry unknown", why=str(error))
            await asyncio.sleep(LOOK_S)

    async def look(self) -> None:
        """Look once.

        Raises:
            OperationError: A file is missing or damaged.
        """
        now = self._clock.now()
        for thing in await asyncio.to_thread(expiring_in, self._home):
            level, name = thing.level(now), (thing.kind, thing.name)
            self._metrics.set_expiry(thing, level)
            if level is not Level.FINE and self._said.get(name) != (level, now.date()):
                self._said[name] = (level, now.date())
                tell = log.error if SEVERITY[level] >= SEVERITY[Level.LAST] else log.warning
                tell("expiry is near", what=thing.name, threshold=level.value, why=thing.sentence(now))
