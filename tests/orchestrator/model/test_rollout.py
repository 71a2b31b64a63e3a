"""A plan: what it takes and what it refuses; and a rollout read back from its row."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import ValidationError

from orchestrator.model.plan import MAX_PACE, MAX_SAMPLE, MAX_STAGES, MIN_PACE, RolloutSpec
from orchestrator.model.rollout import BEGUN, Rollout, RolloutState, Stage, StageState
from orchestrator.rollouts.engine import reconcile
from orchestrator.rollouts.facts import Facts

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


def test_a_plan_with_every_key_reads_back_as_it_was_written() -> None:
    """What is stored, with all defaults spelt out, is a plan again."""
    spec = RolloutSpec.model_validate(
        PLAN
        | {
            "members": {"selector": "site=lab", "devices": ["d1"], "dynamic": True},
            "halt_rules": [
                {"count": 2, "classes": ["rolled_back"]},
                {"ratio": "5%", "scope": "rollout", "classes": ["declined", "health"]},
            ],
            "stages": [{"name": "a", "devices": ["d1"], "soak_s": "15m", "halt_rules": [{"count": 1}]}, ALL],
            "pace_per_minute": 1,
            "pace_growth": {"factor": 2, "every": 10, "max_per_minute": 100},
            "site_bytes_per_hour": "2 GB",
            "max_unavailable": [{"label": "site", "count": 1}, {"group": "g", "count": 2}],
            "start_at": "2026-12-01T00:00:00Z",
            "end_at": "2026-12-08T00:00:00Z",
            "at_end": "halt",
            "timeouts": {"queued_s": "1d", "verifying_s": 60},
            "retries": {"download": {"times": 3}},
            "policy": {"windows": [{"days": ["sun"], "start": "02:00", "minutes": 60}]},
        }
    )
    assert RolloutSpec.model_validate(spec.model_dump(mode="json")) == spec
    assert RolloutSpec.model_validate(spec.model_dump(mode="json", exclude_none=True)) == spec
    assert spec.site_bytes_per_hour == 2 * 10**9
    assert spec.stages[0].soak_s == 900


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"halt_rules": [{}]}, "a ratio or a count, one of the two"),
        ({"halt_rules": [{"ratio": 0.1, "count": 1}]}, "a ratio or a count, one of the two"),
        ({"halt_rules": [{"count": 1, "min_sample": 3}]}, "min_sample is for a ratio"),
        ({"halt_rules": [{"count": 1, "classes": []}]}, "can never halt"),
        ({"halt_rules": [{"count": 1, "classes": ["smoke"]}]}, "expected|should be"),
        ({"stages": [{**ALL, "halt_rules": [{"count": 1, "scope": "rollout"}]}]}, "has the scope stage"),
        ({"pace_growth": {"factor": 2, "every": 1, "max_per_minute": 9}}, "needs pace_per_minute"),
        ({"pace_per_minute": 9, "pace_growth": {"factor": 2, "every": 1, "max_per_minute": 9}}, "would never grow"),
        ({"pace_per_minute": 9, "pace_growth": {"factor": 1, "every": 1, "max_per_minute": 19}}, "greater than 1"),
        ({"max_unavailable": [{"count": 1}]}, "a label or a group, one of the two"),
        ({"max_unavailable": [{"label": "site", "count": 1}, {"label": "site", "count": 2}]}, "two limits for one"),
        ({"members": {"dynamic": True}}, "needs end_at"),
        ({"members": {"unhealthy": True}}, "is for reverts"),
        ({"at_end": "abort"}, "there is no end_at"),
        ({"start_at": "2026-12-01T00:00:00Z", "end_at": "2026-12-01T00:00:00Z"}, "is not after start_at"),
        ({"start_at": "2026-12-01T00:00:00Z", "end_at": "2028-12-01T00:00:00Z"}, "more than 365 days"),
        ({"retries": {"download": {"times": 11}}}, "less than or equal to 10"),
        ({"retries": {"silent_after_activation": {"times": 1}}}, "fell silent is not asked to try again"),
        ({"retries": {"declined": {"times": 1}}}, "declined is not asked to try again"),
        ({"timeouts": {"queued_s": 0}}, "greater than or equal to 1"),
        ({"soak_s": "soon"}, "expected a duration such as 90s"),
        ({"success_ratio": "120%"}, "expected a share above 0"),
        ({"site_bytes_per_hour": "5 XB"}, "expected a size such as 500 MB"),
        ({"weight": 1001}, "less than or equal to 1000"),
    ],
)
def test_a_rule_that_contradicts_itself_is_refused(changes: dict[str, Any], words: str) -> None:
    """With the reason: a rule that is accepted can be kept."""
    with pytest.raises(ValidationError, match=words):
        RolloutSpec.model_validate(PLAN | changes)
