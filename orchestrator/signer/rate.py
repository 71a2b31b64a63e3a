"""How many offers may be signed now: a bucket that fills with time. Pure but for the clock's reading passed in."""


class RateLimit:
    """At most ``burst`` at once and ``per_minute`` in the long run."""

    def __init__(self, per_minute: float, burst: int) -> None:
        self._per_s = per_minute / 60
        self._burst = float(burst)
        self._left = float(burst)
        self._at_s: float | None = None

    def take(self, now_s: float) -> float:
        """Take one.

        Args:
            now_s: A monotonic clock.

        Returns:
            0.0 when it was taken; otherwise seconds until one is there.
        """
        if self._at_s is not None:
            self._left = min(self._burst, self._left + max(0.0, now_s - self._at_s) * self._per_s)
        self._at_s = now_s
        if self._left < 1:
            return (1 - self._left) / self._per_s
        self._left -= 1
        return 0.0
