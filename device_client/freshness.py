"""Whether this device may be cut off: its timestamp ran out, or the lease of the update that is open here."""

from dataclasses import dataclass
from datetime import datetime

from device_client.agent.runner import Runner
from device_client.verification.release import Verifier


@dataclass(frozen=True, slots=True)
class Freshness:
    """Freshness of everything that this device waits for. A rollout that it has no part in may well end."""

    verifier: Verifier
    runner: Runner

    @property
    def stale(self) -> bool:
        """Whether something ran out; so it is before anything ever was fresh."""
        return self.verifier.stale or self._lease_ended is not None

    @property
    def stale_since(self) -> datetime | None:
        """When the first of it ran out; None while all lasts, and where nothing was ever fresh."""
        ended = [at for at in (self.verifier.stale_since, self._lease_ended) if at is not None]
        return min(ended, default=None)

    @property
    def _lease_ended(self) -> datetime | None:
        update = self.runner.update
        if update is None or update.is_over:
            return None
        announced = self.runner.announcements.get(update.offer.rollout)
        if announced is None or announced.expires > self.verifier.now():
            return None
        return announced.expires
