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
        return self.take_some(name, 1, full=per_minute, period_s=60) == 1

    def take_some(self, name: str, wanted: int, *, full: int, period_s: float) -> int:
        """How many of ``wanted`` may be looked at now; an empty bucket is ``full`` after ``period_s``."""
        now = self._clock.monotonic()
        level, since = self._levels.get(name, (float(full), now))
        level = min(float(full), level + (now - since) * full / period_s)
        allowed = min(wanted, int(level))
        self._levels[name] = (level - allowed, now)
        self._levels.move_to_end(name)
        if len(self._levels) > MAX_NAMES:
            self._levels.popitem(last=False)
        return allowed
