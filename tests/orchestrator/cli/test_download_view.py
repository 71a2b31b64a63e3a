"""A rollout's downloads in words."""

from datetime import UTC, datetime, timedelta

import pytest

from orchestrator.cli.download_view import DownloadView, duration, size
from protocol.status_messages import BytesMoved, RolloutStatus

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def _status(second: float, **moved: int) -> RolloutStatus:
    return RolloutStatus(
        at=NOON + timedelta(seconds=second),
        id="r-1",
        release="gateway/2",
        state="running",
        moved=BytesMoved(expected=10_000_000, **moved),
    )


def test_ways_rate_and_remaining_time() -> None:
    """Between the statuses that were seen: bytes by their way, the fleet's rate, how long still."""
    view = DownloadView()
    view.see(_status(0))
    last = _status(10, fetched=1_000_000, delta=200_000, copied=3_000_000, present=5_000_000)
    view.see(last)
    assert view.total(last.moved) == (
        "50 % of 10 MB on devices: fetched 1 MB, 200 kB of it by delta, copied 3 MB; 100 kB/s, 10 s left"
    )


def test_one_status_has_no_rate() -> None:
    """And a rollout of which nothing is known has no line."""
    view, only = DownloadView(), _status(0, fetched=1, present=1_000_000)
    view.see(only)
    assert view.total(only.moved) == "10 % of 10 MB on devices: fetched 1 B"
    assert view.total(None) == ""
    assert view.total(BytesMoved()) == ""


def test_percentages_never_go_back() -> None:
    """Not when members join, nor when a status of before comes late."""
    view = DownloadView()
    assert view.percent("", BytesMoved(present=50, expected=100)) == 50
    assert view.percent("", BytesMoved(present=50, expected=200)) == 50
    assert view.percent("canary", BytesMoved(present=1, expected=200)) == 0


def test_an_older_status_is_no_sample() -> None:
    """A clock that was set back makes no negative rate."""
    view, last = DownloadView(), _status(10, fetched=100, present=100)
    for status in (last, _status(5), last):
        view.see(status)
    assert "/s" not in view.total(last.moved)


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.4, "0 s"), (59, "59 s"), (61, "1 min 1 s"), (3_700, "1 h 1 min"), (90_000, "1 d 1 h")]
)
def test_durations(seconds: float, words: str) -> None:
    """The two largest units."""
    assert duration(seconds) == words


@pytest.mark.parametrize(
    ("size_bytes", "words"),
    [(0, "0 B"), (999, "999 B"), (1234, "1.23 kB"), (43_210_000, "43.2 MB"), (9e14, "900 TB")],
)
def test_sizes(size_bytes: float, words: str) -> None:
    """Three digits."""
    assert size(size_bytes) == words
