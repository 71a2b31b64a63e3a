"""When may the next window be asked for under a limit of the rate? Pure: the caller brings the time."""


class Pace:
    """A token bucket as deep as one window: the average holds from the start, no burst is larger than a window."""

    def __init__(self, rate_bytes_s: int) -> None:
        """Limit the rate; 0 means no limit."""
        self._rate_bytes_s = rate_bytes_s
        self._free_at: float | None = None

    def take(self, size_bytes: int, now: float) -> float:
        """Take tokens for ``size_bytes``; seconds to wait before they may be asked for."""
        if not self._rate_bytes_s:
            return 0.0
        start = now if self._free_at is None else max(now, self._free_at)
        self._free_at = start + size_bytes / self._rate_bytes_s
        return start - now

    def window_bytes(self, most: int) -> int:
        """Bytes of a window, 1 to ``most``: a second's worth, so that a low limit is no series of bursts."""
        return max(1, min(most, self._rate_bytes_s)) if self._rate_bytes_s else most
