"""The doors of all brokers: a closed device is out when each keeps it out; those that do not yet are named."""

import asyncio
from collections.abc import Sequence
from datetime import datetime

from orchestrator.delivery.keeping_out import KeepingOut


class Doors:
    """What keeps devices out of each broker; their lists are the same."""

    def __init__(self, doors: Sequence[KeepingOut]) -> None:
        self.doors = tuple(doors)

    @property
    def expiry(self) -> dict[str, datetime]:
        """When each CA's revocation list runs out."""
        return self.doors[0].expiry

    async def prepare(self) -> None:
        """Renew the lists before a broker starts; raises as ``RevocationLists.prepare``."""
        await self.doors[0].prepare()

    async def pending(self, device: str, timeout_s: float) -> str | None:
        """Wait until every broker keeps a closed device out; what is still to be done, or None.

        Args:
            timeout_s: How long to wait for brokers.
        """
        found = await asyncio.gather(*(door.pending(device, timeout_s) for door in self.doors))
        waiting = [(door.broker, why) for door, why in zip(self.doors, found, strict=True) if why is not None]
        if len(self.doors) == 1:
            return waiting[0][1] if waiting else None
        return "; ".join(why if name in why else f"broker {name}: {why}" for name, why in waiting) or None
