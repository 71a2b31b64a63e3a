"""What cannot work is refused, with what was found."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from orchestrator.errors import ConflictError, UsageError
from orchestrator.rollouts.impossible import check_plan, opens_between
from tests.orchestrator.rollouts.yard import plan

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
"""A Wednesday."""
HOUR, DAY = timedelta(hours=1), timedelta(days=1)


@dataclass(frozen=True)
class Weekly:
    """As ``protocol.windows.PolicyWindow``."""

    days: tuple[str, ...]
    start: str
    minutes: int


SUNDAYS = Weekly(("sun",), "02:00", 60)


@pytest.mark.parametrize(
    ("rules", "says"),
    [
        pytest.param({"start_at": NOW - HOUR}, "start_at 2026-11-25T11:00:00+0000: is past", id="start"),
        pytest.param({"end_at": NOW - HOUR}, "end_at 2026-11-25T11:00:00+0000: is past", id="end"),
        pytest.param({"end_at": NOW + 366 * DAY}, "at most 365 days from the start, found 366", id="too late an end"),
    ],
)
def test_times_are_ahead_and_near(rules: dict[str, Any], says: str) -> None:
    """A slip in the date does not start a rollout at once, nor hold a release for years."""
    with pytest.raises(UsageError) as refused:
        check_plan(plan(**rules), image_bytes=1, now=NOW)
    assert says in str(refused.value)


def test_a_start_that_has_just_passed_is_now() -> None:
    """The command was on its way."""
    check_plan(plan(start_at=NOW - timedelta(seconds=30), end_at=NOW + 364 * DAY), image_bytes=1, now=NOW)


def test_a_site_gets_at_least_one_image_an_hour() -> None:
    """Both figures are named; exactly one image is enough."""
    with pytest.raises(ConflictError, match=r"site_bytes_per_hour 999: gateway/1\.1\.0 is 1000 bytes"):
        check_plan(plan(site_bytes_per_hour=999), image_bytes=1000, now=NOW)
    check_plan(plan(site_bytes_per_hour=1000), image_bytes=1000, now=NOW)


def test_a_window_opens_before_the_end() -> None:
    """From Wednesday to Friday it is Sunday nowhere; an emergency does not ask; without an end Sunday comes."""
    ends = {"end_at": NOW + 2 * DAY}
    with pytest.raises(ConflictError, match=r"none opens between 2026-11-25T12:00:00\+0000 and end_at 2026-11-27T12"):
        check_plan(plan(**ends), image_bytes=1, now=NOW, windows=[SUNDAYS])
    check_plan(plan(**ends), image_bytes=1, now=NOW, windows=[SUNDAYS, Weekly(("fri",), "00:00", 10)])
    check_plan(plan(emergency=True, **ends), image_bytes=1, now=NOW, windows=[SUNDAYS])
    check_plan(plan(), image_bytes=1, now=NOW, windows=[SUNDAYS])
    check_plan(plan(start_at=NOW + 3 * DAY, end_at=NOW + 5 * DAY), image_bytes=1, now=NOW, windows=[SUNDAYS])


@pytest.mark.parametrize(
    ("begin", "end", "opens"),
    [
        pytest.param("2026-11-28T12:30", "2026-11-28T13:00", True, id="in UTC+14 it is Sunday already"),
        pytest.param("2026-11-28T11:00", "2026-11-28T11:59", False, id="not even there"),
        pytest.param("2026-11-29T14:30", "2026-11-29T15:00", True, id="in UTC-12 it is still open"),
        pytest.param("2026-11-29T15:00", "2026-11-29T16:00", False, id="closed everywhere"),
        pytest.param("2026-11-30T00:00", "2026-12-31T00:00", True, id="longer than a week"),
    ],
)
def test_every_zone_counts(begin: str, end: str, opens: bool) -> None:
    """A window is open as long as it is open in some zone of the earth."""
    first, last = (datetime.fromisoformat(text).replace(tzinfo=UTC) for text in (begin, end))
    assert opens_between(SUNDAYS, first, last) is opens


def test_a_window_may_pass_midnight() -> None:
    """Saturday's window of a day is open on Sunday."""
    window = Weekly(("sat",), "23:00", 1440)
    first = datetime(2026, 11, 30, 10, tzinfo=UTC)
    assert opens_between(window, first, first + HOUR)
    assert not opens_between(window, first + HOUR, first + 2 * HOUR)
