"""How often an agent looks at what time alone brings about."""

import asyncio
from contextlib import suppress

TICK_S, IDLE_S = 0.25, 1.0


class Pulse:
    """A few times a second while something is open; else when a message came, and once in a while."""

    def __init__(self) -> None:
        self._came = asyncio.Event()

    def note(self) -> None:
        """A message came."""
        self._came.set()

    async def rest(self, *, busy: bool) -> None:
        """Until the next look, at most ``TICK_S`` after a message."""
        if not busy:
            with suppress(TimeoutError):
                async with asyncio.timeout(IDLE_S):
                    await self._came.wait()
        self._came.clear()
        await asyncio.sleep(TICK_S)
