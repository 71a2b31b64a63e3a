"""Bytes per second, so that who repairs a broker leaves it to its devices."""

from protocol.clock import Clock

LEAST_BYTES = 2**20
"""Of what is saved up: a window of chunks."""
SAVED_S = 2.0


class Pace:
    """A bucket of bytes. What is begun may overdraw it; nothing is begun until that is paid back."""

    def __init__(self, clock: Clock, bytes_s: float) -> None:
        self._clock = clock
        self._bytes_s = bytes_s
        self._full = max(LEAST_BYTES, SAVED_S * bytes_s)
        self._level = self._full
        self._since = clock.monotonic()

    def allows(self) -> bool:
        """Whether something may be begun now."""
        now = self._clock.monotonic()
        self._level = min(self._full, self._level + (now - self._since) * self._bytes_s)
        self._since = now
        return self._level > 0

    def spend(self, size_bytes: int) -> None:
        """Take what was sent or read."""
        self._level -= size_bytes
