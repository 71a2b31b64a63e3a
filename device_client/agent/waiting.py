"""How long an update has waited for this device in one phase. Pure; the caller brings monotonic time.

Only waiting for the device's own gates counts: what the orchestrator holds, or has not granted yet, is not for the
device to end. What has been waited is handed over in portions, so that a restart loses little and no flash is worn.
"""

from device_client.agent import events as ev
from device_client.agent.journal import Update
from protocol.states import State

ORDER_GATE = "order"
PLACES = frozenset({State.WAITING, State.FETCHED, State.INSTALLED})
_PORTIONS = 64
_LEAST_S = 1.0
_MOST_S = 3600.0


class WaitingClock:
    """Counts while gates are shut."""

    def __init__(self, deadline_s: float, *, expires: bool) -> None:
        """Begin.

        Args:
            deadline_s: Of one phase; 0: there is none, and nothing is counted.
            expires: Whether the update ends then; else it only has waited so long.
        """
        self._deadline_s = deadline_s
        self._expires = expires
        self._portion_s = min(max(deadline_s / _PORTIONS, _LEAST_S), _MOST_S)
        self._since: float | None = None

    def see(self, update: Update, now: float) -> ev.Waited | ev.WaitedTooLong | None:
        """What is to be told of the update as it is; called a few times a second."""
        if not self._deadline_s or not is_shut(update):
            self._since = None
            return None
        if self._since is None:
            self._since = now
        new_s = now - self._since
        is_late = update.waited_s + new_s >= self._deadline_s
        if is_late and self._expires:
            gates = ", ".join(sorted({reason.gate for reason in update.reasons if reason.gate != ORDER_GATE}))
            return ev.WaitedTooLong(f"waited {self._deadline_s:g} s for {gates}: {update.reasons[0].detail}"[:500])
        if new_s >= self._portion_s or (is_late and update.waited_s < self._deadline_s):
            self._since = now
            return ev.Waited(new_s)
        return None


def is_shut(update: Update) -> bool:
    """Whether it waits for a gate of this device."""
    return update.state in PLACES and any(reason.gate != ORDER_GATE for reason in update.reasons)
