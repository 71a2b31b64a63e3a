"""Decisions in the audit log, made again."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from orchestrator.model.audit import FIRST, AuditEntry, encode_body
from orchestrator.model.rollout import Rollout, RolloutState, Stage, StageState
from orchestrator.rollouts.engine import reconcile
from orchestrator.rollouts.facts import VERSION, Facts
from orchestrator.rollouts.replaying import cause_of, check_decision, facts_of, is_replayable, record
from tests.orchestrator.rollouts.yard import NOW, RELEASE, plan

LEASE = timedelta(hours=1)
ROLLOUT = Rollout(
    id="r-1",
    release=RELEASE,
    state=RolloutState.RUNNING,
    spec=plan(pace_per_minute=7.5),
    created_at=NOW,
    started_at=NOW,
    pace_credit=0.1 + 0.2,
    pace_at=NOW - timedelta(seconds=10),
    acknowledged={0: {"state:succeeded": 2}},
)
OPEN = Stage(rollout="r-1", position=0, name="all", state=StageState.OPEN, members=20, opened_at=NOW)
CASES = {
    "offers": Facts(rollout=ROLLOUT, stages=[OPEN], counts={0: {"ready": 9, "state:pending": 20}}),
    "opens": Facts(rollout=ROLLOUT, stages=[replace(OPEN, state=StageState.PENDING)], counts={}),
    "halts": Facts(
        rollout=ROLLOUT, stages=[OPEN], counts={0: {"state:failed": 9, "failed:failed:install": 9, "state:pending": 11}}
    ),
    "answers": Facts(rollout=ROLLOUT, stages=[OPEN], counts={0: {"asking": 1}}, next_offer_expiry=NOW),
    "waits": Facts(rollout=ROLLOUT, stages=[OPEN], counts={0: {"ready": 9}}, is_deliverable=False),
    "starts": Facts(rollout=replace(ROLLOUT, state=RolloutState.SCHEDULED), stages=[OPEN], counts={}),
}


def entry(figures: dict[str, Any]) -> AuditEntry:
    """A decision's entry."""
    return AuditEntry(
        id=7, at=NOW, kind="decision", actor="engine", rollout="r-1", device="", cause="", epoch=1, correlation="",
        body=encode_body(figures), hash=FIRST,
    )  # fmt: skip


def recorded(facts: Facts) -> dict[str, Any]:
    """What the log has of a decision on these facts."""
    return record(facts, reconcile(facts, NOW, LEASE), NOW, LEASE)


@pytest.mark.parametrize("facts", CASES.values(), ids=CASES)
def test_a_decision_made_again_is_the_same(facts: Facts) -> None:
    """From nothing but the entry; and the facts come back as they were."""
    made = entry(recorded(facts))
    assert is_replayable(made) and check_decision(made) is None
    assert facts_of(made.figures()) == facts
    assert cause_of(reconcile(facts, NOW, LEASE))


def test_a_decision_says_why() -> None:
    """What happened goes first; otherwise what is done is named."""
    soaking = Facts(
        rollout=replace(ROLLOUT, spec=plan(soak_s=60), announcement_expires=NOW + LEASE, acknowledged={}),
        stages=[replace(OPEN, members=1), replace(OPEN, position=1, name="rest", state=StageState.PENDING, members=5)],
        counts={0: {"state:succeeded": 1}},
    )
    assert cause_of(reconcile(soaking, NOW, LEASE)) == "stage all is soaking"
    assert cause_of(reconcile(CASES["offers"], NOW, LEASE)).startswith("up to 1 ready devices are offered; ")
    assert cause_of(reconcile(CASES["halts"], NOW, LEASE)).startswith("halted by rule: ")


@pytest.mark.parametrize(
    ("place", "value", "named"),
    [
        (("decisions", "offer_budget"), 500, "offer_budget"),
        (("decisions", "answer"), True, "answer"),
        (("facts", "counts"), {"0": {"state:failed": 9, "failed:failed:install": 9}}, "happenings"),
        (("now",), (NOW + timedelta(days=1)).isoformat(), "announce"),
        (("lease_s",), 14_400.0, "announce"),
    ],
)
def test_another_decision_shows(place: tuple[str, ...], value: object, named: str) -> None:
    """What was decided, or what it was decided on, was changed: the field is named."""
    figures = recorded(replace(CASES["offers"], rollout=replace(ROLLOUT, announcement_expires=NOW + LEASE)))
    inner = figures
    for name in place[:-1]:
        inner = inner[name]
    inner[place[-1]] = value
    problem = check_decision(entry(figures))
    assert problem is not None and problem.entry == 7 and named in problem.text


def test_what_another_engine_decided_is_not_judged() -> None:
    """Its rules are not known here."""
    made = entry({**recorded(CASES["offers"]), "version": VERSION + 1, "decisions": {}})
    assert not is_replayable(made) and check_decision(made) is None


def test_a_field_that_the_log_does_not_have_takes_its_default() -> None:
    """Entries of before the field was added are decided again."""
    figures = recorded(CASES["offers"])
    del figures["facts"]["is_deliverable"], figures["decisions"]["figures"]
    assert check_decision(entry(figures)) is None


@pytest.mark.parametrize("figures", [{}, {"version": VERSION}, {"version": VERSION, "now": 7, "facts": []}])
def test_what_cannot_be_read_is_a_problem(figures: dict[str, Any]) -> None:
    """Not a crash; what has no version is another engine's."""
    problem = check_decision(entry(figures))
    assert (problem is None) is ("version" not in figures)
    assert problem is None or "cannot be read" in problem.text
