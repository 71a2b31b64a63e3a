"""Keeps the machine from going down or to sleep while its software is changed: an inhibitor lock of logind's.

It is held for one step at a time, never while something is waited for. Without logind, or where this user may not take
one, the step goes on: the journal knows how to go on after a power cut too.
"""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog

from device_client.errors import UnreachableError
from device_client.logind import Logind

log = structlog.get_logger(__name__)


class ShutdownLock:
    """Takes and releases the lock."""

    def __init__(self, logind: Logind | None = None) -> None:
        """Ask ``logind``; None where the owner wants no lock."""
        self._logind = logind

    @asynccontextmanager
    async def held(self, why: str) -> AsyncIterator[None]:
        """The lock is held in the block where it could be taken, and released after it in every case."""
        if self._logind is None:
            yield
            return
        # The thread goes on when this is cancelled: what it brings then is closed all the same.
        taking = asyncio.get_running_loop().run_in_executor(None, _take, self._logind, why)
        try:
            await asyncio.shield(taking)
            yield
        finally:
            if taking.done():
                _release(taking)
            else:
                taking.add_done_callback(_release)


def _take(logind: Logind, why: str) -> int | None:
    for block in (True, False):  # a service that is not root may often only ask for a delay
        try:
            return logind.inhibit(why, block=block)
        except UnreachableError as error:
            log.warning("shutdown not inhibited", why=str(error)[:500], block=block)
    return None


def _release(taking: asyncio.Future[int | None]) -> None:
    if not taking.cancelled() and taking.exception() is None and (descriptor := taking.result()) is not None:
        os.close(descriptor)
