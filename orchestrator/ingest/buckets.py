"""How often somebody may ask: one token bucket a name, so that a flood under one name costs the others nothing."""

from collections import OrderedDict

from protocol.clock import Clock

MAX_NAMES = 10_000


class Buckets:
    """Token buckets by name; the names heard last are remembered, and one that was forgotten begins full."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._levels: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, name: str, per_minute: int) -> bool:
        """Whether one more may be looked at now; a full bucket holds a minute's worth."""
        now = self._clock.monotonic()
        level, since = self._levels.get(name, (float(per_minute), now))
        level = min(float(per_minute), level + (now - since) * per_minute / 60)
        allowed = level >= 1
        self._levels[name] = (level - 1 if allowed else level, now)
        self._levels.move_to_end(name)
        if len(self._levels) > MAX_NAMES:
            self._levels.popitem(last=False)
        return allowed
