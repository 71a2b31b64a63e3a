"""A reading session is had again whenever it ends: with jittered back-off, for ever."""

import asyncio
from collections.abc import Awaitable, Callable
from random import Random

import structlog

from protocol.clock import Clock
from protocol.mqtt.connection import ConnectionLost, RequestRefused, backoff

log = structlog.get_logger(__name__)

STEADY_S = 10.0
"""A session that held so long begins the back-off anew."""


async def read_for_ever(session: Callable[[], Awaitable[None]], name: str, clock: Clock, random: Random) -> None:
    """Run one session after another until cancelled.

    Args:
        session: One connection, to its end; ends by ConnectionLost or RequestRefused.
        name: Who reads, for the log.
    """
    attempt = 0
    while True:
        began_at = clock.monotonic()
        try:
            await session()
        except (ConnectionLost, RequestRefused) as error:
            log.warning("session interrupted", reader=name, why=str(error))
        attempt = 0 if clock.monotonic() - began_at > STEADY_S else attempt + 1
        await asyncio.sleep(backoff(attempt, random, base_s=0.2, cap_s=10.0))
