"""The README says of rollouts and devices what was measured."""

from types import ModuleType

import pytest

from benchmarks.delivery.table import README
from benchmarks.device import table as device
from benchmarks.rollouts import table as rollouts


@pytest.mark.parametrize("table", [rollouts, device], ids=lambda table: table.__name__)
def test_the_readme_has_the_figures_of_the_results(table: ModuleType) -> None:
    """Written from the JSON files, not by hand."""
    page = README.read_text()
    assert page == table.with_table(page), f"run python -m {table.__name__}"


def test_a_page_without_a_place_for_it_is_refused() -> None:
    """The markers are named."""
    with pytest.raises(ValueError, match="rollouts:begin"):
        rollouts.with_table("# Readme\n")
