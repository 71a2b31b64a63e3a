"""What was dropped is counted; the log cannot be filled."""

from datetime import UTC, datetime

from structlog.testing import capture_logs

from orchestrator.ingest.rejects import LOG_EVERY_S, MAX_DETAIL_CHARS, MAX_DEVICES, Rejects
from orchestrator.model.device import Dropped
from protocol.clock import ManualClock


def test_a_reason_is_logged_once_in_a_while_and_counted_always() -> None:
    """A thousand at once are one line; the next line names how many there were."""
    clock = ManualClock(datetime(2026, 11, 24, tzinfo=UTC))
    rejects = Rejects(clock)
    with capture_logs() as lines:
        for _ in range(1000):
            rejects.add("E_FORMAT", "up/dev1/state")
        rejects.add("E_REPLAY", "up/dev1/state")
        clock.advance(LOG_EVERY_S)
        rejects.add("E_FORMAT", "up/dev1/state", count=2)
    assert [(line["reason"], line["dropped"]) for line in lines] == [
        ("E_FORMAT", 1),
        ("E_REPLAY", 1),
        ("E_FORMAT", 1002),
    ]
    assert rejects.counts == {"E_FORMAT": 1002, "E_REPLAY": 1}


def test_a_line_stays_short() -> None:
    """Topic and detail come from outside: both are cut."""
    rejects = Rejects(ManualClock(datetime(2026, 11, 24, tzinfo=UTC)))
    with capture_logs() as lines:
        rejects.add("E_FORMAT", "t" * 10_000, "d" * 10_000)
    assert (len(lines[0]["topic"]), len(lines[0]["detail"])) == (200, MAX_DETAIL_CHARS)


def test_the_newest_of_each_device_is_remembered() -> None:
    """By device, with how many there were and when; the devices spoken for last, and no more than a bound."""
    clock = ManualClock(datetime(2026, 11, 24, tzinfo=UTC))
    rejects = Rejects(clock)
    rejects.add("E_REPLAY", "up/dev1", device="dev1")
    clock.advance(5)
    rejects.add("E_SIGNATURE", "up/dev1", "d" * 10_000, device="dev1")
    rejects.add("E_FORMAT", "up/nobody")
    assert rejects.of("dev1") == Dropped("E_SIGNATURE", "d" * MAX_DETAIL_CHARS, 2, clock.now())
    assert rejects.of("nobody") is None
    for number in range(MAX_DEVICES):
        rejects.add("E_FORMAT", "up/x", device=f"other-{number}")
        if number == 0:
            assert rejects.of("dev1") is not None
    assert rejects.of("dev1") is None
    assert rejects.of("other-0") is not None
