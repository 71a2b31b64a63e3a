"""An agent with nothing to do wakes seldom, and one that hears something at once."""

import asyncio
import time

from device_client.pulse import IDLE_S, TICK_S, Pulse


async def _rests(pulse: Pulse, *, busy: bool) -> float:
    began = time.monotonic()
    async with asyncio.timeout(20):
        await pulse.rest(busy=busy)
    return time.monotonic() - began


async def test_idle_it_waits_for_a_message() -> None:
    """Or for a while; a message that came before counts once."""
    pulse = Pulse()
    assert await _rests(pulse, busy=False) >= IDLE_S
    pulse.note()
    assert TICK_S <= await _rests(pulse, busy=False) < IDLE_S
    assert await _rests(pulse, busy=False) >= IDLE_S


async def test_busy_it_waits_for_nothing() -> None:
    """But a tick."""
    assert TICK_S * 0.9 <= await _rests(Pulse(), busy=True) < IDLE_S
