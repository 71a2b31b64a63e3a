"""What was dropped: counted by reason, logged at a limited rate. Nobody can fill a log or end the consumer."""

from collections import Counter

import structlog

from protocol.clock import Clock

log = structlog.get_logger(__name__)

LOG_EVERY_S = 10.0
MAX_DETAIL_CHARS = 300


class Rejects:
    """Counters by reason: an error code, or a word of ingest's own."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._logged: dict[str, float] = {}
        self.counts: Counter[str] = Counter()

    def add(self, reason: str, topic: str, detail: str = "", *, count: int = 1) -> None:
        """Count messages; log the first of a reason, then one in ``LOG_EVERY_S``."""
        self.counts[reason] += count
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
