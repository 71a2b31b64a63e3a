"""What happens next in a rollout: stored facts and ``now`` in, decisions out. Pure, recomputed from nothing but facts.

Only counts are looked at, so that a tick costs the same for ten devices and a million. Halting is judged before
passing: a stage that is both done and bad halts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from orchestrator.model.assignment import EXCLUDED, PENDING
from orchestrator.model.rollout import BEGUN, Rollout, RolloutState, Stage, StageState
from orchestrator.rollouts.pace import Bucket
from orchestrator.rollouts.rules import StageCounts, count_rule, failure_rule, stage_counts, success_rule
from protocol.states import OUTCOMES
from protocol.status_messages import RuleFigure

DELIVERABLE_AGAIN = timedelta(seconds=1)
"""When a release that is being brought back to a broker is looked at again."""
OFFER_BATCH = 500
"""Offers made, answers given and offers renewed in one transaction, at most."""

Counts = Mapping[int, Mapping[str, int]]
"""Stage -> count key -> devices."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What is stored about one rollout."""

    rollout: Rollout
    stages: Sequence[Stage]
    counts: Counts
    next_offer_expiry: datetime | None = None
    is_deliverable: bool = True
    """Whether the release's chunks stand where devices find them; offers wait until they do."""


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
        announce: The announcement must be signed anew.
        offer_stages, offer_budget: From which stages, in order, how many ready devices may be offered.
        answer: None, or whether asking devices get their activate grant (False: only heard).
        renew_until: Open offers that run out by then are signed anew; None: none.
        wake_at: When facts may lead to something else by the clock alone.
    """

    rollout: Rollout
    stages: tuple[Stage, ...] = ()
    announce: bool = False
    offer_stages: tuple[int, ...] = ()
    offer_budget: int = 0
    answer: bool | None = None
    renew_until: datetime | None = None
    happenings: tuple[Happening, ...] = ()
    figures: tuple[RuleFigure, ...] = ()
    wake_at: datetime | None = None

    @property
    def is_nothing(self) -> bool:
        """Whether there is nothing to write."""
        return not (
            self.stages
            or self.announce
            or self.offer_budget
            or self.answer is not None
            or self.renew_until
            or self.happenings
        )


def reconcile(facts: Facts, now: datetime, lease: timedelta) -> Decisions:
    """Decide what happens next.

    Args:
        facts: As stored; the caller holds them still until the decisions are written.
        lease: Life of announcements and offers; both are renewed at half.
    """
    rollout = facts.rollout
    if rollout.state is RolloutState.DRAFT or rollout.ended_at is not None:
        return Decisions(rollout=rollout)
    if rollout.state is RolloutState.SCHEDULED:
        start_at = rollout.spec.start_at
        if start_at is not None and start_at > now:
            return Decisions(rollout=rollout, wake_at=start_at)
        rollout = replace(rollout, state=RolloutState.RUNNING, started_at=now)
        return _advance(
            replace(facts, rollout=rollout), now, lease, (Happening("rollout_started", "started as scheduled"),)
        )
    return _advance(facts, now, lease, ())


def judged_stages(facts: Facts) -> list[tuple[Stage, StageCounts]]:
    """The begun stages with what rules are judged on."""
    seen = facts.rollout.acknowledged
    return [
        (
            stage,
            stage_counts(
                stage.name, stage.members, facts.counts.get(stage.position, {}), seen.get(stage.position, (0, 0))
            ),
        )
        for stage in facts.stages
        if stage.state in BEGUN
    ]


def figures_of(facts: Facts) -> list[tuple[int, RuleFigure]]:
    """Every rule as it stands, with its stage; the count over the whole rollout stands with the last begun one."""
    judged = judged_stages(facts)
    found: list[tuple[int, RuleFigure]] = []
    for stage, counts in judged:
        found.append((stage.position, failure_rule(counts, facts.rollout.spec)))
        found.append((stage.position, success_rule(counts, facts.rollout.spec)))
    total = count_rule([counts for _, counts in judged], facts.rollout.spec)
    if total is not None and judged:
        found.append((judged[-1][0].position, total))
    return found


def _advance(facts: Facts, now: datetime, lease: timedelta, before: tuple[Happening, ...]) -> Decisions:
    """Judge and move; the parts do not know of one another."""
    rollout, happenings = facts.rollout, list(before)
    stages: tuple[Stage, ...] = ()
    figures: tuple[RuleFigure, ...] = ()
    if rollout.state in (RolloutState.RUNNING, RolloutState.PAUSED):
        broken = [f for _, f in figures_of(facts) if f.rule != "success" and f.met]
        if broken:
            figures = tuple(broken)
            reason = "; ".join(figure.text for figure in broken)
            rollout = replace(rollout, state=RolloutState.HALTED, reason=reason)
            happenings.append(Happening("rollout_halted", f"halted by rule: {reason}"))
    if rollout.state is RolloutState.RUNNING:
        stages, words = _move_stages(facts, now)
        happenings += words
    rollout, words = _end(rollout, facts, now)
    happenings += words
    if rollout.ended_at is not None:
        announce = rollout.state is not facts.rollout.state
        return Decisions(
            rollout=rollout, stages=stages, happenings=tuple(happenings), figures=figures, announce=announce
        )
    return _act(replace(facts, rollout=rollout), stages, now, lease, happenings, figures, bool(before))


def _move_stages(facts: Facts, now: datetime) -> tuple[tuple[Stage, ...], list[Happening]]:
    """Pass, soak and open, in order; returns the stages that change."""
    soak = timedelta(seconds=facts.rollout.spec.soak_s)
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
        rule = success_rule(counts[stage.position], facts.rollout.spec)
        last = stage is facts.stages[-1]  # what comes after it would be opened by the soak; nothing does
        moved = _soak(stage, met=rule.met, soak=timedelta() if last else soak, now=now)
        if moved != stage:
            changed.append(moved)
        if moved.state is not StageState.PASSED:
            break
        happenings.append(Happening("stage_passed", rule.text))
    return tuple(changed), happenings


def _soak(stage: Stage, *, met: bool, soak: timedelta, now: datetime) -> Stage:
    if not met:
        return replace(stage, state=StageState.OPEN, soaking_since=None)
    since = stage.soaking_since or now
    if now - since >= soak:
        return replace(stage, state=StageState.PASSED, soaking_since=since, passed_at=now)
    return replace(stage, state=StageState.SOAKING, soaking_since=since)


def _end(rollout: Rollout, facts: Facts, now: datetime) -> tuple[Rollout, list[Happening]]:
    members = sum(stage.members for stage in facts.stages)
    terminal = sum(_terminal(facts.counts.get(stage.position, {})) for stage in facts.stages)
    if terminal < members:
        return rollout, []
    match rollout.state:
        case RolloutState.RUNNING | RolloutState.PAUSED:
            done = replace(rollout, state=RolloutState.COMPLETED, ended_at=now)
            out = sum(excluded(facts.counts.get(stage.position, {})) for stage in facts.stages)
            words = (
                f"all {members} members are done" if not out else f"{members - out} members are done, {out} excluded"
            )
            return done, [Happening("rollout_completed", f"completed: {words}")]
        case RolloutState.ABORTED:
            return replace(rollout, ended_at=now), [
                Happening("rollout_ended", "ended: no device has anything left to do")
            ]
        case _:  # a halt is latched: it ends by a person's resume or abort
            return rollout, []


def _act(
    facts: Facts,
    changed: tuple[Stage, ...],
    now: datetime,
    lease: timedelta,
    happenings: list[Happening],
    figures: tuple[RuleFigure, ...],
    announce: bool,
) -> Decisions:
    """Offers, answers, leases and the next look, for a rollout that goes on."""
    rollout = facts.rollout
    half = lease / 2
    halted_now = any(h.kind == "rollout_halted" for h in happenings)
    expires = rollout.announcement_expires
    if announce or halted_now or expires is None or expires - half <= now:
        announce, expires = True, now + lease
    stages = {stage.position: stage for stage in [*facts.stages, *changed]}
    bucket = Bucket(rollout.spec.pace_per_minute, rollout.pace_credit, rollout.pace_at)
    offer_stages: tuple[int, ...] = ()
    budget = 0
    pace_at: datetime | None = None
    if rollout.state is RolloutState.RUNNING and facts.is_deliverable:
        offer_stages = tuple(p for p, s in sorted(stages.items()) if s.state in BEGUN and _n(facts, p, "ready"))
        if offer_stages:
            bucket = bucket.filled(now)
            ready = sum(_n(facts, p, "ready") for p in offer_stages)
            budget = bucket.budget(min(OFFER_BATCH, ready))
            pace_at = bucket.spent(budget).next_at() if budget < ready else None
    asking = sum(_n(facts, position, "asking") for position in stages)
    runs_out = facts.next_offer_expiry is not None and facts.next_offer_expiry - half <= now
    wakes = [expires - half]
    if facts.next_offer_expiry is not None:
        wakes.append(facts.next_offer_expiry - half)
    if pace_at is not None:
        wakes.append(pace_at)
    if not facts.is_deliverable:
        wakes.append(now + DELIVERABLE_AGAIN)
    if rollout.state is RolloutState.RUNNING:  # only then does the end of a soak lead to anything
        soak = timedelta(seconds=rollout.spec.soak_s)
        wakes += [s.soaking_since + soak for s in stages.values() if s.state is StageState.SOAKING and s.soaking_since]
    return Decisions(
        rollout=replace(rollout, announcement_expires=expires, pace_credit=bucket.credit, pace_at=bucket.at),
        stages=changed,
        announce=announce,
        offer_stages=offer_stages if budget else (),
        offer_budget=budget,
        answer=rollout.state in (RolloutState.RUNNING, RolloutState.PAUSED) if asking else None,
        renew_until=now + half if runs_out else None,
        happenings=tuple(happenings),
        figures=figures,
        wake_at=min(wakes),
    )


def _terminal(counts: Mapping[str, int]) -> int:
    return excluded(counts) + sum(counts.get(f"state:{state}", 0) for state in OUTCOMES)


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
