"""Rules tried on what is over."""

from orchestrator.rollouts.hindsight import would_halt
from tests.orchestrator.rollouts.yard import plan

STAGES = [("canary", 10), ("all", 100)]
COUNTS = {
    0: {"state:succeeded": 10},
    1: {"state:succeeded": 90, "failed:failed:install": 5, "failed:rolled_back:health": 5},
}


def test_a_strict_plan_would_have_halted() -> None:
    """With the figures of the stage, and of the rollout as a whole."""
    assert would_halt(plan(halt_ratio=0.1), STAGES, COUNTS) == [
        "stage all: 10 of 100 finished failed, halts at 10% of at least 3"
    ]
    assert would_halt(plan(halt_ratio=1, halt_count=10), STAGES, COUNTS) == ["rollout: 10 failed, halts at 10"]


def test_a_lenient_plan_goes_through() -> None:
    """Also where nothing was counted."""
    assert would_halt(plan(halt_ratio=0.2), STAGES, COUNTS) == []
    assert would_halt(plan(), STAGES, {}) == []
