"""When to speak though nothing happens, so that a device that is silent for long is one that cannot. Pure."""

from dataclasses import dataclass
from random import Random


@dataclass
class Heartbeat:
    """Paces what a device says of itself by what it said last, whatever that was.

    Attributes:
        level_s: The longest time without a signed report; jittered down to half of it.
    """

    level_s: float
    random: Random
    _spoke_at: float | None = None
    _next_at: float = 0.0

    def is_due(self, spoke_at: float, now: float) -> bool:
        """Whether to speak now.

        Args:
            spoke_at: When the last signed report was made.
            now: Monotonic seconds, like ``spoke_at``.
        """
        if spoke_at != self._spoke_at:
            self._spoke_at = spoke_at
            self._next_at = spoke_at + self.random.uniform(self.level_s / 2, self.level_s)
        return now >= self._next_at

    def hurry(self, within_s: float, now: float) -> None:
        """Speak within so many seconds: what was said before may be lost."""
        self._next_at = min(self._next_at, now + self.random.uniform(0, within_s))
