"""What the API stands on; ``service.py`` brings it."""

from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol

from orchestrator.config import Home, Settings
from orchestrator.delivery.broker_set import Published, Standing
from orchestrator.fleet.admission import Admission
from orchestrator.metrics import Metrics
from orchestrator.model.device import Dropped
from orchestrator.rollouts.offline import OfflineDesk
from orchestrator.storage.database import Database
from protocol.clock import Clock


class Wakes(Protocol):
    """Looks at the database again at once instead of at its next turn."""

    def wake(self) -> None:
        """Look now."""
        ...


class Delivers(Wakes, Protocol):
    """The part of ``orchestrator.delivery.broker_set`` that the API needs."""

    @property
    def connected(self) -> bool:
        """Whether some broker is reached."""
        ...

    @property
    def signer_trouble(self) -> str:
        """What keeps the signer from signing; "" for nothing."""
        ...

    async def barrier(self) -> list[str]:
        """Return when sends in flight have ended, with the brokers whose connection was cut for it."""
        ...

    async def publish_release(self, release: str) -> Published:
        """Bring a release to every broker; done when one has it."""
        ...

    async def standing(self) -> list[Standing]:
        """How each broker stands."""
        ...


class TakesTrust(Protocol):
    """The part of ``orchestrator.releases.trust_updates`` that the API needs."""

    async def take_in(
        self, files: Mapping[str, bytes], *, stolen: bool, check_only: bool, actor: str
    ) -> dict[str, int]:
        """Check metadata and put it into force; returns versions by role."""
        ...

    async def check_leaving(self, keyids: Collection[str]) -> None:
        """Raise where directives are in force under these director keys."""
        ...


class KeepsOut(Protocol):
    """The part of ``orchestrator.delivery.doors`` that the API needs."""

    @property
    def expiry(self) -> dict[str, datetime]:
        """When each CA's revocation list runs out."""
        ...

    async def pending(self, device: str, timeout_s: float) -> str | None:
        """Wait until a closed device is kept out; what is still to be done, or None."""
        ...


ImportPackage = Callable[[Path, str], Awaitable[str]]
"""Check a package as a device would and take it in for an actor; returns the release's id, ``product/version``."""

TellDropped = Callable[[str], Dropped | None]
"""What came in a device's name and was not taken in, if anything."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """Everything behind the API."""

    home: Home
    settings: Settings
    db: Database
    clock: Clock
    controller: Wakes
    anchor: Wakes  # has the end of the audit log signed
    offline: OfflineDesk
    delivery: Delivers
    admission: Admission
    keeping_out: KeepsOut
    forget_keys: Callable[[str], None]  # ingest hears a device no more from here on
    import_package: ImportPackage
    trust: TakesTrust
    metrics: Metrics
    dropped: TellDropped
