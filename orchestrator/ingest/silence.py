"""Which devices have fallen silent: nothing signed came for too long, while somebody listened.

Time in which ingest was away does not count: what devices said then is lost, and they say it again. A sweep touches
only the rows that cross the limit; a device that speaks is taken back by its report (``storage/reports.py``). One
that was being changed counts as failed in its rollout until it speaks.
"""

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Protocol

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from orchestrator.errors import OperationError
from orchestrator.rollouts.steps import fall_silent
from orchestrator.storage import assignments, concerns, dirty, events
from orchestrator.storage.database import Database
from orchestrator.storage.engine_rows import being_changed
from protocol.clock import Clock
from protocol.topics import Kind

log = structlog.get_logger(__name__)

BATCH = 500
NAMED = 5
MAX_SPANS = 64
MAX_SWEEP_S = 60.0


class Listening:
    """When ingest listened, as far back as matters. Pure; times are monotonic seconds."""

    def __init__(self) -> None:
        self._spans: list[tuple[float, float]] = []
        self._since: float | None = None

    def begin(self, now: float) -> None:
        """It listens from here on."""
        self._since = now if self._since is None else self._since

    def end(self, now: float) -> None:
        """It does not any more."""
        if self._since is not None:
            self._spans = [*self._spans, (self._since, now)][-MAX_SPANS:]
            self._since = None

    def ago(self, span_s: float, now: float) -> float | None:
        """How many seconds ago it had ``span_s`` of listening still before it; None when it did not listen so long."""
        left = span_s
        for begin, end in reversed([*self._spans, *([(self._since, now)] if self._since is not None else [])]):
            if end - begin >= left:
                return now - (end - left)
            left -= end - begin
        return None


class Engine(Protocol):
    """The part of ``rollouts.controller`` that silence concerns."""

    def wake(self) -> None:
        """Devices that fell silent while they were changed count as failures, for the time being."""
        ...

    def hears_again(self) -> None:
        """Reports may have been lost until now."""
        ...


class SilenceWatch:
    """Sweeps at twenty times the pace of the limit, at most every ``MAX_SWEEP_S``."""

    def __init__(
        self,
        db: Database,
        silent_after_s: float,
        clock: Clock,
        wake_delivery: Callable[[], None],
        engine: Engine | None = None,
    ) -> None:
        self._engine = engine
        self._db = db
        self._after_s = silent_after_s
        self._clock = clock
        self._wake_delivery = wake_delivery
        self._listening = Listening()
        self._listeners = 0

    def listens(self) -> None:
        """Ingest has subscribed, at one of the brokers."""
        self._listeners += 1
        self._listening.begin(self._clock.monotonic())
        if self._listeners == 1 and self._engine is not None:
            self._engine.hears_again()

    def is_deaf(self) -> None:
        """Ingest lost one of its sessions; the devices of that broker move to another."""
        self._listeners -= 1
        if self._listeners == 0:
            self._listening.end(self._clock.monotonic())

    async def run(self) -> None:
        """Sweep until cancelled."""
        while True:
            await asyncio.sleep(min(MAX_SWEEP_S, self._after_s / 20))
            try:
                await self.sweep()
            except OperationError as error:
                log.error("silence not judged", why=str(error))

    async def sweep(self) -> list[str]:
        """Flag who has crossed the limit; returns their ids."""
        ago_s = self._listening.ago(self._after_s, self._clock.monotonic())
        if ago_s is None:
            return []
        now = self._clock.now()
        fallen: list[str] = []
        while True:
            async with self._db.begin() as conn:
                ids = await concerns.fall_silent(conn, now - timedelta(seconds=ago_s), BATCH)
                if ids:
                    await _tell(conn, ids, now, self._after_s)
            fallen += ids
            if len(ids) < BATCH:
                break
        if fallen:
            log.warning("devices fell silent", devices=len(fallen), some=fallen[:NAMED])
            self._wake_delivery()
            if self._engine is not None:
                self._engine.wake()
        return fallen


async def _tell(conn: AsyncConnection, ids: list[str], now: datetime, after_s: float) -> None:
    """One event for a sweep, however many fell silent at once."""
    some = ", ".join(ids[:NAMED]) + (f" and {len(ids) - NAMED} more" if len(ids) > NAMED else "")
    device = ids[0] if len(ids) == 1 else ""
    text = f"nothing signed was heard for {after_s:g} s of listening: {some}"
    await events.add(conn, "devices_silent", text, now, device=device, data={"devices": len(ids)})
    silenced = [(row, fall_silent(row)) for row in await being_changed(conn, ids)]
    await assignments.save_all(conn, silenced)
    await dirty.mark(conn, Kind.STATUS_DEVICE, ids, now)
    await dirty.mark(conn, Kind.STATUS_ROLLOUT, {row.rollout for row, _ in silenced}, now)
    await dirty.mark(conn, Kind.STATUS_FLEET, [""], now)
