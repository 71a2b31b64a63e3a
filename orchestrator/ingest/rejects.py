"""What was dropped: counted by reason, logged at a limited rate. Nobody can fill a log or end the consumer.

The newest of each device is remembered for whoever asks about that device; of the devices last spoken for only.
"""

from collections import Counter, OrderedDict

import structlog

from orchestrator.model.device import Dropped
from protocol.clock import Clock

log = structlog.get_logger(__name__)

LOG_EVERY_S = 10.0
MAX_DETAIL_CHARS = 300
MAX_DEVICES = 10_000


class Rejects:
    """Counters by reason: an error code, or a word of ingest's own."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._logged: dict[str, float] = {}
        self._of_devices: OrderedDict[str, Dropped] = OrderedDict()
        self.counts: Counter[str] = Counter()

    def of(self, device: str) -> Dropped | None:
        """What was dropped of what came in a device's name, if it is remembered."""
        return self._of_devices.get(device)

    def add(self, reason: str, topic: str, detail: str = "", *, count: int = 1, device: str = "") -> None:
        """Count messages; log the first of a reason, then one in ``LOG_EVERY_S``.

        Args:
            device: In whose name they came; only devices that are enrolled are named, so nobody invents any.
        """
        self.counts[reason] += count
        if device:
            self._remember(device, reason, detail, count)
        now = self._clock.monotonic()
        if now - self._logged.get(reason, -LOG_EVERY_S) < LOG_EVERY_S:
            return
        self._logged[reason] = now
        log.warning(
            "report dropped",
            reason=reason,
            topic=topic[:200],
            detail=detail[:MAX_DETAIL_CHARS],
            dropped=self.counts[reason],
        )

    def _remember(self, device: str, reason: str, detail: str, count: int) -> None:
        before = self._of_devices.pop(device, None)
        so_far = before.count if before else 0
        self._of_devices[device] = Dropped(reason, detail[:MAX_DETAIL_CHARS], so_far + count, self._clock.now())
        if len(self._of_devices) > MAX_DEVICES:
            self._of_devices.popitem(last=False)
