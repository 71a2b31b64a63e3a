"""How stages stand by their rules, and when each opens, soaks and passes. Pure."""

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime, timedelta

from orchestrator.model.plan import RolloutSpec, StageSpec
from orchestrator.model.rollout import BEGUN, Rollout, Stage, StageState
from orchestrator.rollouts.facts import Facts, Happening
from orchestrator.rollouts.rules import StageCounts, halt_figures, stage_counts, success_rule
from protocol.status_messages import RuleFigure


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
    halts: list[list[RuleFigure]] = [[] for _ in judged]
    for index, figure in halt_figures(plans, spec):
        halts[index].append(figure)
    return [
        (stage.position, figure)
        for (stage, counts), (plan, _), own in zip(judged, plans, halts, strict=True)
        for figure in [*own, success_rule(counts, spec, plan)]
    ]


def broken_rules(facts: Facts) -> tuple[RuleFigure, ...]:
    """The halt rules that are met."""
    plans = [(stage_spec(facts.rollout, stage), counts) for stage, counts in judged_stages(facts)]
    return tuple(figure for _, figure in halt_figures(plans, facts.rollout.spec) if figure.met)


def soak_s(spec: RolloutSpec, stage: StageSpec) -> float:
    """How long a stage's success must hold; an emergency does not wait."""
    return 0.0 if spec.emergency else spec.opening(stage).soak_s


def wants_approval(spec: RolloutSpec, stage: StageSpec) -> bool:
    """Whether a person opens what comes after a stage."""
    return not spec.emergency and spec.opening(stage).approval


def move_stages(facts: Facts, now: datetime) -> tuple[tuple[Stage, ...], list[Happening]]:
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
        moved = _soak(stage, met=rule.met, soak=soak, now=now, leapt_at=facts.leapt_at)
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


def _soak(stage: Stage, *, met: bool, soak: timedelta, now: datetime, leapt_at: datetime | None) -> Stage:
    if not met:
        return replace(stage, state=StageState.OPEN, soaking_since=None)
    since = stage.soaking_since or now
    # A clock that leapt ahead has not shown how the new version does.
    if now - max(since, leapt_at or since) >= soak:
        return replace(stage, state=StageState.PASSED, soaking_since=since, passed_at=now)
    return replace(stage, state=StageState.SOAKING, soaking_since=since)


def soak_ends(facts: Facts, stages: Iterable[Stage]) -> list[datetime]:
    """When each stage that soaks now has soaked long enough."""
    rollout = facts.rollout
    return [
        max(stage.soaking_since, facts.leapt_at or stage.soaking_since)
        + timedelta(seconds=soak_s(rollout.spec, stage_spec(rollout, stage)))
        for stage in stages
        if stage.state is StageState.SOAKING and stage.soaking_since
    ]
