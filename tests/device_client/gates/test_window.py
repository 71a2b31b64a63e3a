"""Weekly windows in the device's zone: open inside, closed outside, right on the days when clocks change.

Whoever names windows is waited for: the device's owner, the release, the rollout; all that do must have one open.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, time, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_client.clock import FlooredClock
from device_client.config_windows import WindowSection
from device_client.gates.gate import GateContext, Ready, Verdict, Wait
from device_client.gates.policy import WindowSet
from device_client.gates.window import HORIZON, LocalSet, LocalWindow, WindowGate, judge, local
from protocol.clock import ManualClock, rfc3339
from protocol.manifest import Policy
from protocol.states import Phase
from protocol.windows import DAYS, Day, PolicyWindow

OSLO, NEW_YORK, LORD_HOWE = "Europe/Oslo", "America/New_York", "Australia/Lord_Howe"
NIGHTS = PolicyWindow(days=DAYS, start="02:30", minutes=60)
SUNDAY = PolicyWindow(days=("sun",), start="23:00", minutes=120)


def at(text: str) -> datetime:
    """An instant in UTC."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def named(*windows: PolicyWindow, whose: str = "rollout") -> WindowSet:
    """A policy's windows."""
    return WindowSet(whose, windows)


def opens(window: PolicyWindow, text: str, zone: str = "UTC") -> bool:
    """Whether the window is open at an instant."""
    return isinstance(judge([local(named(window), zone)], at(text)), Ready)


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
    ("zone", "instant", "is_open"),
    [
        (OSLO, "2026-11-25T01:29:59", False),  # 02:29:59 in winter
        (OSLO, "2026-11-25T01:30:00", True),
        (OSLO, "2026-07-01T00:30:00", True),  # 02:30 in summer
        (OSLO, "2026-07-01T01:30:00", False),
        # Clocks go forward: 02:00 becomes 03:00 on 29 March; 02:30 does not exist. The gap ends at 01:00 UTC.
        (OSLO, "2026-03-29T00:59:59", False),
        (OSLO, "2026-03-29T01:00:00", True),
        (OSLO, "2026-03-29T01:59:59", True),
        (OSLO, "2026-03-29T02:00:00", False),
        # Clocks go back: 03:00 becomes 02:00 on 25 October; 02:30 comes twice, the first counts: 00:30 UTC.
        (OSLO, "2026-10-25T00:29:59", False),
        (OSLO, "2026-10-25T00:30:00", True),
        (OSLO, "2026-10-25T01:29:59", True),
        (OSLO, "2026-10-25T01:30:00", False),
        # Clocks go forward: 02:00 becomes 03:00 on 8 March; the gap ends at 07:00 UTC.
        (NEW_YORK, "2026-03-08T06:59:59", False),
        (NEW_YORK, "2026-03-08T07:00:00", True),
        (NEW_YORK, "2026-03-08T07:59:59", True),
        (NEW_YORK, "2026-03-08T08:00:00", False),
        # Clocks go back: 02:00 becomes 01:00 on 1 November; 02:30 comes once, after both: 07:30 UTC.
        (NEW_YORK, "2026-11-01T06:30:00", False),
        (NEW_YORK, "2026-11-01T07:29:59", False),
        (NEW_YORK, "2026-11-01T07:30:00", True),
        (NEW_YORK, "2026-11-01T08:30:00", False),
        # By half an hour: 02:00 becomes 02:30 on 4 October, so that 02:30 is there, at 15:30 UTC of the day before.
        (LORD_HOWE, "2026-10-03T15:29:59", False),
        (LORD_HOWE, "2026-10-03T15:30:00", True),
        (LORD_HOWE, "2026-10-03T16:30:00", False),
    ],
)
def test_windows_on_days_when_clocks_change(zone: str, instant: str, is_open: bool) -> None:
    """A start that does not exist is the end of the gap; of one that comes twice the first counts; minutes elapse."""
    assert opens(NIGHTS, instant, zone) is is_open


WINDOWS = st.builds(
    PolicyWindow,
    days=st.lists(st.sampled_from(DAYS), min_size=1, unique=True).map(tuple),
    start=st.sampled_from(["00:00", "01:45", "02:30", "13:00", "23:59"]),
    minutes=st.sampled_from([1, 60, 600, 1440]),
)
SETS = st.builds(
    lambda windows, zone: local(named(*windows), zone),
    st.lists(WINDOWS, min_size=1, max_size=3),
    st.sampled_from(["UTC", OSLO, NEW_YORK]),
)
INSTANTS = st.integers(0, 2 * 365 * 86_400).map(lambda seconds: at("2026-01-01T00:00:00") + timedelta(seconds=seconds))


@given(INSTANTS, st.lists(SETS, min_size=1, max_size=3))
def test_a_closed_gate_says_when_it_opens(now: datetime, sets: Sequence[LocalSet]) -> None:
    """At the instant that it names every set is open, just before it is not, and nowhere in between."""

    def all_open(instant: datetime) -> bool:
        return all(any(_is_open(window, instant) for window in one.windows) for one in sets)

    match judge(sets, now):
        case Wait("closed", detail, retry_after_s):
            assert not all_open(now)
            opening = now + timedelta(seconds=retry_after_s)
            if "not all windows are open at once" in detail:
                opening = now + HORIZON
            else:
                assert rfc3339(opening) in detail
                assert all_open(opening)
            assert not all_open(opening - timedelta(milliseconds=1))
            assert not any(all_open(now + (opening - now) * part / 50) for part in range(50))
        case verdict:
            assert verdict == Ready()
            assert all_open(now)


def _is_open(window: LocalWindow, instant: datetime) -> bool:
    """One window by itself."""
    return isinstance(judge([LocalSet("rollout", (window,))], instant), Ready)


def context(phase: Phase, *sets: WindowSet) -> GateContext:
    """What is to be done."""
    return GateContext(phase, "r-1", 0, Policy(), "", sets)


def gate(now: str, *own: WindowSection, zone: str = "UTC") -> WindowGate:
    """Of a device whose clock is believed."""
    return WindowGate(own, lambda: zone, FlooredClock(ManualClock(at(now))))


def owns(days: tuple[Day, ...], start: int, minutes: int, timezone: str | None = None) -> WindowSection:
    """A window of the device's owner."""
    return WindowSection(days=days, start=time(start), minutes=minutes, timezone=timezone)


EVENINGS = PolicyWindow(days=("mon", "tue", "wed"), start="20:00", minutes=240)
LATE = PolicyWindow(days=("wed",), start="22:00", minutes=60)


@pytest.mark.parametrize(
    ("now", "own", "release", "rollout", "shut"),
    [
        ("2026-11-25T22:30", True, True, True, ""),  # a Wednesday; all three
        ("2026-11-25T21:30", True, True, True, "rollout"),
        ("2026-11-24T22:30", True, True, True, "rollout"),
        ("2026-11-24T22:30", True, True, False, ""),
        ("2026-11-26T22:30", True, True, False, "release"),
        ("2026-11-26T22:30", True, False, True, "rollout"),
        ("2026-11-26T22:30", True, False, False, ""),
        ("2026-11-25T12:00", True, True, True, "device release rollout"),
        ("2026-11-25T12:00", False, True, False, "release"),
        ("2026-11-25T12:00", False, False, True, "rollout"),
        ("2026-11-25T12:00", False, False, False, ""),
    ],
)
async def test_everybodys_windows_must_be_open(now: str, own: bool, release: bool, rollout: bool, shut: str) -> None:
    """Owner, release and rollout each wait with those that they name; nobody's open another's."""
    sets = [named(EVENINGS, whose="release")] * release + [named(LATE)] * rollout
    watched = gate(now, *([owns(DAYS, 18, 360)] if own else []))
    verdict = await watched.judge(context(Phase.INSTALL, *sets))
    assert _shut(verdict) == shut.split()
    assert await watched.judge(context(Phase.ACTIVATE, *sets)) == verdict
    assert await watched.judge(context(Phase.DOWNLOAD, *sets)) == Ready(), "what is fetched before is there in time"


async def test_the_reason_says_whose_windows_are_shut_and_when_all_are_open() -> None:
    """Not when the first of them opens: on Monday evening there is the release's, but not yet the rollout's."""
    watched = gate("2026-11-23T12:00", owns(DAYS, 21, 120))
    verdict = await watched.judge(context(Phase.INSTALL, named(EVENINGS, whose="release"), named(LATE)))
    assert verdict == Wait(
        "closed",
        "the next window opens at 2026-11-25T22:00:00Z; shut: device (mon, tue, wed, thu, fri, sat, sun 21:00 UTC "
        "for 120 min); release (mon, tue, wed 20:00 UTC for 240 min); rollout (wed 22:00 UTC for 60 min)",
        (at("2026-11-25T22:00") - at("2026-11-23T12:00")).total_seconds(),
    )


async def test_windows_that_are_never_open_at_once() -> None:
    """That is said, instead of an hour that will not come; it is looked at again each day."""
    watched = gate("2026-11-25T22:30", owns(("sat",), 9, 60), owns(("sat",), 12, 60), owns(("sun",), 12, 60))
    verdict = await watched.judge(context(Phase.INSTALL, named(LATE)))
    assert isinstance(verdict, Wait)
    assert verdict.detail == (
        "not all windows are open at once within 14 days; "
        "shut: device (sat 09:00 UTC for 60 min; sat 12:00 UTC for 60 min and 1 more)"
    )
    assert verdict.retry_after_s == 86_400


@pytest.mark.parametrize(("now", "told"), [("2027-02-28T15:59:59", False), ("2027-02-28T16:00:00", True)])
async def test_how_far_ahead_it_is_looked(now: str, told: bool) -> None:
    """Two weeks: noon in New York is five in Oslo only once the one has summer time, on 14 March, and not the other."""
    watched = gate(now, owns(DAYS, 12, 60, NEW_YORK), zone=OSLO)
    verdict = await watched.judge(context(Phase.INSTALL, named(PolicyWindow(days=DAYS, start="17:00", minutes=60))))
    assert isinstance(verdict, Wait)
    assert ("the next window opens at 2027-03-14T16:00:00Z" in verdict.detail) is told


async def test_windows_count_in_the_zone_of_the_device() -> None:
    """A policy's always, the owner's unless they say another; the zone may be set while the agent runs."""
    zone = OSLO
    clock = ManualClock(at("2026-11-25T21:30"))  # 22:30 in Oslo, 16:30 in New York
    watched = WindowGate([], lambda: zone, FlooredClock(clock))
    assert await watched.judge(context(Phase.INSTALL, named(LATE))) == Ready()
    zone = NEW_YORK
    assert _shut(await watched.judge(context(Phase.INSTALL, named(LATE)))) == ["rollout"]
    own = gate("2026-11-25T21:30", owns(DAYS, 22, 60), zone=OSLO)
    assert await own.judge(context(Phase.INSTALL)) == Ready()
    own = gate("2026-11-25T21:30", owns(DAYS, 22, 60, NEW_YORK), zone=OSLO)
    assert _shut(await own.judge(context(Phase.INSTALL))) == ["device"]


def test_windows_that_touch_are_one() -> None:
    """Where one ends as the next begins, and where they overlap, the set stays open."""
    halves = [PolicyWindow(days=DAYS, start=f"{hour:02}:00", minutes=360) for hour in (0, 6, 11, 17)]
    sets = [local(named(*halves), zone) for zone in ("UTC", OSLO)]
    for hour in range(24):
        verdict = judge(sets, at(f"2026-11-25T{hour:02}:00"))
        assert isinstance(verdict, Ready if hour < 22 else Wait)  # 23:00 in Oslo, where the day's last one ends


async def test_a_clock_that_is_not_believed_opens_no_window() -> None:
    """Who sets the clock into the window gets nothing; a download needs no window."""
    doubted = ManualClock(at("1970-01-04T23:30:00"))  # a Sunday night
    for watched, sets in (
        (WindowGate([owns(("sun",), 23, 120)], lambda: "UTC", FlooredClock(doubted)), ()),
        (WindowGate([], lambda: "UTC", FlooredClock(doubted)), (named(SUNDAY),)),
    ):
        verdict = await watched.judge(context(Phase.INSTALL, *sets))
        assert isinstance(verdict, Wait)
        assert verdict.code == "clock"
        assert await watched.judge(context(Phase.DOWNLOAD, *sets)) == Ready()
    assert await gate("2026-11-29T23:30:00", owns(("sun",), 23, 120)).judge(context(Phase.ACTIVATE)) == Ready()


async def test_without_windows_there_is_no_wait() -> None:
    """Where nobody named any, updates are taken at any time, whatever the clock says."""
    watched = WindowGate([], lambda: "UTC", FlooredClock(ManualClock(at("1970-01-01T00:00:00"))))
    assert await watched.judge(context(Phase.INSTALL)) == Ready()


def _shut(verdict: Verdict) -> list[str]:
    """Whose windows the reason names as shut."""
    if not isinstance(verdict, Wait):
        return []
    told = verdict.detail.partition("shut: ")[2]
    return [whose for whose in ("device", "release", "rollout") if f"{whose} (" in told]
