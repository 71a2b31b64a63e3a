"""Since when time can be trusted to have passed as the clock says: no leap of the clock, nobody deaf. Pure."""

from datetime import datetime, timedelta

LEAP = timedelta(seconds=60)
"""How far wall time may run away from monotonic time between two looks."""


class Steadiness:
    """Watches two clocks.

    Attributes:
        since: What devices take long for is measured from here at the earliest.
        leapt_at: When the wall clock leapt last.
    """

    def __init__(self, now: datetime, monotonic_s: float) -> None:
        self.since = now
        self.leapt_at: datetime | None = None
        self._at = (now, monotonic_s)

    def see(self, now: datetime, monotonic_s: float) -> bool:
        """Take note of both clocks; True when the wall clock leapt since the last time."""
        passed = timedelta(seconds=monotonic_s - self._at[1])
        leapt = abs((now - self._at[0]) - passed) > LEAP
        self._at = (now, monotonic_s)
        if leapt:
            self.since = self.leapt_at = now
        return leapt

    def begin_anew(self, now: datetime) -> None:
        """Reports may have been lost until now: what takes long is counted from here."""
        self.since = now
