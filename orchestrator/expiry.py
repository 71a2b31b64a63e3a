"""How long things live, and what is due when. Pure; publisher and orchestrator share it."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

ROOT_LIFE: Final = timedelta(days=365)
TARGETS_LIFE: Final = timedelta(days=180)
RELEASES_LIFE: Final = timedelta(days=90)
SNAPSHOT_LIFE: Final = timedelta(days=90)
TIMESTAMP_LIFE: Final = timedelta(days=7)
THRESHOLDS_DAYS: Final = (30, 7, 1)
"""Days before the end at which a warning begins (design, section 4)."""


class Level(StrEnum):
    """How near the end is."""

    FINE = "fine"
    SOON = "30 days"
    NEAR = "7 days"
    LAST = "1 day"
    EXPIRED = "expired"


_LEVELS: Final = {30: Level.SOON, 7: Level.NEAR, 1: Level.LAST}
SEVERITY: Final = {level: number for number, level in enumerate(Level)}


@dataclass(frozen=True, slots=True)
class Expiring:
    """One thing that runs out.

    Attributes:
        kind: ``role`` or ``certificate``.
        life: From its making to its end; zero when that is not known.
        remedy: The command that makes a new one.
    """

    kind: str
    name: str
    expires: datetime
    life: timedelta
    remedy: str

    def level(self, now: datetime) -> Level:
        """The threshold that has been passed; one that is more than half of the life away from the end is none."""
        left = self.expires - now
        if left <= timedelta(0):
            return Level.EXPIRED
        passed = [days for days in THRESHOLDS_DAYS if left <= timedelta(days=days) and self._warns_at(days)]
        return _LEVELS[min(passed)] if passed else Level.FINE

    def due(self) -> datetime:
        """When the first warning begins."""
        return self.expires - timedelta(days=max(days for days in (*THRESHOLDS_DAYS, 0) if self._warns_at(days)))

    def sentence(self, now: datetime) -> str:
        """What a person reads."""
        when = f"{self.expires:%Y-%m-%d %H:%M} UTC"
        if self.expires <= now:
            return f"{self.kind} {self.name} expired {when}; {self.remedy}"
        hours = (self.expires - now) / timedelta(hours=1)
        left = f"{hours / 24:.0f} days" if hours >= 48 else f"{hours:.0f} hours"
        return f"{self.kind} {self.name} expires {when}, in {left}; {self.remedy}"

    def _warns_at(self, days: int) -> bool:
        return not self.life or timedelta(days=days) <= self.life / 2


def life_of(role: str) -> timedelta:
    """The usual life of a TUF role's metadata."""
    lives = {"root": ROOT_LIFE, "targets": TARGETS_LIFE, "snapshot": SNAPSHOT_LIFE, "timestamp": TIMESTAMP_LIFE}
    return lives.get(role, RELEASES_LIFE)


def worst(things: Iterable[Expiring], now: datetime) -> Level:
    """The most urgent level among them."""
    return max((thing.level(now) for thing in things), key=SEVERITY.__getitem__, default=Level.FINE)
