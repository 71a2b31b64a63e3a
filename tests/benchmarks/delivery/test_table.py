"""The README's table says what the JSON file says, and what is missed is said too."""

from pathlib import Path
from typing import Any

import pytest

from benchmarks.delivery import results, table

MACHINE = {"processor": "a", "cores": 2, "kernel": "6", "python": "3.11"}


def _one(value: float) -> dict[str, Any]:
    return {"median": value, "samples": [value]}


def _data(share: float) -> dict[str, Any]:
    row = {
        "measured_at": "2026-01-02T03:04:05+00:00",
        "devices": 50,
        "payload_mb": 10.5,
        "messages": 11.0,
        "ms": {"ours": _one(100 * share), "goosebit": _one(100.0)},
        "parts_ms": {"serve": _one(60 * share), "broker": _one(40 * share)},
        "of_goosebit": _one(share),
    }
    return {"machine": MACHINE, "rows": {"whole_update": row}}


def test_the_readme_has_the_table_of_the_file() -> None:
    """Whoever measures anew writes the table anew."""
    page = table.README.read_text()
    shown = page.partition(table.BEGIN)[2].partition(table.END)[0].strip()
    assert shown == table.text(results.read()).strip()


def test_every_row_of_the_file_has_a_line() -> None:
    """Nothing that was measured is left out of the table."""
    rows = results.read().get("rows", {})
    for name, row in rows.items():
        assert table.lines({"rows": {name: row}}), name


@pytest.mark.parametrize(("share", "verdict"), [(0.1, "| met |"), (0.11, "| **missed** |")], ids=["met", "missed"])
def test_a_goal_is_met_or_missed(share: float, verdict: str) -> None:
    """The verdict follows from the figures; where a goal is missed, the reason stands below the table."""
    text = table.text(_data(share))
    assert verdict in text
    assert ("- missed: CPU of all servers" in text) is (share > 0.1)


def test_writing_replaces_what_is_between_the_markers(tmp_path: Path) -> None:
    """The rest of the page stays, however often the table is written."""
    page = tmp_path / "README.md"
    page.write_text(f"before\n{table.BEGIN}\nold\n{table.END}\nafter\n")
    for _ in range(2):
        table.write(page, _data(0.1))
    assert page.read_text() == f"before\n{table.BEGIN}\n{table.text(_data(0.1))}\n{table.END}\nafter\n"


def test_a_page_without_markers_is_left_alone(tmp_path: Path) -> None:
    """A table is never put where nobody asked for it."""
    page = tmp_path / "README.md"
    page.write_text("nothing\n")
    with pytest.raises(ValueError, match="put them where the table belongs"):
        table.write(page, _data(0.1))
    assert page.read_text() == "nothing\n"


def test_a_row_takes_the_place_of_the_one_before(tmp_path: Path) -> None:
    """Measuring one row leaves the others as they are."""
    file = tmp_path / "delivery.json"
    for name, value in (("one", 1), ("two", 2), ("one", 3)):
        results.write_row(file, name, {"value": value})
    rows = results.read(file)["rows"]
    assert {name: row["value"] for name, row in rows.items()} == {"one": 3, "two": 2}
