"""Looks for media at the places that ``[media]`` names, at a slow pace, and hands each in once.

A medium that was looked at is not looked at again before it changes or was away. What is wrong with it is logged:
nobody stands there who would read an answer.
"""

import asyncio
import glob
import itertools
from pathlib import Path

import structlog

from device_client.config_network import MediaSection
from device_client.errors import DeviceError
from device_client.medium_desk import MediumDesk

log = structlog.get_logger(__name__)

MAX_PLACES = 32
"""Folders that are looked at in one round."""
Sight = tuple[int, int, int]
"""Device, inode and time of change of a medium's offers: what tells one medium from the next at the same place."""


class MediaWatch:
    """One device's."""

    def __init__(self, settings: MediaSection, device: str, desk: MediumDesk) -> None:
        self._settings = settings
        self._device = device
        self._desk = desk
        self._seen: dict[Path, Sight] = {}

    async def run(self) -> None:
        """Look, again and again, until cancelled; returns at once where no place is named."""
        while self._settings.directories:
            await self.look()
            await asyncio.sleep(self._settings.interval_s)

    async def look(self) -> None:
        """One round."""
        found = await asyncio.to_thread(self._sights)
        news = [path for path, sight in found.items() if self._seen.get(path) != sight]
        self._seen = found
        for path in news:
            try:
                await self._desk.hand_in(path)
            except (DeviceError, OSError) as error:
                log.warning("medium not taken", path=str(path), why=str(error)[:500])

    def _sights(self) -> dict[Path, Sight]:
        globbed = (glob.iglob(pattern) for pattern in self._settings.directories)  # noqa: PTH207 - "**" is "*" here
        places = itertools.chain.from_iterable(globbed)
        found = {}
        for place in itertools.islice(places, MAX_PLACES):
            try:
                status = (Path(place) / "offer" / self._device).lstat()
            except OSError:
                continue  # no medium, or none for this device
            found[Path(place)] = (status.st_dev, status.st_ino, status.st_mtime_ns)
        return found
