"""A look costs what it finds, not what a rollout has: every question to the members goes by an index for it."""

import re
import sqlite3
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from sqlalchemy import event

from orchestrator.model.plan import Retry, StageSpec, Timeouts, UnavailableLimit
from protocol.states import Phase, State
from tests.orchestrator.rollouts.yard import LOW_BATTERY, NOW, Yard, plan

WHOLE_KEY = re.compile(r"\((rollout=\? AND device=\?|device=\?)")
FOR_IT = re.compile(r"INDEX assignments_(?!open_offers \(rollout=\?\)|by_)\w+")
"""Indexes of conditions: what is not asked for is not in them."""
STAGES = (StageSpec(name="first", devices=("d0", "d1"), soak_s=10), StageSpec(name="rest", percent=100))
Asked = dict[str, tuple[Any, ...]]


@contextmanager
def asked(yard: Yard, found: Asked) -> Iterator[None]:
    """Note the statements about members that are put to the database meanwhile, with the last values of each."""

    def hear(_conn: Any, _cursor: Any, statement: str, values: Any, _context: Any, many: bool) -> None:
        if re.search(r"\b(FROM|UPDATE|JOIN) assignments\b", statement):
            found[statement] = tuple(values[0] if many else values)

    engines = [yard.db._engine.sync_engine, yard.db._direct]
    for engine in engines:
        event.listen(engine, "before_cursor_execute", hear)
    try:
        yield
    finally:
        for engine in engines:
            event.remove(engine, "before_cursor_execute", hear)


async def live(yard: Yard, ids: list[str], look: Callable[[], Awaitable[None]]) -> None:
    """A rollout in which all happens: waits, grants, failures, retries, a heavier one, an end."""
    await yard.add_devices(ids, labels={"site": "lab"})
    await yard.add_release(name="gateway/1.2.0")
    rules = {
        "max_unavailable": [UnavailableLimit(label="site", count=1)],
        "retries": {"download": Retry(times=1, backoff_s=1)},
        "timeouts": Timeouts(queued_s=5, downloading_s=5, installing_s=5, verifying_s=5),
        "members": {"dynamic": True},
        "end_at": NOW + timedelta(hours=2),
        "site_bytes_per_hour": 100,
        "pace_per_minute": 600.0,
    }
    rollout = await yard.run(plan(*STAGES, **rules, halt_ratio=1.0, halt_min_sample=99, success_ratio=0.1))
    heavier = await yard.run(
        plan(release="gateway/1.2.0", weight=900, pace_per_minute=60.0, members={"devices": ["d9"]})
    )
    for turn in range(12):
        await look()
        for number, device in enumerate(ids):
            await yard.ready(rollout, device, *([LOW_BATTERY] if number % 5 == 4 else []))
            lives = [State.FETCHED, State.FAILED, State.SUCCEEDED, State.DOWNLOADING]
            state = State.SUCCEEDED if number < 4 else lives[(number + turn) % 4]
            await yard.report(rollout, device, state, **({"phase": Phase.INSTALL} if state is State.FETCHED else {}))
            if turn == 3:
                await yard.ready(heavier, device)
        yard.clock.advance(4)
    await yard.order(rollout, "pause")
    await look()
    await yard.order(rollout, "resume")
    yard.clock.advance(7200)
    await look()
    await yard.order(heavier, "abort")
    await look()


def plans(yard: Yard, statements: Asked) -> Iterator[tuple[str, str]]:
    """(statement, how SQLite would answer it) for every access to the members."""
    with sqlite3.connect(yard.db.path) as db:
        for statement, values in statements.items():
            for row in db.execute(f"EXPLAIN QUERY PLAN {statement}", values):
                if re.match(r"(SCAN|SEARCH) assignments\b", row[3]):
                    yield statement, row[3]


async def test_every_question_of_a_look_goes_by_an_index_for_it(yard: Yard) -> None:
    """Neither the members of a rollout nor those of all rollouts are read through."""
    statements: Asked = {}

    async def look() -> None:
        with asked(yard, statements):
            await yard.look_only()

    await live(yard, [f"d{number}" for number in range(10)], look)
    found = list(plans(yard, statements))
    assert len(found) > 15
    for statement, way in found:
        assert WHOLE_KEY.search(way) or FOR_IT.search(way), f"{way}\n{statement}"


async def test_a_question_without_an_index_is_found(yard: Yard) -> None:
    """This test can fail."""
    statements: Asked = {}
    with asked(yard, statements):
        async with yard.db.read() as conn:
            await conn.exec_driver_sql("SELECT device FROM assignments WHERE rollout = ? AND detail = ?", ("r", "x"))
    ((_, way),) = plans(yard, statements)
    assert not (WHOLE_KEY.search(way) or FOR_IT.search(way))
