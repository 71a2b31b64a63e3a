"""How many bytes must be asked for at once so that a link is never idle? Pure: the caller brings times and counters.

A window has to last for a round trip, or there is nothing on its way while the next is asked for: bandwidth x delay.
Both are estimated as BBR does: of the rates of recent windows the greatest, of the delays the least, since everything
that disturbs a measurement makes a rate look lower and a delay longer. While the rate still grows with the window, the
window was what limited it, and the next is made much larger.
"""

from collections import deque
from dataclasses import dataclass

START_BYTES = 2**20
"""Asked for at once while nothing is known."""
LEAST_BYTES = 2**19
"""Asked for where less would do: each window costs a few packets."""
HEADROOM = 1.25
STARTING_HEADROOM = 3.0
"""While larger windows still bring a higher rate."""
GROWTH = 1.25
"""A rate that is higher by less than this, in ``PATIENT`` windows, grows no more."""
PATIENT = 3
RECENT = 10
"""Windows whose rates count."""
SHORTEST_S = 1e-6
"""What took less is not measured."""
FILL_S = 2.0
"""A slow link needs no window that takes longer than this."""


@dataclass(frozen=True, slots=True)
class Asked:
    """When a window was asked for, and how much had been received by then."""

    at: float
    received_bytes: int


class LinkEstimate:
    """What is known of the way to one source."""

    def __init__(self) -> None:
        self._rates: deque[float] = deque(maxlen=RECENT)
        self._grown_to = 0.0
        self._not_grown = 0
        self.delay_s: float | None = None

    @property
    def rate_bytes_s(self) -> float:
        """The bandwidth; 0 while nothing is known."""
        return max(self._rates, default=0.0)

    def answered(self, asked: Asked, now: float, received_bytes: int, delay_s: float | None) -> None:
        """A window came whole.

        Args:
            asked: Of that window.
            now: Monotonic seconds, as in ``asked``.
            received_bytes: By now; of all windows, as in ``asked``.
            delay_s: From asking to the first sign of an answer, if the source knows.
        """
        # From asking on, not from the first byte: what a buffer held back and then gave at once is no bandwidth.
        if now - asked.at > SHORTEST_S:
            self._rates.append((received_bytes - asked.received_bytes) / (now - asked.at))
            self._not_grown += 1
            if self._rates[-1] >= self._grown_to * GROWTH:
                self._grown_to, self._not_grown = self._rates[-1], 0
        if delay_s is not None and delay_s >= 0:
            self.delay_s = delay_s if self.delay_s is None else min(self.delay_s, delay_s)

    def window_bytes(self, most: int) -> int:
        """Bytes of the next window, 1 to ``most``."""
        rate = self.rate_bytes_s
        if not rate:
            return min(most, START_BYTES)
        headroom = HEADROOM if self._not_grown >= PATIENT else STARTING_HEADROOM
        full = headroom * rate * (self.delay_s or 0.0)
        return max(1, min(most, int(max(full, min(LEAST_BYTES, rate * FILL_S)))))

    def forget(self) -> None:
        """It is another link from now on."""
        self._rates.clear()
        self._grown_to, self._not_grown = 0.0, 0
        self.delay_s = None
