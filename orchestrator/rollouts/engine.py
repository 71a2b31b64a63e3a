"""What happens next in a rollout: stored facts and ``now`` in, decisions out. Pure, recomputed from nothing but facts.

Only counts are looked at, so that a tick costs the same for ten devices and a million. Halting is judged before
passing: a stage that is both done and bad halts. An attempt that failed is judged for itself first (is it tried
again?), and nothing else is decided until it was.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from orchestrator.model.assignment import EXCLUDED, PENDING, UNSETTLED, Work
from orchestrator.model.plan import AtEnd, OnHalt, RolloutSpec
from orchestrator.model.rollout import BEGUN, Rollout, RolloutState, Stage
from orchestrator.rollouts import pace
from orchestrator.rollouts.facts import OFFER_BATCH, Counts, Decisions, Facts, Happening
from orchestrator.rollouts.pace import Bucket
from orchestrator.rollouts.rules import is_terminal_count, provisional, still_acknowledged
from orchestrator.rollouts.stage_moves import broken_rules, move_stages, soak_ends
from protocol.clock import rfc3339
from protocol.states import State
from protocol.status_messages import RuleFigure

DELIVERABLE_AGAIN = timedelta(seconds=1)
"""When a release that is being brought back to a broker is looked at again."""
_MOVING = frozenset({RolloutState.RUNNING, RolloutState.PAUSED})


def reconcile(facts: Facts, now: datetime, lease: timedelta) -> Decisions:
    """Decide what happens next.

    Args:
        facts: As stored; the caller holds them still until the decisions are written.
        lease: Life of announcements and offers; both are renewed at half.
    """
    rollout = facts.rollout
    match rollout.state:
        case RolloutState.DRAFT | RolloutState.AWAITING_APPROVAL:
            return Decisions(rollout=rollout)
        case RolloutState.SCHEDULED:
            start_at = rollout.spec.start_at
            if start_at is None or start_at > now or facts.is_latched:
                return Decisions(rollout=rollout, wake_at=start_at if start_at and start_at > now else None)
            return Decisions(rollout=rollout, begin=True)
    if any(counts.get(f"state:{UNSETTLED}") for counts in facts.counts.values()):
        return Decisions(rollout=rollout, settle=True, wake_at=now)
    if rollout.ended_at is not None:
        return Decisions(rollout=rollout)
    seen = still_acknowledged(rollout.acknowledged, facts.counts)
    if seen == rollout.acknowledged:
        return _advance(facts, now, lease)
    less = replace(facts, rollout=replace(rollout, acknowledged=seen))
    return replace(_advance(less, now, lease), forget=True)


def _advance(facts: Facts, now: datetime, lease: timedelta) -> Decisions:
    """Judge and move; the parts do not know of one another."""
    rollout, happenings, figures = _judge(facts, now)
    stages: tuple[Stage, ...] = ()
    if rollout.state is RolloutState.RUNNING and not facts.is_latched and not _is_over(rollout, now):
        stages, words = move_stages(facts, now)
        happenings += words
    before = rollout
    rollout, words = _end(rollout, facts, now)
    happenings += words
    if rollout.ended_at is not None:
        return Decisions(
            rollout=rollout,
            stages=stages,
            happenings=tuple(happenings),
            figures=figures,
            announce=rollout.state is not facts.rollout.state,
        )
    changed = before.state is not facts.rollout.state
    decided = _act(replace(facts, rollout=rollout), stages, now, lease, announce=changed)
    return replace(decided, happenings=tuple(happenings), figures=figures, revert=rollout.wants_revert)


def _judge(facts: Facts, now: datetime) -> tuple[Rollout, list[Happening], tuple[RuleFigure, ...]]:
    """Rules that halt, and the end of the rollout's time."""
    rollout = facts.rollout
    if rollout.state not in _MOVING:
        return rollout, [], ()
    broken = broken_rules(facts)
    if broken:
        reason = "; ".join(figure.text for figure in broken)
        reverts = rollout.spec.on_halt is OnHalt.REVERT
        rollout = replace(rollout, state=RolloutState.HALTED, reason=reason, wants_revert=reverts)
        return rollout, [Happening("rollout_halted", f"halted by rule: {reason}")], broken
    if not _is_over(rollout, now):
        return rollout, [], ()
    reason = f"its end came at {rfc3339(rollout.spec.end_at) if rollout.spec.end_at else ''}"
    match rollout.spec.at_end:
        case AtEnd.HALT:
            halted = replace(rollout, state=RolloutState.HALTED, reason=reason)
            return halted, [Happening("rollout_halted_at_end", f"halted: {reason}")], ()
        case AtEnd.ABORT:
            aborted = replace(rollout, state=RolloutState.ABORTED, reason=reason)
            return aborted, [Happening("rollout_aborted", f"aborted: {reason}")], ()
        case AtEnd.STOP:
            return rollout, [], ()


def _is_over(rollout: Rollout, now: datetime) -> bool:
    """Whether its time has ended: no device is offered anything any more."""
    return rollout.spec.end_at is not None and rollout.spec.end_at <= now


def _end(rollout: Rollout, facts: Facts, now: datetime) -> tuple[Rollout, list[Happening]]:
    members = sum(stage.members for stage in facts.stages)
    done = sum(_terminal(facts.counts.get(s.position, {})) for s in facts.stages)
    open_ended = rollout.spec.members.dynamic and not _is_over(rollout, now)  # more members may come
    if facts.next_grant_end is not None:  # somebody may still begin: until then nothing is over
        return rollout, []
    if done < members or (open_ended and rollout.state is not RolloutState.ABORTED):
        return rollout, []
    match rollout.state:
        case RolloutState.RUNNING | RolloutState.PAUSED:
            over = replace(rollout, state=RolloutState.COMPLETED, ended_at=now, reason="")
            out = sum(excluded(facts.counts.get(stage.position, {})) for stage in facts.stages)
            words = (
                f"all {members} members are done" if not out else f"{members - out} members are done, {out} excluded"
            )
            return over, [Happening("rollout_completed", f"completed: {words}")]
        case RolloutState.ABORTED:
            return replace(rollout, ended_at=now), [
                Happening("rollout_ended", "ended: no device has anything left to do")
            ]
        case _:  # a halt is latched: it ends by a person's resume or abort
            return rollout, []


def _act(facts: Facts, changed: tuple[Stage, ...], now: datetime, lease: timedelta, *, announce: bool) -> Decisions:
    """Offers, answers, leases and the next look, for a rollout that goes on."""
    rollout, half = facts.rollout, lease / 2
    expires = rollout.announcement_expires
    if announce or expires is None or expires - half <= now:
        announce, expires = True, now + lease
    stages = {stage.position: stage for stage in [*facts.stages, *changed]}
    over = _is_over(rollout, now)
    offers = _offers(facts, stages, now) if not over else _Offers(_bucket(facts))
    asking = sum(_n(facts, position, "asking") for position in stages)
    waits = _Waits(facts, now)
    runs_out = facts.next_offer_expiry is not None and facts.next_offer_expiry - half <= now
    ends = over and rollout.state in _MOVING
    closes = State.CANCELLED if rollout.state is RolloutState.ABORTED else State.EXPIRED if ends else None
    wakes = [expires - half, *waits.wakes]
    if rollout.state is RolloutState.RUNNING and not facts.is_latched and not over:
        wakes += soak_ends(facts, stages.values())
    wakes += [at for at in (offers.next_at,) if at is not None]
    if facts.next_offer_expiry is not None:
        wakes.append(facts.next_offer_expiry - half)
    if not facts.is_deliverable:
        wakes.append(now + DELIVERABLE_AGAIN)
    if rollout.spec.end_at is not None and not over:
        wakes.append(rollout.spec.end_at)
    may_answer = rollout.state in _MOVING and not facts.is_latched
    return Decisions(
        rollout=replace(
            rollout, announcement_expires=expires, pace_credit=offers.bucket.credit, pace_at=offers.bucket.at
        ),
        stages=changed,
        announce=announce,
        offer_stages=offers.stages,
        offer_budget=offers.budget,
        answer=may_answer if asking else None,
        renew_until=now + half if runs_out else None,
        time_out=waits.time_out,
        let_go=waits.let_go,
        free=facts.has_free_permit and may_answer,
        end_grants=facts.next_grant_end is not None and facts.next_grant_end <= now,
        close_pending=closes if waiting(facts.counts) else None,
        repace=rollout.pace_at is not None and offers.bucket.at is not None and offers.bucket.at < rollout.pace_at,
        wake_at=min(wakes),
    )


@dataclass(frozen=True, slots=True)
class _Offers:
    """What may be offered now. ``next_at``: when the pace allows one more."""

    bucket: Bucket
    stages: tuple[int, ...] = ()
    budget: int = 0
    next_at: datetime | None = None


def _bucket(facts: Facts) -> Bucket:
    rollout = facts.rollout
    succeeded = sum(stage.get(f"state:{State.SUCCEEDED}", 0) for stage in facts.counts.values())
    now = pace.rate(rollout.spec, succeeded=succeeded, offered=rollout.offers_made)
    return Bucket(now, rollout.pace_credit, rollout.pace_at)


def _offers(facts: Facts, stages: Mapping[int, Stage], now: datetime) -> _Offers:
    bucket = _bucket(facts)
    if facts.rollout.state is not RolloutState.RUNNING or not facts.is_deliverable or facts.is_latched:
        return _Offers(bucket)
    chosen = tuple(p for p, s in sorted(stages.items()) if s.state in BEGUN and _n(facts, p, "ready"))
    if not chosen:
        return _Offers(bucket)
    bucket = bucket.filled(now)
    ready = sum(_n(facts, p, "ready") for p in chosen)
    budget = bucket.budget(min(OFFER_BATCH, ready))
    next_at = bucket.spent(budget).next_at() if budget < ready else None
    return _Offers(bucket, chosen if budget else (), budget, next_at)


class _Waits:
    """Devices that took too long, and those whose time to wait is over."""

    def __init__(self, facts: Facts, now: datetime) -> None:
        rollout = facts.rollout
        self.wakes: list[datetime] = [at for at in (facts.next_let_go, facts.next_grant_end) if at and at > now]
        self.let_go = facts.next_let_go is not None and facts.next_let_go <= now
        self.time_out: dict[str, datetime] = {}
        if rollout.state not in _MOVING or facts.is_latched:
            return  # a device that waits because it was told to is in no hurry
        earliest = [at for at in (rollout.timed_from, facts.steady_from) if at is not None]
        for work, limit in time_limits(rollout.spec).items():
            since = facts.oldest.get(work)
            if since is None:
                continue
            due = max([since, *earliest]) + limit
            if due <= now:
                self.time_out[work] = now - limit
            else:
                self.wakes.append(due)


def time_limits(spec: RolloutSpec) -> dict[Work, timedelta]:
    """How long a device may be at each work; those without a limit are left out."""
    times = {
        Work.QUEUED: spec.timeouts.queued_s,
        Work.DOWNLOADING: spec.timeouts.downloading_s,
        Work.INSTALLING: spec.timeouts.installing_s,
        Work.VERIFYING: spec.timeouts.verifying_s,
    }
    return {work: timedelta(seconds=limit) for work, limit in times.items() if limit is not None}


def _terminal(counts: Mapping[str, int]) -> int:
    """Members that have nothing left to do, and those that are judged without an outcome."""
    return sum(n for key, n in counts.items() if is_terminal_count(key)) + provisional(counts)


def excluded(counts: Mapping[str, int]) -> int:
    """Members of one stage that were taken out of the rollout: revoked, retired, or two under one id."""
    return counts.get(f"state:{EXCLUDED}", 0)


def _n(facts: Facts, stage: int, key: str) -> int:
    return facts.counts.get(stage, {}).get(key, 0)


def untouched(counts: Counts, members: int) -> int:
    """Members that were never offered."""
    return members - sum(stage.get("offered", 0) for stage in counts.values())


def waiting(counts: Counts) -> int:
    """Members that were not offered yet and are not cancelled."""
    return sum(stage.get(f"state:{PENDING}", 0) for stage in counts.values())
