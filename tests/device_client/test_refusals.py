"""What was refused: counted, told by code, bounded whatever comes."""

from datetime import UTC, datetime

from device_client.refusals import MAX_ROLLOUTS, Refusals
from protocol.clock import ManualClock
from protocol.errors import ErrorCode, ProtocolError
from protocol.reports import MAX_REFUSALS

NOON = datetime(2026, 11, 25, 12, tzinfo=UTC)


def refused(code: ErrorCode, detail: str = "why") -> ProtocolError:
    """One refusal."""
    return ProtocolError(code, detail)


def test_every_refusal_counts_and_only_news_changes_anything() -> None:
    """The same again is counted; another reason is a change worth a report."""
    clock = ManualClock(NOON)
    refusals = Refusals(clock)
    for _ in range(3):
        refusals.add("r-1", refused(ErrorCode.REPLAY))
    assert (refusals.counts["E_REPLAY"], refusals.changes) == (3, 1)
    clock.advance(60)
    refusals.add("r-1", refused(ErrorCode.SCOPE, "device d2: this is d1"))
    assert refusals.changes == 2
    replay, scope = refusals.report()
    assert (replay.code, replay.count, replay.last) == (ErrorCode.REPLAY, 3, NOON)
    assert (scope.code, scope.detail, scope.count) == (ErrorCode.SCOPE, "device d2: this is d1", 1)
    assert scope.last > replay.last


def test_what_is_accepted_is_not_refused_any_more_but_stays_told() -> None:
    """A good message ends the refusal of its rollout; the operator still sees that there was one."""
    refusals = Refusals(ManualClock(NOON))
    refusals.add("r-1", refused(ErrorCode.SIGNATURE))
    refusals.accepted("r-1")
    assert not refusals.newest
    assert [one.code for one in refusals.report()] == [ErrorCode.SIGNATURE]


def test_a_flood_is_bounded() -> None:
    """Rollouts without end and every code there is: memory and report stay small, the newest are kept."""
    refusals = Refusals(ManualClock(NOON))
    for number in range(2 * MAX_ROLLOUTS):
        refusals.add(f"r-{number}", refused(ErrorCode.REPLAY))
    assert len(refusals.newest) == MAX_ROLLOUTS
    for code in ErrorCode:
        refusals.add("", refused(code, "x" * 2000))
    report = refusals.report()
    assert [one.code for one in report] == list(ErrorCode)[-MAX_REFUSALS:]
    assert all(len(one.detail) == 500 for one in report)


def test_what_is_withdrawn_is_told_no_more() -> None:
    """A fault that was mended leaves the report; the same code said of something else stays."""
    refusals = Refusals(ManualClock(NOON))
    damaged, other = refused(ErrorCode.POSTINSTALL, "file 'app'"), refused(ErrorCode.POSTINSTALL, "r-1's own")
    refusals.add("", damaged)
    refusals.withdraw("", damaged)
    assert (refusals.newest, refusals.report(), refusals.changes) == ({}, [], 2)
    refusals.add("", damaged)
    refusals.add("r-1", other)
    refusals.withdraw("", damaged)
    assert [one.detail for one in refusals.report()] == ["r-1's own"]
    assert refusals.newest == {"r-1": (ErrorCode.POSTINSTALL, "r-1's own")}
