"""The engine: facts in, decisions out. What it must never decide, over any facts and any time."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from orchestrator.model.plan import StageSpec
from orchestrator.model.rollout import ENDED, Rollout, RolloutState, Stage, StageState
from orchestrator.rollouts.engine import reconcile, untouched, waiting
from orchestrator.rollouts.facts import Decisions, Facts
from orchestrator.rollouts.rules import stage_counts, success_rule
from orchestrator.rollouts.stage_moves import figures_of
from protocol.states import FINISHED, OUTCOMES, State
from tests.orchestrator.rollouts.yard import plan

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
LEASE = timedelta(seconds=100)
STAGES = [StageSpec(name=f"s{share}", percent=share) for share in (10, 50, 100)]
KEYS = [
    "ready", "asking", "offered", "state:pending", "state:excluded", "failed:failed:install",
    "failed:verdict:timed_out",
    *(f"state:{state}" for state in State),
]  # fmt: skip


def rollout(state: RolloutState = RolloutState.RUNNING, rules: dict[str, Any] | None = None, **more: Any) -> Rollout:
    """A rollout of three stages."""
    spec = plan(*STAGES, **(rules or {}))
    return Rollout(id="r-1", release=spec.release, state=state, spec=spec, created_at=NOW, **more)


def stages(*states: StageState, members: int = 10, **more: Any) -> list[Stage]:
    """Stages in these states."""
    return [
        Stage(rollout="r-1", position=n, name=f"s{n}", state=state, members=members, **more)
        for n, state in enumerate(states)
    ]


def decide(facts: Facts, now: datetime = NOW) -> Decisions:
    """What is decided at ``now``."""
    return reconcile(facts, now, LEASE)


_COUNTS = st.dictionaries(
    st.integers(0, 2), st.dictionaries(st.sampled_from(KEYS), st.integers(0, 20), max_size=6), max_size=3
)
_TIMES = st.one_of(st.none(), st.integers(-300, 300).map(lambda s: NOW + timedelta(seconds=s)))
_RULES = st.fixed_dictionaries(
    {},
    optional={
        "soak_s": st.sampled_from([0.0, 10.0]),
        "pace_per_minute": st.floats(0.5, 600),
        "halt_count": st.integers(1, 5),
        "min_sample": st.integers(1, 20),
        "halt_ratio": st.floats(0.01, 1),
        "success_ratio": st.floats(0.01, 1),
    },
)


@st.composite
def _facts(draw: st.DrawFn, states: st.SearchStrategy[RolloutState]) -> Facts:
    found = rollout(
        draw(states),
        draw(_RULES),
        announcement_expires=draw(_TIMES),
        pace_at=draw(_TIMES),
        pace_credit=draw(st.floats(0, 5)),
        acknowledged=draw(st.dictionaries(st.integers(0, 2), st.just({}))),
    )
    rows = [
        Stage(
            rollout="r-1",
            position=n,
            name=f"s{n}",
            state=draw(st.sampled_from(StageState)),
            members=draw(st.integers(1, 30)),
            soaking_since=draw(_TIMES),
        )
        for n in range(3)
    ]
    return Facts(rollout=found, stages=rows, counts=draw(_COUNTS), next_offer_expiry=draw(_TIMES))


@given(_facts(st.sampled_from([RolloutState.HALTED, RolloutState.ABORTED, RolloutState.DRAFT, RolloutState.COMPLETED])))
def test_a_halted_rollout_offers_nothing_and_grants_nothing(facts: Facts) -> None:
    """Nor does one that is over or was never started; and no stage of it moves."""
    decisions = decide(facts)
    assert (decisions.offer_budget, decisions.offer_stages, decisions.stages) == (0, (), ())
    assert not decisions.answer
    assert decisions.rollout.state is facts.rollout.state


@given(_facts(st.sampled_from([RolloutState.RUNNING, RolloutState.PAUSED])))
def test_a_rule_that_is_broken_halts_before_anything_else(facts: Facts) -> None:
    """In that very decision no stage passes or opens, nothing is offered, nobody is granted, and devices are told."""
    broken = any(figure.met for _, figure in figures_of(facts) if figure.rule != "success")
    decisions = decide(facts)
    assert (decisions.rollout.state is RolloutState.HALTED) is broken
    if broken:
        assert (decisions.offer_budget, decisions.stages, bool(decisions.answer)) == (0, (), False)
        assert decisions.announce
        assert decisions.figures
        assert decisions.rollout.reason


@given(_facts(st.just(RolloutState.PAUSED)))
def test_a_paused_rollout_offers_nothing(facts: Facts) -> None:
    """It only answers those who were offered something before."""
    decisions = decide(facts)
    assert (decisions.offer_budget, decisions.stages) == (0, ())


@given(_facts(st.just(RolloutState.RUNNING)))
def test_a_stage_opens_only_behind_stages_that_passed(facts: Facts) -> None:
    """Whoever passes has met its rule and soaked; whoever opens stands right behind the last that passed."""
    decisions = decide(facts)
    moved = {stage.position: stage for stage in decisions.stages}
    after = [moved.get(stage.position, stage) for stage in facts.stages]
    for before, stage in zip(facts.stages, after, strict=True):
        if stage.state is StageState.PASSED and before.state is not StageState.PASSED:
            counts = stage_counts(
                stage.name, stage.members, facts.counts.get(stage.position, {}),
                facts.rollout.acknowledged.get(stage.position),
            )  # fmt: skip
            assert success_rule(counts, facts.rollout.spec).met
            assert stage.soaking_since is not None
            assert NOW - stage.soaking_since >= timedelta(seconds=facts.rollout.spec.soak_s)
        if stage.state is not StageState.PENDING and before.state is StageState.PENDING:
            assert all(former.state is StageState.PASSED for former in after[: stage.position])
    assert all(after[stage].state is not StageState.PENDING for stage in decisions.offer_stages)
    ready = sum(facts.counts.get(stage, {}).get("ready", 0) for stage in decisions.offer_stages)
    assert 0 <= decisions.offer_budget <= ready


@given(_facts(st.sampled_from([state for state in RolloutState if state not in ENDED])))
def test_what_was_decided_is_not_decided_twice(facts: Facts) -> None:
    """Once written, the same facts lead to no stage, no announcement and no happening that are new by themselves."""
    unopened = [facts.counts.get(stage.position, {}) for stage in facts.stages if stage.state is StageState.PENDING]
    assume(not any(counts.get(f"state:{state}") for counts in unopened for state in FINISHED))
    first = decide(facts)
    moved = {stage.position: stage for stage in first.stages}
    after = Facts(
        rollout=first.rollout,
        stages=[moved.get(stage.position, stage) for stage in facts.stages],
        counts=facts.counts,
    )
    second = decide(after)
    assert not second.announce
    assert not any(h.kind in {"rollout_halted", "rollout_started", "rollout_completed"} for h in second.happenings)


def test_a_soak_is_waited_out() -> None:
    """The rule must hold all the time: a stage that falls below it begins again."""
    rules = {"soak_s": 10.0, "success_ratio": 0.5, "halt_ratio": 1.0}
    good = {0: {"state:succeeded": 1}}
    facts = Facts(
        rollout=rollout(rules=rules, announcement_expires=NOW + LEASE),
        stages=stages(StageState.OPEN, StageState.PENDING),
        counts=good,
    )
    first = decide(facts)
    assert [(s.state, s.soaking_since) for s in first.stages] == [(StageState.SOAKING, NOW)]
    assert first.wake_at == NOW + timedelta(seconds=10)
    soaking = Facts(rollout=facts.rollout, stages=[*first.stages, facts.stages[1]], counts=good)
    assert decide(soaking, NOW + timedelta(seconds=9.9)).stages == ()
    passed = decide(soaking, NOW + timedelta(seconds=10))
    assert [s.state for s in passed.stages] == [StageState.PASSED, StageState.OPEN]
    fallen = Facts(
        rollout=facts.rollout,
        stages=soaking.stages,
        counts={0: {"state:succeeded": 1, "state:failed": 2, "failed:failed:install": 2}},
    )
    again = decide(fallen, NOW + timedelta(seconds=10))
    assert [(s.state, s.soaking_since) for s in again.stages] == [(StageState.OPEN, None)]


def test_a_new_stage_is_offered_in_the_look_that_opens_it() -> None:
    """Nobody waits for another tick; devices of the stage that passed and still wait are offered as well."""
    facts = Facts(
        rollout=rollout(),
        stages=stages(StageState.OPEN, StageState.PENDING, StageState.PENDING),
        counts={0: {"state:succeeded": 1, "ready": 2}, 1: {"ready": 3}, 2: {"ready": 4}},
    )
    decisions = decide(facts)
    assert (decisions.offer_stages, decisions.offer_budget) == ((0, 1), 5)


@pytest.mark.parametrize("outcome", sorted(OUTCOMES))
def test_every_outcome_ends_a_rollout(outcome: State) -> None:
    """Whatever became of the last device; failures are judged before."""
    last = {"state:succeeded": 9}
    last[f"state:{outcome}"] = last.get(f"state:{outcome}", 0) + 1
    found = rollout(rules={"halt_count": 99, "halt_ratio": 1.0, "halt_min_sample": 99})
    facts = Facts(
        rollout=found,
        stages=stages(StageState.PASSED, StageState.OPEN),
        counts={0: {"state:succeeded": 10}, 1: last},
    )
    decisions = decide(facts)
    assert (decisions.rollout.state, decisions.rollout.ended_at) == (RolloutState.COMPLETED, NOW)
    assert decisions.announce


def test_a_halt_stays_when_all_are_done() -> None:
    """It is a person who says that it is over."""
    facts = Facts(
        rollout=rollout(RolloutState.HALTED),
        stages=stages(StageState.OPEN),
        counts={0: {"state:rolled_back": 10}},
    )
    assert decide(facts).rollout.ended_at is None


def test_figures_for_people() -> None:
    """Untouched are those never offered; waiting are those who may still be."""
    counts = {0: {"offered": 3, "state:pending": 1}, 1: {"state:pending": 4, "state:cancelled": 2}}
    assert untouched(counts, 10) == 7
    assert waiting(counts) == 5


def test_an_excluded_member_is_not_waited_for_and_proves_nothing() -> None:
    """The others complete the rollout; neither success nor failure is counted, and the words say how many are out."""
    counts = {0: {"state:succeeded": 9, "state:excluded": 1, "offered": 10}}
    facts = Facts(rollout=rollout(), stages=stages(StageState.OPEN), counts=counts)
    decisions = decide(facts)
    assert decisions.rollout.state is RolloutState.COMPLETED
    assert decisions.happenings[-1].text == "completed: 9 members are done, 1 excluded"
    (judged,) = [stage_counts("s0", 10, counts[0])]
    assert (judged.finished, judged.failed, judged.can_finish) == (9, 0, 9)


def test_a_stage_whose_members_are_all_excluded_does_not_pass() -> None:
    """A canary that was revoked has proven nothing."""
    facts = Facts(
        rollout=rollout(),
        stages=stages(StageState.OPEN, StageState.PENDING, members=1),
        counts={0: {"state:excluded": 1}, 1: {"state:pending": 1}},
    )
    assert decide(facts).stages == ()
