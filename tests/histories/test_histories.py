"""What was decided once is decided again: the same facts, the same decisions, or a version that says why not."""

import json
from pathlib import Path
from typing import Any

import pytest

from orchestrator.model.audit import AuditEntry, encode_body
from orchestrator.rollouts.facts import VERSION
from orchestrator.rollouts.replaying import check_decision
from tests.histories.record import SCENARIOS, record
from tests.orchestrator.rollouts.yard import NOW

HERE = Path(__file__).parent
FILES = sorted(HERE.glob("*.json"))


def entry(number: int, figures: dict[str, Any]) -> AuditEntry:
    """A decision as the log has it."""
    return AuditEntry(
        id=number, at=NOW, kind="decision", actor="engine", rollout="r-1", device="", cause="", epoch=1, correlation="",
        body=encode_body(figures), hash="",
    )  # fmt: skip


@pytest.mark.parametrize("file", FILES, ids=[file.stem for file in FILES])
def test_later_code_decides_the_same(file: Path) -> None:
    """A file of an earlier version is named in the README, with the reason."""
    history = json.loads(file.read_text())
    assert len(history) > 3
    for number, figures in enumerate(history):
        if figures["version"] != VERSION:
            assert f"| {file.name} | {figures['version']} |" in (HERE / "README.md").read_text()
            continue
        assert check_decision(entry(number, figures)) is None


def test_a_history_that_was_touched_shows() -> None:
    """The comparison can fail."""
    history = json.loads(FILES[0].read_text())
    figures = next(one for one in history if one["decisions"]["offer_budget"])
    figures["decisions"]["offer_budget"] += 1
    assert check_decision(entry(1, figures)) is not None


@pytest.mark.parametrize("scenario", SCENARIOS, ids=[scenario.__name__ for scenario in SCENARIOS])
async def test_scenarios_still_run(scenario: Any) -> None:
    """And have a file."""
    assert len(await record(scenario)) > 3
    assert (HERE / f"{scenario.__name__}.json").exists()
