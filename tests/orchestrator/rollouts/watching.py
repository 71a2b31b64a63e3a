"""A controller whose every transaction is held against the invariants, and the world as a database has it."""

from collections.abc import Callable
from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from orchestrator.model.assignment import Assignment
from orchestrator.model.rollout import Rollout, Stage
from orchestrator.rollouts.controller import Controller
from orchestrator.rollouts.facts import Decisions, Facts
from orchestrator.storage import assignments as rows_of
from orchestrator.storage import fleet_latch
from orchestrator.storage.engine_tables import scope_counts
from orchestrator.storage.tables import assignments, rollouts, stages
from tests.orchestrator.rollouts.invariants import By, Invariants, World


async def see(conn: AsyncConnection) -> World:
    """All rollouts, as they are stored."""
    found = [Rollout.from_row(row) for row in (await conn.execute(select(rollouts))).mappings()]
    places: dict[str, list[Stage]] = {rollout.id: [] for rollout in found}
    for row in (await conn.execute(select(stages).order_by(stages.c.position))).mappings():
        places[row["rollout"]].append(Stage.from_row(row))
    rows = [Assignment.from_row(row) for row in (await conn.execute(select(assignments))).mappings()]
    return World(
        rollouts={rollout.id: rollout for rollout in found},
        stages=places,
        rows={(row.rollout, row.device): row for row in rows},
        is_latched=await fleet_latch.get(conn) is not None,
    )


async def check_counters(conn: AsyncConnection, world: World, invariants: Invariants) -> None:
    """Hold what is counted against the rows."""
    counts = {name: await rows_of.load_counts(conn, name) for name in world.rollouts}
    held = (await conn.execute(select(scope_counts))).mappings()
    scopes = {(row["scope"], row["rollout"]): (row["held"], row["waiting"]) for row in held}
    invariants.counted(world, counts, {key: figures for key, figures in scopes.items() if any(figures)})


class WatchedController(Controller):
    """Tells every decision and what was written for it."""

    def __init__(
        self, invariants: Invariants, *given: Any, told: Callable[[Facts, Decisions], None] | None = None
    ) -> None:
        super().__init__(*given)
        self.invariants = invariants
        self.told = told

    async def _write(self, conn: AsyncConnection, facts: Facts, decisions: Decisions, now: datetime) -> bool:
        before = await see(conn)
        self.invariants.decided(facts, decisions, now, self._lease, before)
        if self.told is not None:
            self.told(facts, decisions)
        more = await super()._write(conn, facts, decisions, now)
        self.invariants.moved(before, await see(conn), now, By.ENGINE)
        return more
