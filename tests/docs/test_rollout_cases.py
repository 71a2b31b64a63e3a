"""docs/reference/hawkbit-rollout-cases.md: each test that it names exists, and each case has one or a reason."""

import re
from pathlib import Path

TESTS = Path(__file__).parents[1]
PAGE = TESTS.parent / "docs" / "reference" / "hawkbit-rollout-cases.md"
CASES = 63


def _rows() -> list[list[str]]:
    lines = [line for line in PAGE.read_text().splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[1:]]


def test_every_case_is_tested_or_says_why_not() -> None:
    """All of them, each once."""
    rows = _rows()
    assert len({name for name, _, _ in rows}) == len(rows) == CASES
    for name, behaviour, test in rows:
        if test.startswith("not applicable: "):
            assert behaviour == "-", name
        else:
            assert len(behaviour) > 10 and "::test_" in test, name


def test_every_test_that_is_named_exists() -> None:
    """By file and function."""
    named = [found for _, _, cell in _rows() for found in re.findall(r"`([^`]+\.py)::(test_\w+)`", cell)]
    assert len(named) >= CASES - 14
    for file, test in named:
        assert f"def {test}(" in (TESTS / file).read_text(), f"{file}::{test}"
