"""A plan: what it takes and what it refuses; and a rollout read back from its row."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import ValidationError

from orchestrator.model.plan import MAX_PACE, MAX_SAMPLE, MAX_STAGES, MIN_PACE, RolloutSpec
from orchestrator.model.rollout import BEGUN, Rollout, RolloutState, Stage, StageState
from orchestrator.rollouts.engine import Facts, reconcile

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
ALL = {"name": "all", "percent": 100}
PLAN: dict[str, Any] = {"release": "gateway/1.1.0", "stages": [ALL]}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"stages": []}, "at least 1 item"),
        ({"stages": [{"name": f"s{n}", "group": "g"} for n in range(MAX_STAGES + 1)]}, "at most 500"),
        ({"stages": [{"name": "all"}]}, "one of group, selector, percent or devices"),
        ({"stages": [{"name": "all", "group": "g", "percent": 100}]}, "one of group, selector, percent or devices"),
        ({"stages": [{"name": "a/b", "percent": 100}]}, "expected 1 to 64 letters"),
        ({"stages": [{"name": "a", "percent": 0}]}, "greater than 0"),
        ({"stages": [{"name": "a", "percent": 101}]}, "less than or equal to 100"),
        ({"stages": [{"name": "a", "percent": float("nan")}]}, "finite number"),
        ({"stages": [{"name": "a", "percent": 50}, {"name": "b", "percent": 50}]}, "must rise"),
        ({"stages": [{"name": "a", "percent": 50}, {"name": "b", "percent": 90}]}, "expected 100%"),
        ({"stages": [ALL, ALL]}, "two have the name"),
        ({"stages": [{"name": "a", "selector": "site in"}]}, "selector"),
        ({"release": "gateway"}, "release"),
        ({"success_ratio": 0}, "greater than 0"),
        ({"halt_ratio": 1.1}, "less than or equal to 1"),
        ({"soak": 5}, "not permitted"),
        ({"start_at": "2026-11-24T12:00:00"}, "timezone"),
        ({"soak_s": 365 * 86_400 + 1}, "less than or equal"),
        ({"pace_per_minute": MIN_PACE / 10}, "greater than or equal"),
        ({"pace_per_minute": MAX_PACE * 10}, "less than or equal"),
        ({"min_sample": MAX_SAMPLE + 1}, "less than or equal"),
        ({"halt_min_sample": MAX_SAMPLE + 1}, "less than or equal"),
        ({"halt_count": MAX_SAMPLE + 1}, "less than or equal"),
    ],
)
def test_a_plan_that_makes_no_sense_is_refused(changes: dict[str, Any], words: str) -> None:
    """Before anything is stored, with the place and what was expected."""
    with pytest.raises(ValidationError, match=words):
        RolloutSpec.model_validate(PLAN | changes)


@pytest.mark.parametrize(
    "extremes",
    [
        {"soak_s": 365 * 86_400, "halt_ratio": 1.0, "halt_count": MAX_SAMPLE, "min_sample": MAX_SAMPLE},
        {"pace_per_minute": MIN_PACE, "halt_min_sample": MAX_SAMPLE},
        {"pace_per_minute": MAX_PACE},
        {"start_at": datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)},
    ],
)
def test_every_plan_that_is_taken_can_be_judged(extremes: dict[str, Any]) -> None:
    """The engine has an answer at each bound; a plan that it could not judge would end serve at each start."""
    spec = RolloutSpec.model_validate(PLAN | {"stages": [{"name": "a", "percent": 50}, ALL]} | extremes)
    scheduled = RolloutState.SCHEDULED if spec.start_at else RolloutState.RUNNING
    rollout = Rollout(
        id="r-1", release=spec.release, state=scheduled, spec=spec, created_at=NOW, pace_at=NOW, pace_credit=0.0
    )
    stages = [
        Stage(rollout="r-1", position=n, name="s", state=StageState.SOAKING, members=9, soaking_since=NOW)
        for n in range(2)
    ]
    counts = {0: {"state:succeeded": 9, "ready": 5}, 1: {"ready": 9}}
    decisions = reconcile(Facts(rollout=rollout, stages=stages, counts=counts), NOW, timedelta(days=7))
    assert decisions.wake_at is not None
    assert decisions.wake_at > NOW


def test_a_rollout_reads_back_from_its_row() -> None:
    """What JSON made text of is a number again: the acknowledged stages, also as an earlier version wrote them."""
    row = {
        "id": "r-1", "release": "gateway/1.1.0", "state": "halted",
        "spec": RolloutSpec.model_validate(PLAN).model_dump(mode="json"), "created_at": NOW, "reason": "why",
        "started_at": NOW, "ended_at": None, "announcement_expires": None, "offers_made": 3, "pace_credit": 0.5,
        "pace_at": None, "halts": 2, "version": 4, "submitted_by": "", "approved_by": "", "timed_from": None,
        "wants_revert": False,        "acknowledged": {"0": [1, 3], "1": {"state:succeeded": 1}},
    }  # fmt: skip
    rollout = Rollout.from_row(row)
    assert (rollout.state, rollout.halts, rollout.acknowledged) == (
        RolloutState.HALTED,
        2,
        {0: {"failed:failed:install": 1, "state:succeeded": 2}, 1: {"state:succeeded": 1}},
    )
    assert rollout.spec == RolloutSpec.model_validate(PLAN)


def test_a_stage_has_begun_once_it_is_not_pending() -> None:
    """A passed one too: its late devices are still offered."""
    assert {state for state in StageState if state not in BEGUN} == {StageState.PENDING}
