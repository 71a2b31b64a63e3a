"""What a device's report changes in its assignment. Pure.

A report that is repeated changes nothing but is heard again; a report of an attempt that is over, or of a rollout that
offered nothing, changes nothing at all.
"""

from dataclasses import dataclass, replace
from datetime import datetime

from orchestrator.model.assignment import EXCLUDED, OFFERED, PENDING, Assignment
from protocol.reports import MAX_BYTES, Progress, Readiness, Reason, StateReport
from protocol.states import OUTCOMES, Phase, State

_WHOLE = frozenset(
    {State.FETCHED, State.INSTALLING, State.INSTALLED, State.ACTIVATING, State.VERIFYING, State.COMMITTING}
)
_PASSING = frozenset({State.INSTALLING, State.INSTALLED, State.ACTIVATING, State.COMMITTING})
"""Soon followed by a report that is answered anyway."""
_MAX_REASON_CHARS = 200


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
    """Take in which gates are open."""
    if row.is_terminal or report.attempt not in (0, row.attempt):
        return Effect(row, hear=row.is_terminal and row.offered_at is not None)
    reasons = [_dump(reason) for reason in report.reasons]
    if row.state == PENDING:
        if report.phase is not Phase.DOWNLOAD:
            return Effect(row)
        return Effect(
            replace(row, ready=report.ready, reasons=reasons, phase=report.phase, nonce=report.nonce, updated_at=now)
        )
    if report.attempt == 0:
        return Effect(row, hear=True)  # it has not seen its offer yet, or lost it
    asking = report.ready and report.phase is not Phase.DOWNLOAD
    after = replace(row, asking=asking, reasons=reasons, phase=report.phase, nonce=report.nonce, updated_at=now)
    return Effect(after, hear=not asking)


def apply_state(row: Assignment, report: StateReport, digest: str, now: datetime) -> Effect:
    """Take in where the update stands.

    Args:
        digest: Of the payload; ``heard.outcome`` names it when the report is an outcome.
    """
    if row.offered_at is None or report.attempt != row.attempt:
        return Effect(row)
    if row.is_terminal and not report.is_outcome:
        return Effect(row, hear=True)
    if row.state == EXCLUDED:  # heard, so that the device is done; it counts for nothing
        return Effect(replace(row, nonce=report.nonce, outcome_digest=digest, updated_at=now), hear=True)
    asking = report.state is State.FETCHED and report.phase is Phase.INSTALL and not report.reasons
    after = replace(
        row,
        state=report.state.value,
        ready=False,
        asking=asking,
        phase=report.phase.value if report.phase else None,
        reasons=[_dump(reason) for reason in report.reasons],
        nonce=report.nonce,
        code=report.code.value if report.code else None,
        detail=report.detail,
        log=report.log,
        from_version=report.from_version,
        running_version=report.running_version,
        resumed=row.resumed or report.resumed,
        bytes_fetched=max(row.bytes_fetched, min(report.bytes_fetched, MAX_BYTES)),
        bytes_present=max(row.bytes_present, row.bytes_total) if report.state in _WHOLE else row.bytes_present,
        percent=100.0 if report.state in _WHOLE else row.percent,
        rate_bytes_s=0.0 if report.state in _WHOLE or report.is_outcome else row.rate_bytes_s,
        updated_at=now,
    )
    if report.state in OUTCOMES:
        reason = f"{report.state}: {report.detail}" if report.detail else report.state.value
        after = replace(
            after,
            grant="closed",
            grant_nonce=None,
            close_reason=reason[:_MAX_REASON_CHARS],
            outcome_digest=digest,
        )
    # Design, section 3: four offers. What comes a second time waits for an answer, whatever it says.
    passing = report.state in _PASSING and report.nonce != row.nonce
    return Effect(after, hear=not (asking or passing))


def apply_progress(row: Assignment, hint: Progress) -> Assignment:
    """Take in a hint: it never goes back, and moves the state only from ``offered`` to ``downloading``."""
    if hint.attempt is not None and hint.attempt != row.attempt:
        return row
    if row.is_terminal or row.offered_at is None or row.state not in (OFFERED, State.WAITING, State.DOWNLOADING):
        return row
    known = State.DOWNLOADING.value if hint.state is State.DOWNLOADING else row.state
    return replace(
        row,
        state=known,
        percent=max(row.percent, hint.percent),
        bytes_fetched=max(row.bytes_fetched, hint.bytes_fetched),
        bytes_copied=max(row.bytes_copied, hint.bytes_copied or 0),
        bytes_delta=max(row.bytes_delta, hint.bytes_delta or 0),
        bytes_present=max(row.bytes_present, hint.bytes_present or 0),
        bytes_total=max(row.bytes_total, hint.bytes_total),
        rate_bytes_s=hint.rate_bytes_s or 0.0,
        reasons=[] if known == State.DOWNLOADING else row.reasons,
    )


def _dump(reason: Reason) -> dict[str, object]:
    return reason.model_dump(mode="json")
