"""What each decision does to one device's place in a rollout. Pure: a row and ``now`` in, the row after it out."""

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from orchestrator.model.assignment import (
    BY_PREEMPTION,
    BY_RETRY,
    BY_ROLLOUT,
    BY_SCOPE,
    BY_SITE,
    MAX_CLOSE_REASON_CHARS,
    OFFERED,
    PENDING,
    Assignment,
    Work,
    let_go,
    moved,
)
from orchestrator.model.failure import TIMED_OUT, FailureClass, cause_of, classes_of
from orchestrator.model.plan import Retry, RolloutSpec
from protocol.directives import superseded_by
from protocol.states import State

LOOK_AGAIN = timedelta(minutes=10)
"""What waits for another rollout is woken by it; this is for when that was missed."""
SCOPE_LOOK_AGAIN = timedelta(hours=12)
"""Whether a permit is free is counted anew with every look; a site may have a hundred thousand that wait for one."""
_AFTER_ACTIVATION = frozenset({FailureClass.INSTALL, FailureClass.HEALTH, FailureClass.TIMED_OUT})
"""What a device reports such failures of, it has taken back."""


def offer(row: Assignment, now: datetime, lease: timedelta) -> Assignment:
    """Offer the download; a device that was offered before tries again, under the next attempt."""
    again: dict[str, Any] = {} if row.offered_at is None else _anew(next_attempt(row))
    return moved(
        row,
        now,
        state=OFFERED,
        ready=False,
        grant="download",
        offered_at=now,
        offer_expires=now + lease,
        held_by="",
        not_before=None,
        **again,
    )


def next_attempt(row: Assignment) -> int:
    """Of the offer that is made next: a member that waits and was offered before tries again."""
    return row.attempt + 1 if row.state == PENDING and row.offered_at is not None else row.attempt


def _anew(attempt: int) -> dict[str, Any]:
    """What was said of the attempt before is of no more use."""
    return {
        "attempt": attempt,
        "asking": False,
        "phase": None,
        "reasons": [],
        "nonce": None,
        "grant_nonce": None,
        "close_reason": "",
        "outcome_digest": None,
        "code": None,
        "detail": "",
        "log": "",
        "running_version": None,
        "resumed": False,
        "percent": 0.0,
        "bytes_fetched": 0,
        "bytes_copied": 0,
        "bytes_delta": 0,
        "bytes_present": 0,
        "rate_bytes_s": 0.0,
        "verdict": "",
    }


def grant(row: Assignment, now: datetime, lease: timedelta, grant_life: timedelta) -> Assignment:
    """Let it install and activate, in answer to its report.

    Args:
        grant_life: After which the device cannot begin to use it any more, its clock's error included.
    """
    return moved(
        row,
        now,
        asking=False,
        grant="activate",
        grant_nonce=row.nonce,
        offer_expires=now + lease,
        grant_until=now + grant_life,
        held_by="",
        not_before=None,
    )


def hear_only(row: Assignment) -> Assignment:
    """In a halt the device is told that it was heard; it asks again after it."""
    return let_go(replace(row, asking=False))


def end_grant(row: Assignment, now: datetime) -> Assignment:
    """The device did not begin while the grant lasted: it asks again, and its permits are free."""
    grant = "download" if row.grant == "activate" else row.grant
    return moved(row, now, grant=grant, grant_nonce=None, grant_until=None)


def renew(row: Assignment, now: datetime, lease: timedelta) -> Assignment:
    """Give an open offer a new life. An activate grant is not said again: the device asks when it has ended.

    Until it has surely ended there, its permits stay taken.
    """
    alive = row.grant == "activate" and row.grant_until is not None and row.grant_until > now
    used = row.grant == "activate" and row.is_changing
    return moved(
        row,
        now,
        grant=row.grant if alive else "download",
        grant_nonce=None,
        grant_until=row.grant_until if alive else None,
        phase=None if used and not alive else row.phase,  # it is at it, and waits for nothing: its permits stay
        offer_expires=now + lease,
    )


def hold(row: Assignment, why: str, until: datetime) -> Assignment:
    """It is not its turn: look again ``until`` then."""
    return replace(row, held_by=why, not_before=until)


def hold_for_rollout(row: Assignment, other: str, now: datetime) -> Assignment:
    """Another rollout has the device."""
    return hold(row, BY_ROLLOUT + other, now + LOOK_AGAIN)


def hold_for_scope(row: Assignment, scope: str, now: datetime, *, holds_one: bool = False) -> Assignment:
    """As many devices of a scope as may are being activated. A permit that comes free lets the next one go.

    Args:
        holds_one: One of those permits is its own, for what another rollout left behind: none need come free for it.
    """
    return hold(row, BY_SCOPE + scope, now + (LOOK_AGAIN if holds_one else SCOPE_LOOK_AGAIN))


def hold_for_site(row: Assignment, until: datetime) -> Assignment:
    """The site's bytes of this hour are spent."""
    return hold(row, BY_SITE, until)


def preempt(row: Assignment, by: str, now: datetime, *, for_good: bool) -> Assignment:
    """Close the offer for a heavier rollout. Only for a device that has not begun to install.

    Args:
        for_good: What the other rollout brings takes the place of this release; otherwise the device comes back.
    """
    held = "" if for_good else BY_PREEMPTION
    if row.state == OFFERED:  # nobody may ever have heard of it: it need not say that it gave up
        over = moved(row, now, state=State.SUPERSEDED.value, settled=for_good, held_by=held)
        return replace(over, **_closed(superseded_by(by)))
    return replace(row, updated_at=now, asking=False, held_by=held, not_before=None, **_closed(superseded_by(by)))


def _closed(reason: str) -> dict[str, Any]:
    # An activate grant that is out may still be used until it ends: so long its permits stay taken.
    return {
        "grant": "closed",
        "grant_nonce": None,
        "close_reason": reason[:MAX_CLOSE_REASON_CHARS],
    }


def settle(row: Assignment, spec: RolloutSpec, now: datetime, *, may_retry: bool) -> Assignment:
    """Judge an attempt that failed, or that gave way: does the device try again by itself?

    Args:
        may_retry: Whether the rollout still makes offers; after its end nothing is tried again.
    """
    if row.held_by == BY_PREEMPTION:
        back = moved(row, now, state=PENDING, ready=True, settled=True, held_by="", not_before=None)
        return back if may_retry else replace(row, settled=True, held_by="")
    kind, plan = _retry_of(row, spec)
    if plan is None or not may_retry:
        return replace(row, settled=True)
    tried = row.retried.get(kind, 0)
    wait_s = min(plan.max_backoff_s, plan.backoff_s * plan.factor**tried)
    return moved(
        row,
        now,
        state=PENDING,
        ready=True,
        settled=True,
        held_by=BY_RETRY,
        not_before=now + timedelta(seconds=wait_s),
        retried={**row.retried, kind: tried + 1},
    )


def _retry_of(row: Assignment, spec: RolloutSpec) -> tuple[str, Retry | None]:
    """The class that it is tried again for: what went wrong first, then that it was rolled back."""
    if row.state == State.INCONSISTENT:
        return "", None
    classes = classes_of(row.state, row.code)
    for kind in sorted(classes, key=lambda kind: kind is FailureClass.ROLLED_BACK):
        plan = spec.retries.get(kind)
        if plan is not None and row.retried.get(kind, 0) < plan.times:
            return kind.value, plan
    return cause_of(row.code, row.state).value, None


def time_out(row: Assignment, now: datetime) -> Assignment:
    """It took too long. Until it is being changed the offer is closed; from then on only its own outcome ends it."""
    if row.grant_until is not None and row.grant_until > now and row.work_since is not None:
        return replace(row, work_since=now)  # it may begin at any moment: not before its grant has ended
    if row.is_changing and row.work != Work.QUEUED:
        return replace(row, verdict=FailureClass.TIMED_OUT.value)
    words = (
        f"took too long: {row.work} since {row.work_since:%Y-%m-%d %H:%M:%SZ}" if row.work_since else "took too long"
    )
    over = moved(
        row, now, state=TIMED_OUT, ready=False, asking=False, settled=False, detail=words, code=None, held_by="",
        not_before=None,
    )  # fmt: skip
    return replace(over, **_closed(words))


def fall_silent(row: Assignment) -> Assignment:
    """Nothing is heard of a device whose software is being changed."""
    return replace(row, verdict=FailureClass.SILENT.value) if row.is_changing and not row.verdict else row


def end(row: Assignment, state: State, why: str, now: datetime) -> Assignment:
    """A member that was not reached is done; an offer that it may have is closed. One that failed before has failed."""
    if row.state == PENDING and row.code is not None:  # it was to try again
        state = State.ROLLED_BACK if cause_of(row.code, row.state) in _AFTER_ACTIVATION else State.FAILED
    over = moved(
        row, now, state=state.value, ready=False, asking=False, settled=True, held_by="", not_before=None, detail=why
    )
    return over if row.offered_at is None else replace(over, **_closed(why))


def try_again(row: Assignment, now: datetime) -> Assignment:
    """A person wants a failed device to try once more: the next attempt lifts its quarantine."""
    return moved(row, now, state=PENDING, ready=True, settled=True, held_by="", not_before=None, retried={}, verdict="")
