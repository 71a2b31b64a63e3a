"""Tells that the machine's clock cannot be right: once, and again when it was right in between."""

from device_client.clock import FlooredClock
from device_client.refusals import Refusals
from protocol.errors import ErrorCode, ProtocolError


class ClockDoubt:
    """One device's."""

    def __init__(self, clock: FlooredClock, refusals: Refusals) -> None:
        self._clock = clock
        self._refusals = refusals
        self._doubted = False

    def look(self) -> None:
        """Called a few times a second, and before the first report."""
        doubt = self._clock.doubt
        if doubt and not self._doubted:
            self._refusals.add("", ProtocolError(ErrorCode.CLOCK, doubt))
        self._doubted = bool(doubt)
