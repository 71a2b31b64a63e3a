"""What reaches the screen: text as text, whatever a device wrote into it."""

import json

import pytest

from orchestrator.cli.output import Format, cell, show_done, show_fields, show_rows

HOSTILE = "\x1b[2Jgone [bold]not markup[/bold]\n"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"), ("", "-"), ([], "-"), ({}, "-"), (0, "0"), (0.5, "0.5"), (True, "yes"), (False, "no"),
        (["a", "b"], "a, b"), ({"a": 1, "b": None}, "a=1"), ([{"a": 1}, {"b": 2}], "a=1\nb=2"),
    ],
)  # fmt: skip
def test_cells(value: object, text: str) -> None:
    """Nothing is a dash; lists and maps are short."""
    assert cell(value) == text


def test_a_device_cannot_write_to_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """Control characters are shown as such, markup stays text."""
    show_rows(("id", "detail"), [{"id": "a", "detail": HOSTILE}], Format.TABLE)
    show_fields({"detail": {"inner": [HOSTILE]}}, Format.TABLE)
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert out.count("[bold]not markup[/bold]") == 2


def test_json_is_one_document_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    """Every field, also those that the table leaves out."""
    rows = [{"id": "a", "more": {"x": [1]}}]
    show_rows(("id",), rows, Format.JSON)
    show_fields(rows[0], Format.JSON)
    show_done("done", rows, Format.JSON)
    lines = capsys.readouterr().out.splitlines()
    assert [json.loads(line) for line in lines] == [rows, rows[0], rows]


def test_a_sentence_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    """What was done."""
    show_done("group g: created", {}, Format.TABLE)
    assert capsys.readouterr().out == "group g: created\n"
