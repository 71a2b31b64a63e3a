"""docs/reference/rollout-plan.md says what the model says."""

import re
from pathlib import Path

from orchestrator.cli.plan_file import read_plan_file
from tests.docs.plan_keys import PAGE, with_tables


def test_every_key_is_described_as_it_is() -> None:
    """Defaults and bounds come from the model; a new key needs a meaning before this passes."""
    page = PAGE.read_text()
    assert page == with_tables(page), "run python -m tests.docs.plan_keys"


def test_the_example_is_a_plan(tmp_path: Path) -> None:
    """As it stands there."""
    found = re.search(r"```yaml\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert found
    file = tmp_path / "plan.yaml"
    file.write_text(found[1])
    assert len(read_plan_file(file).stages) == 3
