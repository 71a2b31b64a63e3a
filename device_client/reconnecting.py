"""How long to wait before the next connection. Pure bookkeeping over how long the former one held.

A link that breaks again and again is no broker that is down: its back-off stays below eight times the base. It does
grow, though: two devices under one id end one another's sessions at once, and must not do so without pause.
"""

from dataclasses import dataclass
from random import Random

from protocol.mqtt.connection import backoff

STEADY_S = 10.0
UNSTEADY_ATTEMPT = 3


@dataclass
class Reconnecting:
    """Jittered back-off; who was connected for ``STEADY_S`` begins anew.

    Attributes:
        failures: Tries since there was a connection.
    """

    base_s: float
    cap_s: float
    random: Random
    failures: int = 0
    _attempt: int = 0

    def wait_s(self, held_s: float | None) -> float:
        """Seconds to wait.

        Args:
            held_s: How long the connection held; None where there was none.
        """
        # A connection that was had and lost counts as one, as it did before there was any.
        self.failures = 1 if held_s is not None else self.failures + 1
        if held_s is not None:
            self._attempt = 0 if held_s >= STEADY_S else min(self._attempt, UNSTEADY_ATTEMPT)
        attempt, self._attempt = self._attempt, self._attempt + 1
        return backoff(attempt, self.random, self.base_s, self.cap_s)
