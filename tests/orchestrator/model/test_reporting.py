"""What a report changes: a table of rows and reports, and what no report may ever do."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.model.assignment import OFFERED, Assignment, Work, moved
from orchestrator.model.reporting import apply_progress, apply_readiness, apply_state
from protocol.errors import ErrorCode
from protocol.reports import Progress, Readiness, Reason, StateReport
from protocol.states import OUTCOMES, Phase, State

NOW = datetime(2026, 11, 24, tzinfo=UTC)
LATER = datetime(2026, 11, 25, tzinfo=UTC)
HEAD: dict[str, Any] = {
    "fleet": "harbour", "issued": NOW, "device": "d1", "session": 1, "seq": 1, "rollout": "r-1", "nonce": "nonce-0001",
}  # fmt: skip
PENDING_ROW = Assignment(rollout="r-1", device="d1", stage=0, place=0.5)
OPEN = replace(PENDING_ROW, state=OFFERED, grant="download", offered_at=NOW)
DONE = replace(OPEN, state="succeeded", grant="closed", outcome_digest="0" * 64)
LOW = Reason(gate="power", code="battery_low", detail="12 %, at least 30 %", retry_after_s=60)


def readiness(phase: Phase = Phase.DOWNLOAD, *, attempt: int = 0, reasons: tuple[Reason, ...] = ()) -> Readiness:
    """Ready unless there are reasons."""
    return Readiness(**HEAD, phase=phase, attempt=attempt, ready=not reasons, reasons=list(reasons))


def state(what: State, *, attempt: int = 1, **more: Any) -> StateReport:
    """A state of the first attempt."""
    return StateReport(**HEAD, state=what, attempt=attempt, **more)


def test_a_pending_device_says_that_it_is_ready_or_why_not() -> None:
    """The last word counts; nothing is signed for it."""
    ready = apply_readiness(PENDING_ROW, readiness(), LATER)
    assert (ready.after.ready, ready.after.nonce, ready.hear) == (True, "nonce-0001", False)
    waits = apply_readiness(ready.after, readiness(reasons=(LOW,)), LATER)
    assert (waits.after.ready, waits.after.reasons) == (False, [LOW.model_dump(mode="json")])


@pytest.mark.parametrize("phase", [Phase.INSTALL, Phase.ACTIVATE])
def test_a_pending_device_has_nothing_to_install(phase: Phase) -> None:
    """What it says of later phases is not taken for readiness to download."""
    effect = apply_readiness(PENDING_ROW, readiness(phase), LATER)
    assert (effect.after, effect.hear) == (PENDING_ROW, False)


@pytest.mark.parametrize("at", [OFFERED, State.EVALUATING, State.DOWNLOADING])
def test_a_device_that_waits_to_download_is_not_downloading(at: str) -> None:
    """It has taken the offer, so it must be told to give it up; no time limit of downloads runs meanwhile."""
    row = moved(OPEN, NOW, state=str(at))
    effect = apply_readiness(row, readiness(attempt=1, reasons=(LOW,)), LATER)
    after = effect.after
    assert (after.state, after.phase, after.work, effect.hear) == ("waiting", "download", Work.QUEUED, True)
    hint = Progress(rollout=OPEN.rollout, state=State.DOWNLOADING, percent=9, attempt=1)
    goes_on = apply_progress(after, hint, LATER)
    assert (goes_on.state, goes_on.reasons) == ("downloading", [])


@pytest.mark.parametrize(
    ("report", "asking", "hear"),
    [
        pytest.param(readiness(Phase.INSTALL, attempt=1), True, False, id="asks"),
        pytest.param(readiness(Phase.ACTIVATE, attempt=1), True, False, id="asks to activate"),
        pytest.param(readiness(Phase.INSTALL, attempt=1, reasons=(LOW,)), False, True, id="waits"),
        pytest.param(readiness(Phase.DOWNLOAD, attempt=1), False, True, id="ready for what it was offered"),
        pytest.param(readiness(Phase.INSTALL), False, True, id="does not know its offer"),
        pytest.param(readiness(Phase.INSTALL, attempt=2), False, False, id="another attempt"),
    ],
)
def test_an_offered_device_asks_for_its_grant(report: Readiness, asking: bool, hear: bool) -> None:
    """The engine answers one that asks; the others are heard, but for one that speaks of another attempt."""
    effect = apply_readiness(OPEN, report, LATER)
    assert (effect.after.asking, effect.hear) == (asking, hear)
    assert effect.after.state == OFFERED


@pytest.mark.parametrize(
    ("report", "asking"),
    [
        (state(State.FETCHED, phase=Phase.INSTALL), True),
        (state(State.FETCHED, phase=Phase.INSTALL, reasons=[LOW]), False),
        (state(State.FETCHED, phase=Phase.DOWNLOAD), False),
        (state(State.DOWNLOADING), False),
        (state(State.VERIFYING), False),
    ],
)
def test_a_state_moves_the_row(report: StateReport, asking: bool) -> None:
    """Whoever has fetched with all gates open asks; everybody else is heard."""
    effect = apply_state(OPEN, report, "", LATER)
    assert (effect.after.state, effect.after.asking, effect.hear) == (report.state, asking, not asking)
    assert (effect.after.nonce, effect.after.updated_at) == ("nonce-0001", LATER)


@pytest.mark.parametrize("passing", [State.INSTALLING, State.INSTALLED, State.ACTIVATING, State.COMMITTING])
def test_what_soon_passes_is_heard_when_it_is_said_again(passing: State) -> None:
    """The next report is answered anyway; a device that repeats itself waits for an answer."""
    first = apply_state(OPEN, state(passing), "", LATER)
    again = apply_state(first.after, state(passing), "", LATER)
    assert (first.after.state, first.hear, again.hear) == (passing, False, True)


@pytest.mark.parametrize("outcome", sorted(OUTCOMES))
def test_an_outcome_closes_the_offer(outcome: State) -> None:
    """Its digest, code, detail and log are kept, and the device is told that it was heard."""
    report = state(outcome, code=ErrorCode.POSTINSTALL, detail="health check failed", log="boom", resumed=True)
    effect = apply_state(replace(OPEN, grant="activate", grant_nonce="n"), report, "d" * 64, LATER)
    after = effect.after
    assert effect.hear
    assert (after.state, after.grant, after.grant_nonce, after.outcome_digest) == (outcome, "closed", None, "d" * 64)
    assert (after.close_reason, after.code) == (f"{outcome}: health check failed", ErrorCode.POSTINSTALL)
    assert (after.log, after.resumed, after.is_terminal) == ("boom", True, True)


def test_a_long_detail_does_not_make_a_long_reason() -> None:
    """It goes out in a signed offer."""
    effect = apply_state(OPEN, state(State.FAILED, detail="x" * 500), "d" * 64, LATER)
    assert len(effect.after.close_reason) == 200
    assert effect.after.detail == "x" * 500


def test_after_the_outcome_nothing_moves() -> None:
    """What was under way is heard again, so that the device learns that it is done."""
    for effect in (
        apply_state(DONE, state(State.VERIFYING), "", LATER),
        apply_readiness(DONE, readiness(), LATER),
    ):
        assert (effect.after, effect.hear) == (DONE, True)
    never_offered = replace(PENDING_ROW, state="cancelled")
    assert not apply_readiness(never_offered, readiness(), LATER).hear


@pytest.mark.parametrize("row", [PENDING_ROW, replace(PENDING_ROW, ready=True)])
@pytest.mark.parametrize("what", list(State))
def test_nobody_installs_what_was_not_offered(row: Assignment, what: State) -> None:
    """A state of a rollout that offered nothing changes nothing: no device can count as failed or succeeded."""
    effect = apply_state(row, state(what), "d" * 64, LATER)
    assert (effect.after, effect.hear) == (row, False)


@given(st.sampled_from(list(State)), st.integers(2, 9))
def test_another_attempt_is_another_story(what: State, attempt: int) -> None:
    """Reports of an attempt that is not the row's change nothing."""
    assert apply_state(OPEN, state(what, attempt=attempt), "d" * 64, LATER).after == OPEN


def test_progress_of_another_attempt_says_nothing() -> None:
    """A hint that was late is of what was given up; an older agent does not say which attempt it means."""
    for attempt, percent in ((OPEN.attempt + 1, 0.0), (OPEN.attempt, 9.0), (None, 9.0)):
        hint = Progress(rollout=OPEN.rollout, state=State.DOWNLOADING, percent=9, attempt=attempt)
        assert apply_progress(OPEN, hint, NOW).percent == percent


@given(
    st.sampled_from([PENDING_ROW, OPEN, DONE, replace(OPEN, state="downloading"), replace(OPEN, state="verifying")]),
    st.sampled_from(list(State)),
    st.lists(st.tuples(st.floats(0, 100), *[st.integers(0, 10**9)] * 4), max_size=8),
)
def test_progress_is_a_hint(row: Assignment, what: State, hints: list[tuple[float, int, int, int, int]]) -> None:
    """It never goes back, and the only state it leads to is downloading, from before."""
    for percent, *sizes in hints:
        ways = dict(zip(("bytes_fetched", "bytes_copied", "bytes_delta", "bytes_present"), sizes, strict=True))
        after = apply_progress(row, Progress(rollout=row.rollout, state=what, percent=percent, **ways), NOW)
        assert after.percent >= row.percent
        assert all(getattr(after, name) >= getattr(row, name) for name in ways)
        if after.state != row.state:
            assert (row.state, after.state) == (OFFERED, State.DOWNLOADING)
        assert (after.grant, after.nonce, after.asking) == (row.grant, row.nonce, row.asking)
        row = after
