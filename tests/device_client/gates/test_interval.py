"""Interval: the last update must be long enough ago."""

from datetime import UTC, datetime, timedelta

import pytest

from device_client.gates.gate import GateContext, Ready, Wait
from device_client.gates.interval import IntervalGate, judge
from protocol.clock import ManualClock
from protocol.manifest import Policy
from protocol.states import Phase

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("ago_s", "interval_s", "left_s"),
    [
        (None, 3600, None),
        (10, None, None),
        (10, 0, None),
        (3600, 3600, None),
        (3599, 3600, 1),
        (0, 3600, 3600),
        (-500, 3600, 3600),
    ],
)
def test_judge(ago_s: float | None, interval_s: int | None, left_s: float | None) -> None:
    """Waits exactly for what is left; a last update in the future counts as just now."""
    last = None if ago_s is None else NOW - timedelta(seconds=ago_s)
    verdict = judge(last, NOW, interval_s)
    if left_s is None:
        assert verdict == Ready()
    else:
        assert isinstance(verdict, Wait)
        assert verdict.retry_after_s == left_s


async def test_opens_by_itself() -> None:
    """The gate opens when the clock has moved far enough."""
    clock = ManualClock(NOW)
    gate = IntervalGate(lambda: NOW, clock)
    context = GateContext(Phase.DOWNLOAD, "r", 0, Policy(min_interval_s=60), "ab" * 32)
    assert isinstance(await gate.judge(context), Wait)
    clock.advance(60)
    assert await gate.judge(context) == Ready()
