"""What an engine decided once, later ones decide too; or they carry a higher version, and say why."""

import json
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from orchestrator.rollouts.engine import reconcile
from orchestrator.rollouts.facts import VERSION, Decisions, Facts
from orchestrator.rollouts.plain_values import from_plain, to_plain
from tests.histories.record import SCENARIOS, recorded

HERE = Path(__file__).parent
HISTORIES = sorted(HERE.glob("*.json"))
README = (HERE / "README.md").read_text()


def _with_plan(part: dict[str, Any], plans: dict[str, Any]) -> dict[str, Any]:
    return part | {"rollout": part["rollout"] | {"spec": plans[part["rollout"]["id"]]}}


def _differing(history: dict[str, Any]) -> list[str]:
    """Decisions that this engine makes otherwise."""
    found = []
    for number, step in enumerate(history["steps"]):
        facts = from_plain(Facts, _with_plan(step["facts"], history["plans"]))
        said = to_plain(from_plain(Decisions, _with_plan(step["decisions"], history["plans"])))
        now = from_plain(datetime, step["now"])
        ours = to_plain(reconcile(facts, now, from_plain(timedelta, step["lease_s"])))
        found += [
            f"step {number} at {step['now']}: {name}: then {said[name]}, now {ours[name]}"
            for name in ours
            if ours[name] != said[name]
        ]
    return found


@pytest.mark.parametrize("path", HISTORIES, ids=lambda path: path.stem)
def test_the_engine_decides_as_it_did(path: Path) -> None:
    """From the recorded facts alone; where it does not, its version rose, and the README says why."""
    history = json.loads(path.read_text())
    assert history["version"] <= VERSION, f"{path.name}: was recorded by a later engine"
    differing = _differing(history)
    if history["version"] == VERSION:
        assert not differing, "raise VERSION in rollouts/facts.py, and say why in tests/histories/README.md"
    elif differing:
        assert f"`{path.name}`" in README, f"{path.name}: decides otherwise, and the README does not say why"


def test_a_decision_that_changed_is_found() -> None:
    """The comparison sees one budget that differs."""
    history = json.loads((HERE / "happy-path.json").read_text())
    step = next(step for step in history["steps"] if step["decisions"].get("offer_budget"))
    step["decisions"]["offer_budget"] += 1
    assert any("offer_budget" in words for words in _differing(history))


@pytest.mark.parametrize("name", SCENARIOS)
async def test_each_scenario_has_a_history_and_keeps_the_invariants(name: str) -> None:
    """It can still be lived today, step by step under the invariants."""
    assert (HERE / f"{name}.json").exists(), f"python -m tests.histories.record {name}"
    assert (await recorded(SCENARIOS[name]))["steps"]
