"""How many offers may be made now. A token bucket as a value; pure."""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from orchestrator.model.plan import RolloutSpec

MAX_STEPS = 100
BURST_S = 5.0
"""Offers that a bucket saves up, as seconds of its rate: a late tick does not slow the rollout."""


@dataclass(frozen=True, slots=True)
class Bucket:
    """Offers per minute; ``at`` is when ``credit`` was counted, None before the first offer."""

    per_minute: float | None
    credit: float = 0.0
    at: datetime | None = None

    @property
    def capacity(self) -> float:
        """The most that is saved up; at least one offer."""
        return max(1.0, (self.per_minute or 0) * BURST_S / 60)

    def filled(self, now: datetime) -> "Bucket":
        """The bucket at ``now``; a clock that went back adds nothing."""
        if self.per_minute is None:
            return self
        if self.at is None:
            return replace(self, credit=1.0, at=now)
        elapsed_s = max(0.0, (now - self.at).total_seconds())
        return replace(self, credit=min(self.capacity, self.credit + elapsed_s * self.per_minute / 60), at=now)

    def budget(self, limit: int) -> int:
        """Whole offers that may be made, at most ``limit``."""
        # A token that is a rounding error short would keep the engine waking up for nothing.
        return limit if self.per_minute is None else min(limit, int(self.credit + 1e-6))

    def spent(self, offers: int) -> "Bucket":
        """The bucket after ``offers`` were made."""
        return self if self.per_minute is None else replace(self, credit=max(0.0, self.credit - offers))

    def next_at(self) -> datetime | None:
        """When a whole offer is there; None if one is, or there is no limit."""
        if self.per_minute is None or self.at is None or self.budget(1):
            return None
        return self.at + timedelta(seconds=(1 - self.credit) * 60 / self.per_minute)


def rate(spec: RolloutSpec, *, succeeded: int, offered: int) -> float | None:
    """Offers per minute now; None without a limit.

    Args:
        succeeded, offered: Of the whole rollout so far; what the pace grows by.
    """
    base, growth = spec.pace_per_minute, spec.pace_growth
    if base is None or growth is None:
        return base
    steps = (succeeded if growth.of == "succeeded" else offered) // growth.every
    # Beyond this many steps the largest float is passed; the maximum was reached long before.
    return min(growth.max_per_minute, base * growth.factor ** min(steps, MAX_STEPS))
