"""The rules: what passes, what halts, and what proves nothing."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.model.plan import StageSpec
from orchestrator.rollouts.rules import StageCounts, failure_rule, halt_figures, stage_counts, success_rule
from protocol.states import OUTCOMES
from tests.orchestrator.rollouts.yard import plan


def stage(members: int, succeeded: int = 0, failed: int = 0, **more: int) -> StageCounts:
    """Counts of one stage."""
    failures = {"failed:failed:install": failed} if failed else {}
    return StageCounts(name="s", members=members, succeeded=succeeded, failures=failures, **more)


@pytest.mark.parametrize(
    ("counts", "rules", "met"),
    [
        pytest.param(stage(10), {}, False, id="nothing finished"),
        pytest.param(stage(10, 1), {}, True, id="one of one"),
        pytest.param(stage(10, 4), {"min_sample": 5}, False, id="below the sample"),
        pytest.param(stage(10, 5), {"min_sample": 5}, True, id="at the sample"),
        pytest.param(stage(2, 2), {"min_sample": 5}, True, id="sample capped to the stage"),
        pytest.param(stage(5, 3, unfinishable=2), {"min_sample": 5}, True, id="sample capped to who can finish"),
        pytest.param(stage(3, unfinishable=3), {}, False, id="all declined proves nothing"),
        pytest.param(stage(20, 19, 1), {"success_ratio": 0.95}, True, id="at the ratio"),
        pytest.param(stage(20, 18, 2), {"success_ratio": 0.95}, False, id="below the ratio"),
        pytest.param(stage(2, acknowledged=2), {}, True, id="all acknowledged"),
    ],
)
def test_success(counts: StageCounts, rules: dict[str, Any], met: bool) -> None:
    """A stage passes by the share of its finished devices, once there are enough."""
    figure = success_rule(counts, plan(**rules))
    assert figure.met is met
    assert figure.text.startswith("stage s: ")


@pytest.mark.parametrize(
    ("counts", "rules", "met"),
    [
        pytest.param(stage(10, 9), {}, False, id="no failure"),
        pytest.param(stage(10, 0, 2), {}, False, id="below the sample"),
        pytest.param(stage(10, 2, 1), {}, True, id="at the sample"),
        pytest.param(stage(2, 0, 2), {}, True, id="sample capped to the stage"),
        pytest.param(stage(1, 0, 1), {}, True, id="a canary of one"),
        pytest.param(stage(100, 19, 1), {"halt_ratio": 0.1}, False, id="below the ratio"),
        pytest.param(stage(100, 18, 2), {"halt_ratio": 0.1}, True, id="at the ratio"),
    ],
)
def test_failures(counts: StageCounts, rules: dict[str, Any], met: bool) -> None:
    """A stage halts by the share of its finished devices, once there are enough."""
    assert failure_rule(counts, plan(**rules)).met is met


def test_the_count_is_over_all_stages() -> None:
    """Failures that no stage's ratio minds add up."""
    spec = plan(StageSpec(name="a", percent=50), StageSpec(name="b", percent=100), halt_count=3)
    for failed, met in ((1, False), (2, True)):
        stages = [(spec.stages[0], stage(100, 50, 1)), (spec.stages[1], stage(100, 50, failed))]
        position, figure = halt_figures(stages, spec)[-1]
        assert (position, figure.rule, figure.met, figure.numerator) == (1, "failure_count", met, 1 + failed)
        assert figure.text.startswith("rollout: ")


def test_what_a_person_has_seen_is_left_out() -> None:
    """Two failures of three were acknowledged; the fourth device is judged alone."""
    seen = {"failed:failed:install": 1, "failed:rolled_back:health": 1, "state:succeeded": 1}
    counts = stage_counts("s", 10, {**seen, "state:succeeded": 2}, seen)
    assert (counts.succeeded, counts.failed, counts.finished, counts.acknowledged) == (1, 0, 1, 3)
    assert counts.can_finish == 7


@given(
    st.dictionaries(
        st.sampled_from([f"state:{s}" for s in OUTCOMES] + ["ready", "state:pending", "failed:failed:verify"]),
        st.integers(0, 50),
    )
)
def test_shares_are_of_finished_devices_only(keys: dict[str, int]) -> None:
    """Declined, cancelled, expired and superseded devices move neither numerator nor denominator."""
    counts = stage_counts("s", 1000, keys)
    assert counts.succeeded == keys.get("state:succeeded", 0)
    assert counts.finished == counts.succeeded + counts.failed
    assert counts.unfinishable == sum(
        keys.get(f"state:{s}", 0) for s in ("declined", "cancelled", "expired", "superseded")
    )
