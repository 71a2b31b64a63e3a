"""What this device refused: counted, logged when it is news, and told to the operator. It never moves the machine."""

from collections import Counter
from datetime import datetime

import structlog

from protocol.clock import Clock
from protocol.errors import ErrorCode, ProtocolError
from protocol.reports import MAX_REFUSALS, Refusal

log = structlog.get_logger(__name__)

MAX_ROLLOUTS = 256
"""Rollouts whose refusals are kept apart; more than that at once is a flood."""


class Refusals:
    """One device's.

    Attributes:
        newest: Code and detail of what is refused now, by rollout ("" for trust metadata and what names no rollout).
        counts: How often, by code.
        changes: Rises when something was refused for a new reason: worth a report.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._said: dict[ErrorCode, tuple[str, datetime]] = {}
        self.newest: dict[str, tuple[ErrorCode, str]] = {}
        self.counts: Counter[str] = Counter()
        self.changes = 0

    def add(self, rollout: str, error: ProtocolError) -> None:
        """Count one; log it only when it is news."""
        self.counts[error.code.value] += 1
        news = self.newest.get(rollout) != (error.code, error.detail)
        if news:
            log.warning("message refused", rollout_id=rollout, code=error.code.value, detail=error.detail)
        if news or error.code not in self._said:
            self.changes += 1
        if len(self.newest) >= MAX_ROLLOUTS and rollout not in self.newest:
            self.newest.pop(next(iter(self.newest)))
        self.newest[rollout] = (error.code, error.detail)
        self._said.pop(error.code, None)  # the newest stands last
        self._said[error.code] = (error.detail, self._clock.now())

    def accepted(self, rollout: str) -> None:
        """What came now is good: nothing is refused there any more."""
        self.newest.pop(rollout, None)

    def withdraw(self, rollout: str, error: ProtocolError) -> None:
        """What ``add`` said no longer holds: it is reported no more, unless its code was said of something else."""
        if self.newest.get(rollout) == (error.code, error.detail):
            self.newest.pop(rollout)
        if error.code in self._said and self._said[error.code][0] == error.detail:
            self._said.pop(error.code)
            self.changes += 1

    def report(self) -> list[Refusal]:
        """For the inventory: the newest of each code, at most ``MAX_REFUSALS`` codes."""
        newest = list(self._said.items())[-MAX_REFUSALS:]
        return [
            Refusal(code=code, detail=detail[:500], count=self.counts[code.value], last=last)
            for code, (detail, last) in newest
        ]
