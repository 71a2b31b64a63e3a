"""How long a plan takes, and what its author may not have meant."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from orchestrator.model.plan import Growth, HaltRule, RolloutSpec, StageSpec
from orchestrator.rollouts.forecast import Duration, expect_duration, find_warnings
from tests.orchestrator.rollouts.yard import plan

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
TWO = (StageSpec(name="few", percent=10), StageSpec(name="all", percent=100))


def expect(spec: RolloutSpec, *sizes: int, **changes: Any) -> Duration:
    """Of an image of 100 bytes."""
    values: dict[str, Any] = {"largest_site": sum(sizes), "image_bytes": 100, "update_s": None}
    return expect_duration(spec, sizes, **(values | changes))


def test_nothing_known_nothing_foretold() -> None:
    """Without pace, budget and history there is no figure, rather than a wrong one."""
    assert expect(plan(*TWO), 10, 90).total_s is None


def test_pace_updates_and_soaks_add_up() -> None:
    """Stage after stage; a stage's own soak counts instead of the plan's."""
    spec = plan(TWO[0].model_copy(update={"soak_s": 100.0}), TWO[1], pace_per_minute=60, soak_s=1000)
    found = expect(spec, 10, 90, update_s=5.0)
    assert [(stage.name, stage.offering_s, stage.soak_s) for stage in found.stages] == [
        ("few", 10, 100),
        ("all", 90, 1000),
    ]
    assert found.total_s == 10 + 100 + 5 + 90 + 1000 + 5
    assert expect(spec.model_copy(update={"emergency": True}), 10, 90).total_s == 100


def test_a_pace_grows_step_by_step() -> None:
    """By its factor every so many devices, over the bounds of stages, up to its most."""
    growth = Growth(factor=2, every=10, of="offered", max_per_minute=200)
    found = expect(plan(*TWO, pace_per_minute=60, pace_growth=growth), 5, 40)
    assert [stage.offering_s for stage in found.stages] == [5, 5 + 10 / 2 + 25 * 60 / 200]


def test_growth_that_never_ends_is_soon_counted() -> None:
    """A million steps that each change next to nothing."""
    growth = Growth(factor=1 + 1e-9, every=1, max_per_minute=1e6)
    assert expect(plan(pace_per_minute=60, pace_growth=growth), 1_000_000).total_s == pytest.approx(1e6, rel=1e-3)


def test_the_budget_of_the_largest_site_may_take_longest() -> None:
    """Ten images an hour: the last of 25 go in the third hour."""
    found = expect(plan(site_bytes_per_hour=1099, pace_per_minute=6000), 30, largest_site=25)
    assert (found.site_s, found.total_s) == (2 * 3600, 2 * 3600)


def warnings(spec: RolloutSpec, *sizes: int, silent: int = 0) -> list[str]:
    """What is said of this plan."""
    return find_warnings(spec, sizes, expect(spec, *sizes), silent=silent, now=NOW)


SOUND: dict[str, Any] = {"success_ratio": 0.9, "halt_ratio": 0.1, "halt_min_sample": 1}


def test_a_sound_plan_has_no_warnings() -> None:
    """It passes at what it does not halt at, and judges as many as there are."""
    assert warnings(plan(*TWO, **SOUND), 10, 90) == []


@pytest.mark.parametrize(
    ("stages", "rules", "sizes", "says"),
    [
        pytest.param(TWO, {"success_ratio": 0.95}, [10, 90], "more than 5.00% and less than 10.00% failures", id="gap"),
        pytest.param(
            [TWO[0].model_copy(update={"success_ratio": 0.99}), TWO[1]],
            {},
            [10, 90],
            "stage few with more than 1.00% and less than 10.00%",
            id="a stage's own gap",
        ),
        pytest.param(TWO, {"halt_min_sample": 11}, [10, 90], "stage few: halt_min_sample 11 is more than", id="sample"),
        pytest.param(TWO, {"min_sample": 91}, [10, 90], "stage all: min_sample 91 is more than its 90", id="successes"),
        pytest.param(TWO, {}, [1001, 9000], "no pace: up to 9000 devices", id="no pace"),
        pytest.param(
            TWO, {"emergency": True, "soak_s": 9}, [10, 90], "skips the soak of 2 stages (few, all)", id="soak"
        ),
        pytest.param(TWO, {"emergency": True, "approval": True}, [10, 90], "skips the approval of 2", id="approval"),
        pytest.param(TWO, {"emergency": True}, [10, 90], "does not wait for the plan's windows", id="emergency"),
        pytest.param(TWO[1:], {}, [100], "one stage: all 100 devices", id="one stage"),
        pytest.param(
            TWO,
            {"pace_per_minute": 1, "end_at": NOW + timedelta(hours=1)},
            [10, 90],
            "end_at comes after 1:00:00, the rollout takes 1:40:00 at best; then it is: stop",
            id="too early an end",
        ),
    ],
)
def test_what_may_not_be_meant(stages: Any, rules: dict[str, Any], sizes: list[int], says: str) -> None:
    """One sentence for each, with its figures."""
    assert any(says in text for text in warnings(plan(*stages, **(SOUND | rules)), *sizes))


def test_an_additional_rule_closes_the_gap() -> None:
    """What halts earlier counts, if it looks at every failure."""
    rule = HaltRule(ratio=0.05)
    assert warnings(plan(*TWO, **SOUND | {"success_ratio": 0.95, "halt_rules": (rule,)}), 10, 90) == []


def test_silent_members_are_named() -> None:
    """They will hold up the end."""
    assert "7 of 100 members are silent" in warnings(plan(*TWO, **SOUND), 10, 90, silent=7)[0]
