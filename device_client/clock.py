"""What time it is for judging signatures, and whether the machine's clock may be believed.

Many devices have no battery for their clock: they start in 1970, or where an attacker set them. Signed messages say
that some instant has passed; that floor, and the time that went by since it was learned, is believed above all.
"""

from datetime import UTC, datetime, timedelta

from protocol.clock import Clock, rfc3339

EARLIEST = datetime(2026, 11, 1, tzinfo=UTC)
"""This program is younger than that: no device with it has lived before."""
BEHIND = timedelta(hours=1)
"""How much a sound clock may be behind what signed messages prove."""
AHEAD = timedelta(days=400)
"""How far behind the present the last signed message of a device that was switched off may be."""


class FlooredClock:
    """The machine's clock over a floor."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._floor: datetime | None = None
        self._since = 0.0

    def set_floor(self, floor: datetime | None) -> None:
        """No earlier instant is believed from now on."""
        if floor != self._floor:
            self._floor, self._since = floor, self._clock.monotonic()

    def now(self) -> datetime:
        """The later of the machine's clock and the floor, which moves on by itself."""
        lowest = self._lowest()
        return max(self._clock.now(), lowest) if lowest else self._clock.now()

    def monotonic(self) -> float:
        """Seconds since an arbitrary start; never goes back."""
        return self._clock.monotonic()

    @property
    def proven(self) -> datetime | None:
        """By what time to act: now where the machine's clock is trusted, else what signed messages prove, if any do."""
        return self._lowest() if self.doubt else self.now()

    @property
    def doubt(self) -> str:
        """Why the machine's clock is not to be trusted; empty when it is."""
        return doubt(self._clock.now(), self._lowest())

    def _lowest(self) -> datetime | None:
        elapsed = timedelta(seconds=self._clock.monotonic() - self._since)
        return self._floor + elapsed if self._floor else None


def doubt(wall: datetime, lowest: datetime | None) -> str:
    """Pure: why ``wall`` cannot be the time, in one clause; empty when it can.

    Args:
        wall: What the machine's clock says.
        lowest: What signed messages prove to have passed; None on a device that has not heard any.
    """
    earliest = max(EARLIEST, lowest - BEHIND) if lowest else EARLIEST
    if wall < earliest:
        return f"the clock says {rfc3339(wall)}, expected at least {rfc3339(earliest)}"
    if lowest and wall > lowest + AHEAD:
        return f"the clock says {rfc3339(wall)}, more than {AHEAD.days} days after what was signed last"
    return ""
