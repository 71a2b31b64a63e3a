"""Was the last update long enough ago?"""

from collections.abc import Callable
from datetime import datetime

from device_client.gates.gate import GateContext, Ready, Verdict, Wait
from protocol.clock import Clock


class IntervalGate:
    """Open when ``min_interval_s`` of the policy has passed since the last commit."""

    name = "interval"

    def __init__(self, last_update: Callable[[], datetime | None], clock: Clock) -> None:
        self._last_update = last_update
        self._clock = clock

    async def judge(self, context: GateContext) -> Verdict:
        """Judge at the clock's now."""
        return judge(self._last_update(), self._clock.now(), context.policy.min_interval_s)


def judge(last: datetime | None, now: datetime, min_interval_s: int | None) -> Verdict:
    """Pure. A last update in the future (the clock was set back) counts as just now."""
    if last is None:
        return Ready("no update before this one")
    passed_s = max(0.0, (now - last).total_seconds())
    left = (min_interval_s or 0) - passed_s
    if left <= 0:
        return Ready(f"the last update was {passed_s:.0f} s ago; at least {min_interval_s or 0} s are demanded")
    return Wait("too_soon", f"the last update was less than {min_interval_s} s ago", left)
