"""Held while directives are on their way, so that a halt can wait until the last of them has ended.

A batch is rendered from the rows as they are *after* the latch was taken. Who writes a halt and then passes the
barrier knows that every later batch saw it.
"""

import asyncio


class Latch:
    """Taken before rows are read, settled when the broker has answered or the connection is closed."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()

    async def take(self) -> None:
        """Wait for a barrier that came first."""
        await self._lock.acquire()

    def settle(self) -> None:
        """Nothing is on its way any more; harmless when nothing was."""
        if self._lock.locked():
            self._lock.release()

    async def barrier(self) -> None:
        """Wait until what was on its way has ended."""
        async with self._lock:
            return
