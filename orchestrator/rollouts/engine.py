"""What happens next in a rollout: stored facts and ``now`` in, decisions out. Pure, recomputed from nothing but facts.

Only counts are looked at, so that a tick costs the same for ten devices and a million. Halting is judged before
passing: a stage that is both done and bad halts. An attempt that failed is judged for itself first (is it tried
again?), and nothing else is decided until it was.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from orchestrator.model.assignment import EXCLUDED, PENDING, UNSETTLED, Work
from orchestrator.model.plan import AtEnd, OnHalt, RolloutSpec, StageSpec
from orchestrator.model.rollout import BEGUN, Rollout, RolloutState, Stage, StageState
from orchestrator.rollouts import pace
from orchestrator.rollouts.pace import Bucket
from orchestrator.rollouts.rules import (
    StageCounts,
    halt_figures,
    is_terminal_count,
    provisional,
    stage_counts,
    success_rule,
)
from protocol.states import State
from protocol.status_messages import RuleFigure

VERSION = 2
"""Of what is decided; rises when the same facts lead to another decision."""
DELIVERABLE_AGAIN = timedelta(seconds=1)
"""When a release that is being brought back to a broker is looked at again."""
OFFER_BATCH = 500
"""Offers made, answers given and offers renewed in one transaction, at most."""

Counts = Mapping[int, Mapping[str, int]]
"""Stage -> count key -> devices."""
_MOVING = frozenset({RolloutState.RUNNING, RolloutState.PAUSED})


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What is stored about one rollout.

    Attributes:
        is_deliverable: The release's chunks stand where devices find them; offers wait until they do.
        oldest: By work, since when the device that is at it longest is; of works that have a limit.
        next_let_go: When the first device that is held is looked at again.
        next_grant_end: When the first activate grant that was not used ends.
        has_free_permit: Some scope that devices wait for has a permit left.
        is_latched: The whole fleet is halted.
        steady_from: Since when the clock can be believed to have gone evenly, and reports to have been heard.
    """

    rollout: Rollout
    stages: Sequence[Stage]
    counts: Counts
    next_offer_expiry: datetime | None = None
    is_deliverable: bool = True
    oldest: Mapping[str, datetime] = field(default_factory=dict)
    next_let_go: datetime | None = None
    next_grant_end: datetime | None = None
    has_free_permit: bool = False
    is_latched: bool = False
    steady_from: datetime | None = None


@dataclass(frozen=True, slots=True)
class Happening:
    """A decision in words, for the events."""

    kind: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Decisions:
    """What to do. Nothing here is done yet.

    Attributes:
        rollout: As it shall be; equal to what was given where nothing changes.
        stages: Those that change.
        settle: Failed attempts must be judged first; nothing else is decided.
        begin: A scheduled rollout's time has come: place its members and start it.
        announce: The announcement must be signed anew.
        offer_stages, offer_budget: From which stages, in order, how many ready devices may be offered.
        answer: None, or whether asking devices get their activate grant (False: only heard).
        renew_until: Open offers that run out by then are signed anew; None: none.
        time_out: Work -> devices that are at it since before then took too long.
        let_go: Held devices whose time has come may be offered or answered again.
        free: Devices that wait for a permit are looked at again, where one is left.
        end_grants: Activate grants that have run out unused are taken back.
        close_pending: What members that were never reached come to; None: they stay.
        revert: Devices that were updated go back now: a rule halted, and the plan wants it.
        wake_at: When facts may lead to something else by the clock alone.
    """

    rollout: Rollout
    stages: tuple[Stage, ...] = ()
    settle: bool = False
    begin: bool = False
    announce: bool = False
    offer_stages: tuple[int, ...] = ()
    offer_budget: int = 0
    answer: bool | None = None
    renew_until: datetime | None = None
    time_out: Mapping[str, datetime] = field(default_factory=dict)
    let_go: bool = False
    free: bool = False
    end_grants: bool = False
    close_pending: State | None = None
    revert: bool = False
    happenings: tuple[Happening, ...] = ()
    figures: tuple[RuleFigure, ...] = ()
    wake_at: datetime | None = None

    @property
    def is_nothing(self) -> bool:
        """Whether there is nothing to write."""
        return not (
            self.stages
            or self.settle
            or self.begin
            or self.announce
            or self.offer_budget
            or self.answer is not None
            or self.renew_until
            or self.time_out
            or self.let_go
            or self.free
            or self.end_grants
            or self.close_pending
            or self.revert
            or self.happenings
        )


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
        case _ if rollout.ended_at is not None:
            return Decisions(rollout=rollout)
    if any(counts.get(f"state:{UNSETTLED}") for counts in facts.counts.values()):
        return Decisions(rollout=rollout, settle=True, wake_at=now)
    return _advance(facts, now, lease)


def stage_spec(rollout: Rollout, stage: Stage) -> StageSpec:
    """The plan of a stage."""
    return rollout.spec.stages[stage.position]


def judged_stages(facts: Facts) -> list[tuple[Stage, StageCounts]]:
    """The begun stages with what rules are judged on."""
    seen = facts.rollout.acknowledged
    return [
        (
            stage,
            stage_counts(stage.name, stage.members, facts.counts.get(stage.position, {}), seen.get(stage.position)),
        )
        for stage in facts.stages
        if stage.state in BEGUN
    ]


def figures_of(facts: Facts) -> list[tuple[int, RuleFigure]]:
    """Every rule as it stands, with its stage; those over the whole rollout stand with the last begun one."""
    judged, spec = judged_stages(facts), facts.rollout.spec
    plans = [(stage_spec(facts.rollout, stage), counts) for stage, counts in judged]
    found: list[tuple[int, RuleFigure]] = []
    halts = halt_figures(plans, spec)
    for index, (stage, counts) in enumerate(judged):
        found += [(stage.position, figure) for position, figure in halts if position == index]
        found.append((stage.position, success_rule(counts, spec, plans[index][0])))
    return found


def _advance(facts: Facts, now: datetime, lease: timedelta) -> Decisions:
    """Judge and move; the parts do not know of one another."""
    rollout, happenings, figures = _judge(facts, now)
    stages: tuple[Stage, ...] = ()
    if rollout.state is RolloutState.RUNNING and not facts.is_latched and not _is_over(rollout, now):
        stages, words = _move_stages(facts, now)
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
    broken = tuple(f for _, f in figures_of(facts) if f.rule != "success" and f.met)
    if broken:
        reason = "; ".join(figure.text for figure in broken)
        reverts = rollout.spec.on_halt is OnHalt.REVERT
        rollout = replace(rollout, state=RolloutState.HALTED, reason=reason, wants_revert=reverts)
        return rollout, [Happening("rollout_halted", f"halted by rule: {reason}")], broken
    if not _is_over(rollout, now):
        return rollout, [], ()
    reason = f"its end came at {rollout.spec.end_at:%Y-%m-%dT%H:%M:%SZ}"
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


def soak_s(spec: RolloutSpec, stage: StageSpec) -> float:
    """How long a stage's success must hold; an emergency does not wait."""
    if spec.emergency:
        return 0.0
    return spec.soak_s if stage.soak_s is None else stage.soak_s


def wants_approval(spec: RolloutSpec, stage: StageSpec) -> bool:
    """Whether a person opens what comes after a stage."""
    return not spec.emergency and (spec.approval if stage.approval is None else stage.approval)


def _move_stages(facts: Facts, now: datetime) -> tuple[tuple[Stage, ...], list[Happening]]:
    """Pass, soak and open, in order; returns the stages that change."""
    spec = facts.rollout.spec
    counts = {stage.position: found for stage, found in judged_stages(facts)}
    changed: list[Stage] = []
    happenings: list[Happening] = []
    for stage in facts.stages:
        if stage.state is StageState.PASSED:
            continue
        if stage.state is StageState.PENDING:
            changed.append(replace(stage, state=StageState.OPEN, opened_at=now))
            happenings.append(Happening("stage_opened", f"stage {stage.name} opened: {stage.members} devices"))
            break
        plan = stage_spec(facts.rollout, stage)
        rule = success_rule(counts[stage.position], spec, plan)
        last = stage is facts.stages[-1]  # what comes after it would be opened by the soak; nothing does
        soak = timedelta() if last else timedelta(seconds=soak_s(spec, plan))
        moved = _soak(stage, met=rule.met, soak=soak, now=now, steady_from=facts.steady_from)
        if moved.state is StageState.PASSED and not last and wants_approval(spec, plan):
            moved = replace(moved, state=StageState.AWAITING_APPROVAL, passed_at=None)
        if moved != stage:
            changed.append(moved)
        if moved.state is StageState.AWAITING_APPROVAL and stage.state is not moved.state:
            words = f"{rule.text}; a person opens the next one: flagship rollout promote {facts.rollout.id}"
            happenings.append(Happening("stage_awaits_approval", words))
        if moved.state is not StageState.PASSED:
            break
        happenings.append(Happening("stage_passed", rule.text))
    return tuple(changed), happenings


def _soak(stage: Stage, *, met: bool, soak: timedelta, now: datetime, steady_from: datetime | None) -> Stage:
    if not met:
        return replace(stage, state=StageState.OPEN, soaking_since=None)
    since = stage.soaking_since or now
    # A clock that leapt ahead has not shown how the new version does.
    if now - max(since, steady_from or since) >= soak:
        return replace(stage, state=StageState.PASSED, soaking_since=since, passed_at=now)
    return replace(stage, state=StageState.SOAKING, soaking_since=since)


def _end(rollout: Rollout, facts: Facts, now: datetime) -> tuple[Rollout, list[Happening]]:
    members = sum(stage.members for stage in facts.stages)
    done = sum(_terminal(facts.counts.get(s.position, {})) for s in facts.stages)
    open_ended = rollout.spec.members.dynamic and not _is_over(rollout, now)  # more members may come
    if done < members or (open_ended and rollout.state is not RolloutState.ABORTED):
        return rollout, []
    match rollout.state:
        case RolloutState.RUNNING | RolloutState.PAUSED:
            over = replace(rollout, state=RolloutState.COMPLETED, ended_at=now)
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
    closes = State.CANCELLED if rollout.state is RolloutState.ABORTED else State.EXPIRED if over else None
    wakes = [expires - half, *waits.wakes, *_soak_ends(facts, stages, now)]
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


def _soak_ends(facts: Facts, stages: Mapping[int, Stage], now: datetime) -> list[datetime]:
    rollout = facts.rollout
    if rollout.state is not RolloutState.RUNNING or facts.is_latched or _is_over(rollout, now):
        return []
    return [
        max(stage.soaking_since, facts.steady_from or stage.soaking_since)
        + timedelta(seconds=soak_s(rollout.spec, stage_spec(rollout, stage)))
        for stage in stages.values()
        if stage.state is StageState.SOAKING and stage.soaking_since
    ]


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
