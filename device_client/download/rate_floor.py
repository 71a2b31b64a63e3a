"""Is a source slower than it may be? Pure: the caller brings the time.

Time counts only while chunks are asked for: a pause of our own is nobody's slowness.
"""


class RateFloor:
    """A least average rate, judged over one window of asking after the other."""

    def __init__(self, min_rate_bytes_s: int, window_s: float) -> None:
        """Set the floor; ``min_rate_bytes_s`` 0 means that nothing is too slow."""
        self.min_rate_bytes_s = min_rate_bytes_s
        self.window_s = window_s
        self._bytes = 0
        self._asked_s = 0.0
        self._since: float | None = None

    def asked(self, now: float) -> None:
        """Chunks are waited for from ``now``, monotonic seconds."""
        self.rested(now)
        self._since = now

    def arrived(self, size_bytes: int) -> None:
        """Some of what was asked for came."""
        self._bytes += size_bytes

    def rested(self, now: float) -> None:
        """Nothing is waited for at present."""
        if self._since is not None:
            self._asked_s += max(0.0, now - self._since)
            self._since = None

    def judge(self, now: float) -> float | None:
        """The rate in bytes per second, once a window has passed and it was too slow; else None.

        A judged window is over, whatever came of it.
        """
        if self._since is not None:
            self.asked(now)
        if self._asked_s < self.window_s:
            return None
        rate = self._bytes / self._asked_s
        self._bytes, self._asked_s = 0, 0.0
        return rate if rate < self.min_rate_bytes_s else None

    def forget(self) -> None:
        """Another source is asked from now on: what the one before did does not count."""
        self._bytes, self._asked_s, self._since = 0, 0.0, None
