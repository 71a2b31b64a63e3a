"""docs/reference/hawkbit-rollout-cases.md names tests that exist."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "reference" / "hawkbit-rollout-cases.md"


def test_every_case_has_its_test_or_a_reason() -> None:
    """Each row names a file of tests, and a test in it; or says why there is none."""
    rows = re.findall(r"^\| `(\w+)` \| (.+?) \| (.+?) \|$", PAGE.read_text(), re.MULTILINE)
    assert len({case for case, _, _ in rows}) == len(rows) > 55
    for case, behaviour, cell in rows:
        named = re.findall(r"`((?:\w+/)+test_\w+\.py)(?:::(\w+))?`", cell)
        assert named or behaviour == "not applicable", case
        for file, test in named:
            text = (ROOT / "tests" / file).read_text()
            assert re.search(rf"def {test or 'test_'}", text), f"{case}: {file}::{test}"
