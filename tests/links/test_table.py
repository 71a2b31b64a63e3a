"""Every bad link ends in the right image, or goes on with the reason visible; and no verified byte comes twice."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.links.rows import EVERY, ROWS, Row, render
from tests.links.runs import Run, run_rows

DOCUMENT = Path(__file__).parents[2] / "docs" / "reference" / "links.md"


@pytest.fixture(scope="module")
def runs() -> dict[str, Run]:
    """All rows of the table, run once and at once."""
    return asyncio.run(run_rows(ROWS))


def _check(run: Run) -> None:
    if run.row.ends:
        assert (run.error, run.version, run.is_whole) == ("", "1.1.0", True), run
    else:
        assert (run.version, run.error) == ("1.0.0", ""), run
    assert set(run.row.seen) <= run.said, run
    assert run.twice == 0, run
    assert (run.verified > 0) == run.row.ends, run


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_a_bad_link(runs: dict[str, Run], row: Row) -> None:
    """The right image, or no other and a reason; what was verified is never fetched again."""
    _check(runs[row.name])


@pytest.mark.parametrize(
    ("row", "fate"),
    [*(("a bad day", fate) for fate in ("drop", "duplicate", "hold_back", "corrupt")), ("subacks lost", "suback_drop")],
)
def test_the_faults_were_played(runs: dict[str, Run], row: str, fate: str) -> None:
    """A table whose faults did not happen proves nothing."""
    assert runs[row].fates.get(fate, 0) > 0


def test_the_document_has_this_table() -> None:
    """docs/reference/links.md says what is tried."""
    assert render() in DOCUMENT.read_text()


@pytest.mark.slow
@pytest.mark.parametrize("rows", [EVERY[start : start + 30] for start in range(0, len(EVERY), 30)])
def test_every_combination(rows: Sequence[Row]) -> None:
    """Thirty at a time."""
    for run in asyncio.run(run_rows(rows)).values():
        _check(run)
