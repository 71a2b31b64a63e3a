"""Chunks of the medium that was handed in last. It may come and go; before the first there is none."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

from device_client.download.directory_source import DirectorySource
from device_client.download.sources import Collected


class MediumSource:
    """A place for a medium: a source that is not ready before one was handed in."""

    def __init__(self, look_again_s: float = 1.0) -> None:
        """Wait for one; ``look_again_s`` is how often it is looked for while it is absent."""
        self._look_again_s = look_again_s
        self._medium: DirectorySource | None = None

    def use(self, path: Path) -> None:
        """This medium, instead of the one before."""
        self._medium = DirectorySource(path, self._look_again_s)

    @property
    def name(self) -> str:
        """The medium's folder; empty before the first."""
        return self._medium.name if self._medium else ""

    @property
    def is_ready(self) -> bool:
        """Whether there is a medium, and it answers."""
        return self._medium is not None and self._medium.is_ready

    @property
    def trouble(self) -> str:
        """Why it is not ready; empty before the first, which nobody misses."""
        return self._medium.trouble if self._medium else ""

    async def ready(self) -> None:
        """Wait for one."""
        while True:
            if self.is_ready:
                return
            await asyncio.sleep(self._look_again_s)

    async def collect(self, cids: Sequence[str], silence_s: float) -> Collected:
        """Read what is on it; see ``ChunkSource.collect``."""
        return await self._medium.collect(cids, silence_s) if self._medium else Collected({}, gone=True)

    async def release(self) -> None:
        """Nothing is held."""
