"""New assignments by the thousand: they differ in a few columns, and the rest stands in the statement itself.

To bind every column of every row costs several times as much as to write it.
"""

import json
from collections import Counter
from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

from sqlalchemy import TextClause, text
from sqlalchemy.ext.asyncio import AsyncConnection

from orchestrator.model.assignment import FIELDS, Assignment, Deltas, count_keys
from orchestrator.storage.assignments import apply_count_deltas
from orchestrator.storage.audit_moves import log_joined


class Row(NamedTuple):
    """What differs; ``scopes`` is a JSON list."""

    rollout: str
    device: str
    stage: int
    place: float
    site: str
    scopes: str


_VARYING = tuple(name for name in Row._fields if name in FIELDS)


async def insert_rows(conn: AsyncConnection, rows: Sequence[Row]) -> None:
    """Add new assignments and count them."""
    await conn.execute(_statement(), [row._asdict() for row in rows])
    keys = count_keys(Assignment(rollout="", device="", stage=0, place=0.0))
    deltas: Deltas = Counter()
    for (rollout, stage), number in Counter((row.rollout, row.stage) for row in rows).items():
        deltas.update({(rollout, stage, key): number for key in keys})
    await apply_count_deltas(conn, deltas)
    for rollout in {row.rollout for row in rows}:
        joined = [(row.device, row.stage) for row in rows if row.rollout == rollout]
        await log_joined(conn, rollout, joined, sorted(keys))


@cache
def _statement() -> TextClause:
    fresh = Assignment(rollout="", device="", stage=0, place=0.0).to_row()
    fixed = {name: value for name, value in fresh.items() if name not in _VARYING}
    columns = ", ".join(f'"{name}"' for name in (*_VARYING, *fixed))
    values = ", ".join([f":{name}" for name in _VARYING] + [_literal(value) for value in fixed.values()])
    return text(f"INSERT INTO assignments ({columns}) VALUES ({values})")  # noqa: S608 - names and values of our own


def _literal(value: Any) -> str:  # noqa: ANN401 - a column's default
    match value:
        case None:
            return "NULL"
        case bool():
            return str(int(value))
        case int() | float():
            return repr(value)
        case str():
            return "'" + value.replace("'", "''") + "'"
        case list() | dict():
            return _literal(json.dumps(value))
        case _:
            raise TypeError(f"no literal for a {type(value).__name__}")
