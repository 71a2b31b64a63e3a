"""How commands answer: a table for people, JSON for programs."""

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table


class Format(StrEnum):
    """What ``-o`` chooses."""

    TABLE = "table"
    JSON = "json"


HomeOption = Annotated[
    Path, typer.Option("--home", envvar="FLAGSHIP_HOME", help="the fleet's home", show_default="this directory")
]
HERE = Path()
FormatOption = Annotated[Format, typer.Option("-o", "--output", help="table or json", show_default=False)]


def show_json(value: object) -> None:
    """Print one JSON value in one line."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False, default=str) + "\n")
    sys.stdout.flush()


def show_rows(columns: Sequence[str], rows: Iterable[Mapping[str, Any]], output: Format) -> None:
    """Print a list: a table with these columns, or every field as JSON."""
    found = list(rows)
    if output is Format.JSON:
        show_json(found)
        return
    lines = [[cell(row.get(column)) for column in columns] for row in found]
    console().print(table([column.replace("_", " ") for column in columns], lines))


def show_fields(fields: Mapping[str, Any], output: Format) -> None:
    """Print one thing: a line per field, or an object."""
    if output is Format.JSON:
        show_json(fields)
        return
    lines = [[name.replace("_", " "), cell(value)] for name, value in fields.items()]
    console().print(table(["", ""], lines, header=False))


def show_done(sentence: str, fields: object, output: Format) -> None:
    """Print what was done: a sentence, or the server's answer as JSON."""
    if output is Format.JSON:
        show_json(fields)
        return
    sys.stdout.write(sentence + "\n")
    sys.stdout.flush()


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, header: bool = True, title: str = "") -> "Table":
    """A plain table; cells are text, never markup."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    made = Table(box=box.SIMPLE_HEAD if header else None, show_header=header, title=title or None, title_justify="left")
    for column in columns:
        made.add_column(column, overflow="fold")
    for row in rows:
        made.add_row(*(Text(text) for text in row))
    return made


def console() -> "Console":
    """Standard output as rich sees it; a pipe gets wide, plain lines."""
    from rich.console import Console

    made = Console(highlight=False, soft_wrap=False)
    if not made.is_terminal:
        made.width = 200
    return made


_NOTHING: tuple[object, ...] = (None, "", [], {}, ())


def cell(value: object) -> str:
    """One value as a person reads it; control characters are shown, never sent to the terminal."""
    if value in _NOTHING:
        return "-"
    match value:
        case bool():
            return "yes" if value else "no"
        case float():
            return f"{value:g}"
        case Mapping():
            return ", ".join(f"{key}={cell(item)}" for key, item in value.items() if item not in _NOTHING)
        case list() | tuple():
            return ("\n" if any(isinstance(item, Mapping) for item in value) else ", ").join(map(cell, value))
        case _:
            return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in str(value))
