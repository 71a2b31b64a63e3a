"""Assignments and the counts over them, always changed together.

``save_all`` is the way to write: it applies the difference of the count keys in the same transaction, so that a tick
reads O(stages) counts instead of O(members) rows.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from functools import cache
from typing import Any

from sqlalchemy import String, Update, bindparam, func, select, tuple_, type_coerce, update
from sqlalchemy import insert as plain_insert
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from orchestrator.model.assignment import FIELDS, Assignment, Deltas, count_deltas, counted, scope_figures
from orchestrator.storage.audit_moves import log_moves
from orchestrator.storage.engine_tables import scope_counts
from orchestrator.storage.tables import assignments, counts

Change = tuple[Assignment, Assignment]
"""(before, after)."""
_BATCH = 400
# Statements of every batch are made once: to make one costs as much as to run it.
_BY_KEY = select(assignments).where(
    tuple_(assignments.c.rollout, assignments.c.device).in_(bindparam("the_keys", expanding=True))
)
_COUNTS = select(counts).where(counts.c.rollout == bindparam("the_rollout"), counts.c.n != 0)
_NEW_COUNT = insert(counts)
_COUNT = _NEW_COUNT.on_conflict_do_update(
    index_elements=[counts.c.rollout, counts.c.stage, counts.c.key],
    set_={"n": counts.c.n + _NEW_COUNT.excluded.n},
)
_NEW_SCOPE_COUNT = insert(scope_counts)
_SCOPE_COUNT = _NEW_SCOPE_COUNT.on_conflict_do_update(
    index_elements=[scope_counts.c.scope, scope_counts.c.rollout],
    set_={
        "held": scope_counts.c.held + _NEW_SCOPE_COUNT.excluded.held,
        "waiting": scope_counts.c.waiting + _NEW_SCOPE_COUNT.excluded.waiting,
    },
)


async def insert_all(conn: AsyncConnection, rows: Sequence[Assignment]) -> None:
    """Add new assignments and count them."""
    deltas: Deltas = Counter()
    for row in rows:
        deltas.update({(row.rollout, row.stage, key): n for key, n in counted(row).items()})
    for start in range(0, len(rows), _BATCH):
        batch = [row.to_row() for row in rows[start : start + _BATCH]]
        await conn.execute(plain_insert(assignments), batch)
    await apply_count_deltas(conn, deltas)
    await log_moves(conn, [(None, row) for row in rows])


async def save_all(
    conn: AsyncConnection,
    changes: Iterable[Change],
    *,
    now: datetime | None = None,
    actor: str = "",
    cause: str = "",
) -> None:
    """Write changed assignments and the changed counts; who, when and why: see ``audit_moves``."""
    changed: list[Change] = []
    deltas: Deltas = Counter()
    scopes: defaultdict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0])
    alike: defaultdict[tuple[str, ...], list[dict[str, Any]]] = defaultdict(list)
    for before, after in changes:
        names = tuple(name for name in FIELDS if getattr(before, name) != getattr(after, name))
        if names:
            changed.append((before, after))
            deltas.update(count_deltas(before, after))
            if before.scopes or after.scopes:
                _add_scopes(scopes, before, after)
            values = {name: getattr(after, name) for name in names}
            alike[names].append({**values, "the_rollout": after.rollout, "the_device": after.device})
    for names, rows in alike.items():
        await conn.execute(_update_of(names), rows)
    await apply_count_deltas(conn, deltas)
    await log_moves(conn, changed, now=now, actor=actor, cause=cause)
    scoped = [
        {"scope": scope, "rollout": rollout, "held": held, "waiting": waiting}
        for (scope, rollout), (held, waiting) in scopes.items()
        if held or waiting
    ]
    if scoped:
        await conn.execute(_SCOPE_COUNT, scoped)


def _add_scopes(scopes: defaultdict[tuple[str, str], list[int]], before: Assignment, after: Assignment) -> None:
    for row, sign in ((before, -1), (after, 1)):
        for scope, (held, waiting) in scope_figures(row).items():
            figures = scopes[scope, after.rollout]
            figures[0] += sign * held
            figures[1] += sign * waiting


@cache
def _update_of(names: tuple[str, ...]) -> Update:
    """Writes what changed and no more: a batch has few kinds of change."""
    return (
        update(assignments)
        .where(assignments.c.rollout == bindparam("the_rollout"), assignments.c.device == bindparam("the_device"))
        .values({name: bindparam(name) for name in names})
    )


async def apply_count_deltas(conn: AsyncConnection, deltas: Deltas) -> None:
    """Add to the counters; a row that is not there yet starts at zero."""
    rows = [{"rollout": r, "stage": s, "key": k, "n": n} for (r, s, k), n in deltas.items() if n]
    if rows:
        await conn.execute(_COUNT, rows)


async def get(conn: AsyncConnection, rollout: str, device: str) -> Assignment | None:
    """One assignment."""
    found = await get_many(conn, [(rollout, device)])
    return found.get((rollout, device))


async def get_many(conn: AsyncConnection, keys: Collection[tuple[str, str]]) -> dict[tuple[str, str], Assignment]:
    """Assignments by (rollout, device); those that do not exist are left out."""
    wanted = list(keys)
    found: dict[tuple[str, str], Assignment] = {}
    for start in range(0, len(wanted), _BATCH):
        batch = wanted[start : start + _BATCH]
        result = await conn.execute(_BY_KEY, {"the_keys": batch})
        for row in result.mappings():
            found[row["rollout"], row["device"]] = Assignment.from_row(row)
    return found


async def of_device(conn: AsyncConnection, device: str) -> list[Assignment]:
    """Every assignment of a device, the one that moved last first."""
    result = await conn.execute(
        select(assignments)
        .where(assignments.c.device == device)
        .order_by(assignments.c.updated_at.desc(), assignments.c.rollout.desc())
    )
    return [Assignment.from_row(row) for row in result.mappings()]


async def newest(conn: AsyncConnection, devices: Collection[str]) -> dict[str, Assignment]:
    """By device, its assignment that moved last; devices that have none are left out."""
    wanted, found = list(devices), {}
    rank = func.row_number().over(
        partition_by=assignments.c.device, order_by=(assignments.c.updated_at.desc(), assignments.c.rollout.desc())
    )
    for start in range(0, len(wanted), _BATCH):
        batch = wanted[start : start + _BATCH]
        ranked = select(assignments, rank.label("rank")).where(assignments.c.device.in_(batch)).subquery()
        result = await conn.execute(select(ranked).where(ranked.c.rank == 1))
        found.update({row["device"]: Assignment.from_row(row) for row in result.mappings()})
    return found


async def of_rollout(conn: AsyncConnection, rollout: str, after: str = "", limit: int = 500) -> list[Assignment]:
    """A page of a rollout's assignments by device id."""
    result = await conn.execute(
        select(assignments)
        .where(assignments.c.rollout == rollout, assignments.c.device > after)
        .order_by(assignments.c.device)
        .limit(limit)
    )
    return [Assignment.from_row(row) for row in result.mappings()]


async def open_offers_until(conn: AsyncConnection, rollout: str, instant: datetime, limit: int) -> list[Assignment]:
    """Open offers (download or activate) that run out by ``instant``, the earliest first."""
    result = await conn.execute(
        select(assignments)
        .where(
            assignments.c.rollout == rollout,
            assignments.c.grant.in_(["download", "activate"]),
            assignments.c.offer_expires <= instant,
        )
        .order_by(assignments.c.offer_expires)
        .limit(limit)
    )
    return [Assignment.from_row(row) for row in result.mappings()]


async def granted(conn: AsyncConnection, rollout: str) -> list[str]:
    """Devices of a rollout that have an open grant."""
    rows = await conn.scalars(
        select(assignments.c.device).where(
            assignments.c.rollout == rollout, assignments.c.grant.in_(["download", "activate"])
        )
    )
    return list(rows)


async def load_counts(conn: AsyncConnection, rollout: str) -> dict[int, dict[str, int]]:
    """Counts by stage and key; zeros left out."""
    result = await conn.execute(_COUNTS, {"the_rollout": rollout})
    found: dict[int, dict[str, int]] = {}
    for row in result:
        found.setdefault(row.stage, {})[row.key] = row.n
    return found


async def recount(conn: AsyncConnection, rollout: str) -> dict[int, dict[str, int]]:
    """What the counts must be, from the rows: O(members), for tests and for a doctor."""
    found: dict[int, Counter[str]] = {}
    for row in (await conn.execute(select(assignments).where(assignments.c.rollout == rollout))).mappings():
        found.setdefault(row["stage"], Counter()).update(counted(Assignment.from_row(row)))
    return {stage: dict(keys) for stage, keys in found.items()}


async def recount_scopes(conn: AsyncConnection) -> dict[tuple[str, str], tuple[int, int]]:
    """What the counts of scopes must be, from the rows: (held, waiting) by (scope, rollout); for tests and a doctor."""
    found: defaultdict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0])
    query = select(assignments).where(type_coerce(assignments.c.scopes, String) != "[]")
    for row in (await conn.execute(query)).mappings():
        for scope, (held, waiting) in scope_figures(Assignment.from_row(row)).items():
            found[scope, row["rollout"]][0] += held
            found[scope, row["rollout"]][1] += waiting
    return {key: (held, waiting) for key, (held, waiting) in found.items() if held or waiting}
