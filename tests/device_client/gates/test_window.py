"""Weekly windows in the device's zone: open inside, closed outside, right on the days when clocks change."""

from datetime import UTC, datetime, time, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_client.clock import FlooredClock
from device_client.config import WindowSection
from device_client.gates.gate import GateContext, Ready, Wait
from device_client.gates.window import DAYS, WindowGate, judge
from protocol.clock import ManualClock
from protocol.manifest import Policy
from protocol.states import Phase

NIGHTS = WindowSection(days=DAYS, start=time(2, 30), minutes=60, timezone="Europe/Oslo")
SUNDAY = WindowSection(days=("sun",), start=time(23), minutes=120)


def at(text: str) -> datetime:
    """An instant in UTC."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def opens(window: WindowSection, text: str) -> bool:
    """Whether the window is open at an instant."""
    return isinstance(judge([window], at(text)), Ready)


@pytest.mark.parametrize(
    ("instant", "is_open"),
    [
        ("2026-11-29T22:59:59", False),  # a Sunday
        ("2026-11-29T23:00:00", True),
        ("2026-11-30T00:59:59", True),  # past midnight, on Monday
        ("2026-11-30T01:00:00", False),
        ("2026-11-28T23:30:00", False),
    ],
)
def test_a_window_begins_on_its_day_and_may_pass_midnight(instant: str, is_open: bool) -> None:
    """From its start, for its minutes, and not a second longer."""
    assert opens(SUNDAY, instant) is is_open


@pytest.mark.parametrize(
    ("instant", "is_open"),
    [
        ("2026-11-25T01:29:59", False),  # 02:29:59 in winter
        ("2026-11-25T01:30:00", True),
        ("2026-07-01T00:30:00", True),  # 02:30 in summer
        ("2026-07-01T01:30:00", False),
        # Clocks go forward: 02:00 becomes 03:00 on 29 March; 02:30 does not exist. The gap ends at 01:00 UTC.
        ("2026-03-29T00:59:59", False),
        ("2026-03-29T01:00:00", True),
        ("2026-03-29T01:59:59", True),
        ("2026-03-29T02:00:00", False),
        # Clocks go back: 03:00 becomes 02:00 on 25 October; 02:30 comes twice, the first counts: 00:30 UTC.
        ("2026-10-25T00:29:59", False),
        ("2026-10-25T00:30:00", True),
        ("2026-10-25T01:29:59", True),
        ("2026-10-25T01:30:00", False),
    ],
)
def test_windows_on_days_when_clocks_change(instant: str, is_open: bool) -> None:
    """A start that does not exist is the end of the gap; of one that comes twice the first counts; minutes elapse."""
    assert opens(NIGHTS, instant) is is_open


@given(st.integers(0, 2 * 365 * 86_400), st.sets(st.sampled_from(DAYS), min_size=1))
def test_a_closed_window_says_when_it_opens(seconds: int, days: set[Any]) -> None:
    """At the instant that it names it is open, and just before it is closed."""
    window = WindowSection(days=tuple(days), start=time(2, 30), minutes=60, timezone="Europe/Oslo")
    now = at("2026-01-01T00:00:00") + timedelta(seconds=seconds)
    match judge([window], now):
        case Wait(_, _, retry_after_s):
            opening = now + timedelta(seconds=retry_after_s)
            assert isinstance(judge([window], opening), Ready)
            assert isinstance(judge([window], opening - timedelta(milliseconds=1)), Wait)
        case verdict:
            assert isinstance(verdict, Ready)


def context(phase: Phase) -> GateContext:
    """What is to be done."""
    return GateContext(phase=phase, rollout="r-1", need_bytes=0, policy=Policy(), manifest_digest="")


async def test_a_clock_that_is_not_believed_opens_no_window() -> None:
    """Who sets the clock into the window gets nothing; a download needs no window."""
    clock = FlooredClock(ManualClock(at("1970-01-04T23:30:00")))  # a Sunday night
    gate = WindowGate([SUNDAY], clock)
    verdict = await gate.judge(context(Phase.INSTALL))
    assert isinstance(verdict, Wait)
    assert verdict.code == "clock"
    assert await gate.judge(context(Phase.DOWNLOAD)) == Ready()
    clock = FlooredClock(ManualClock(at("2026-11-29T23:30:00")))
    assert await WindowGate([SUNDAY], clock).judge(context(Phase.ACTIVATE)) == Ready()


async def test_without_windows_there_is_no_wait() -> None:
    """A device whose owner set none takes updates at any time, whatever its clock says."""
    gate = WindowGate([], FlooredClock(ManualClock(at("1970-01-01T00:00:00"))))
    assert await gate.judge(context(Phase.INSTALL)) == Ready()
