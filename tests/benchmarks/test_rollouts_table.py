"""The README says of rollouts what was measured."""

import pytest

from benchmarks.delivery.table import README
from benchmarks.rollouts.table import with_table


def test_the_readme_has_the_figures_of_the_results() -> None:
    """Written from the JSON files, not by hand."""
    page = README.read_text()
    assert page == with_table(page), "run python -m benchmarks.rollouts.table"


def test_a_page_without_a_place_for_it_is_refused() -> None:
    """The markers are named."""
    with pytest.raises(ValueError, match="rollouts:begin"):
        with_table("# Readme\n")
