"""Leaves a broker whose chunks come slower than ``device.toml`` allows; the next one in the list is tried.

Only time in which chunks were asked for counts. What came is kept, so a broker that drips costs time and no byte twice;
when every broker is slow, the device goes round them with back-off and still gets on.
"""

from collections.abc import Callable

from device_client.config import DownloadSection
from device_client.download.rate_floor import RateFloor
from device_client.download.sources import MqttSource
from protocol.clock import Clock
from protocol.errors import ErrorCode


class SlowBroker:
    """Watches what a source brings; it is the source's meter."""

    def __init__(
        self,
        settings: DownloadSection,
        source: MqttSource,
        leave: Callable[[str], None],
        refused: Callable[[ErrorCode, str], None],
        clock: Clock,
    ) -> None:
        """Watch ``source``; ``leave`` ends the connection, told why."""
        self._floor = RateFloor(settings.min_rate_bytes_s, settings.slow_window_s)
        self._leave = leave
        self._refused = refused
        self._clock = clock
        source.meter = self

    def watch(self) -> None:
        """Leave the broker if it is too slow; called a few times a second."""
        rate = self._floor.judge(self._clock.monotonic())
        if rate is not None:
            floor = f"{self._floor.min_rate_bytes_s} B/s over {self._floor.window_s:g} s"
            self._refused(
                ErrorCode.SLOW, f"chunks: expected at least {floor}, found {rate:.1f}; another broker is tried"
            )
            self._leave("its chunks come too slowly")

    def asked(self) -> None:
        """Chunks are waited for."""
        self._floor.asked(self._clock.monotonic())

    def arrived(self, size_bytes: int) -> None:
        """One of them came."""
        self._floor.arrived(size_bytes)

    def rested(self, *, gone: bool) -> None:
        """None is waited for; ``gone``: the connection went, the next is measured anew."""
        self._floor.rested(self._clock.monotonic())
        if gone:
            self._floor.forget()
