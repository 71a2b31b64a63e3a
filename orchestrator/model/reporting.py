"""What a device's report changes in its assignment. Pure.

A report that is repeated changes nothing but is heard again; a report of an attempt that is over, or of a rollout that
offered nothing, changes nothing at all.
"""

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from orchestrator.model.assignment import (
    BY_PREEMPTION,
    BY_SCOPE,
    CHANGING,
    EXCLUDED,
    OFFERED,
    PENDING,
    Assignment,
    let_go,
    moved,
)
from orchestrator.model.failure import TIMED_OUT, FailureClass
from protocol.reports import MAX_BYTES, Progress, Readiness, Reason, StateReport
from protocol.states import FAILURES, FINISHED, TOUCHED, Phase, State

_WHOLE = frozenset(
    {State.FETCHED, State.INSTALLING, State.INSTALLED, State.ACTIVATING, State.VERIFYING, State.COMMITTING}
)
_HAS_BEGUN = CHANGING | {State.ROLLED_BACK, State.INCONSISTENT}
_PASSING = frozenset({State.INSTALLING, State.INSTALLED, State.ACTIVATING, State.COMMITTING})
"""Soon followed by a report that is answered anyway."""
_MAX_REASON_CHARS = 200
_AT_DOWNLOAD = frozenset({OFFERED, State.EVALUATING, State.DOWNLOADING})
BUSY = "busy"
"""The gate of a device that has another update open."""


@dataclass(frozen=True, slots=True)
class Effect:
    """What follows from one report.

    Attributes:
        hear: The device's offer must be signed anew, so that ``heard`` names the report. A device that asks for a
            grant is answered by the engine instead.
    """

    after: Assignment
    hear: bool = False


def apply_readiness(row: Assignment, report: Readiness, now: datetime) -> Effect:
    """Take in which gates are open. A device that is only busy with another update counts as ready.

    Which of the two goes first is for the engine to say.
    """
    if row.is_terminal or report.attempt not in (0, row.attempt):
        return Effect(row, hear=row.is_terminal and row.offered_at is not None)
    reasons = [_dump(reason) for reason in report.reasons]
    said: dict[str, Any] = {"reasons": reasons, "phase": report.phase, "nonce": report.nonce, "verdict": _still(row)}
    if row.state == PENDING:
        if report.phase is not Phase.DOWNLOAD:
            return Effect(row)
        only_busy = {reason.gate for reason in report.reasons} == {BUSY}
        ready = report.ready or only_busy
        return Effect(moved(row, now, ready=ready, **said))
    if report.attempt == 0:
        return Effect(row, hear=True)  # it has not seen its offer yet, or lost it
    asking = report.ready and report.phase is not Phase.DOWNLOAD
    if row.grant == "activate" and report.nonce != row.grant_nonce:
        said |= {"grant": "download", "grant_nonce": None, "grant_until": None}  # it let that grant go
    if report.phase is Phase.DOWNLOAD and not report.ready and row.state in _AT_DOWNLOAD:
        said["state"] = State.WAITING.value  # it has taken the offer, and says no other word of it while it waits
    after = _waiting_no_more(moved(row, now, asking=asking, **said))
    return Effect(after, hear=not asking or bool(after.held_by))


def apply_state(row: Assignment, report: StateReport, digest: str, now: datetime) -> Effect:
    """Take in where the update stands.

    Args:
        digest: Of the payload; ``heard.outcome`` names it when the report is an outcome.
    """
    if row.offered_at is None or report.attempt != row.attempt:
        return Effect(row)
    over = row.is_terminal or row.state == PENDING  # pending: it will try again, and this is of the attempt before
    if over and not report.is_outcome:
        return Effect(row, hear=True)
    if over and not _replaces(row, report):  # heard, so that the device is done; it counts for nothing
        return Effect(replace(row, nonce=report.nonce, outcome_digest=digest, updated_at=now), hear=True)
    asking = report.state is State.FETCHED and report.phase is Phase.INSTALL and not report.reasons
    changes: dict[str, Any] = {
        "state": report.state.value,
        "ready": False,
        "asking": asking,
        "phase": report.phase.value if report.phase else None,
        "reasons": [_dump(reason) for reason in report.reasons],
        "nonce": report.nonce,
        "code": report.code.value if report.code else None,
        "detail": report.detail,
        "log": report.log,
        "from_version": report.from_version,
        "running_version": report.running_version,
        "resumed": row.resumed or report.resumed,
        "bytes_fetched": max(row.bytes_fetched, min(report.bytes_fetched, MAX_BYTES)),
        "bytes_present": max(row.bytes_present, row.bytes_total) if report.state in _WHOLE else row.bytes_present,
        "percent": 100.0 if report.state in _WHOLE else row.percent,
        "rate_bytes_s": 0.0 if report.state in _WHOLE or report.is_outcome else row.rate_bytes_s,
        "grant_until": None if report.state in TOUCHED else row.grant_until,
        "verdict": _still(row),
    }
    if row.held_by == BY_PREEMPTION and report.state in _HAS_BEGUN:
        changes["held_by"] = ""  # it was quicker than the order to give way: what comes of it counts
    if report.is_outcome:
        changes |= _ended(row, report, digest)
    after = _waiting_no_more(moved(row, now, **changes))
    # Design, section 3: four offers. What comes a second time waits for an answer, whatever it says.
    passing = report.state in _PASSING and report.nonce != row.nonce
    return Effect(after, hear=not passing and (not asking or bool(after.held_by)))


def _replaces(row: Assignment, report: StateReport) -> bool:
    """Whether an outcome takes the place of what stands there: only where that was not the device's own word.

    A device that gave up because its time was over is one that timed out, whatever it calls that itself.
    """
    if row.state in (EXCLUDED, PENDING) or row.outcome_digest is not None:
        return False
    return row.state != TIMED_OUT or report.state in FINISHED


def _ended(row: Assignment, report: StateReport, digest: str) -> dict[str, Any]:
    reason = f"{report.state}: {report.detail}" if report.detail else report.state.value
    return {
        "grant": "closed",
        "grant_nonce": None,
        "grant_until": None,
        "close_reason": reason[:_MAX_REASON_CHARS],
        "outcome_digest": digest,
        "verdict": "",
        "settled": report.state is State.SUCCEEDED or (report.state not in FAILURES and row.held_by != BY_PREEMPTION),
    }


def _still(row: Assignment) -> str:
    """A device that speaks is not silent; that it took too long stays true until it comes to an end."""
    return "" if row.verdict == FailureClass.SILENT else row.verdict


def _waiting_no_more(row: Assignment) -> Assignment:
    if row.held_by.startswith(BY_SCOPE) and not row.asking:
        return let_go(row)
    return row


def apply_progress(row: Assignment, hint: Progress, now: datetime) -> Assignment:
    """Take in a hint: it never goes back, and moves the state only from ``offered`` to ``downloading``."""
    if hint.attempt is not None and hint.attempt != row.attempt:
        return row
    if row.is_terminal or row.offered_at is None or row.state not in (OFFERED, State.WAITING, State.DOWNLOADING):
        return row
    known = State.DOWNLOADING.value if hint.state is State.DOWNLOADING else row.state
    after = replace(
        row,
        percent=max(row.percent, hint.percent),
        bytes_fetched=max(row.bytes_fetched, hint.bytes_fetched),
        bytes_copied=max(row.bytes_copied, hint.bytes_copied or 0),
        bytes_delta=max(row.bytes_delta, hint.bytes_delta or 0),
        bytes_present=max(row.bytes_present, hint.bytes_present or 0),
        bytes_total=max(row.bytes_total, hint.bytes_total),
        rate_bytes_s=hint.rate_bytes_s or 0.0,
        reasons=[] if known == State.DOWNLOADING else row.reasons,
    )
    return after if known == row.state else moved(after, now, state=known)


def _dump(reason: Reason) -> dict[str, object]:
    return reason.model_dump(mode="json")
