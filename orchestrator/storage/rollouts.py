"""Rollouts and their stages."""

import json
from collections.abc import Collection, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any

from sqlalchemy import RowMapping, String, bindparam, func, or_, select, text, type_coerce, update
from sqlalchemy import insert as plain_insert
from sqlalchemy.ext.asyncio import AsyncConnection

from orchestrator.model.plan import RolloutSpec
from orchestrator.model.rollout import Rollout, RolloutState, Stage
from orchestrator.storage.conditions import UNSETTLED
from orchestrator.storage.tables import assignments, releases, rollouts, stages
from protocol.states import OUTCOMES

NOT_BEGUN = [RolloutState.DRAFT, RolloutState.AWAITING_APPROVAL]
# The plan as text: one of 500 stages takes milliseconds to check, and a plan never changes.
_SELECT = select(
    *(type_coerce(column, String).label("spec") if column is rollouts.c.spec else column for column in rollouts.c)
)
# The questions of every look are made once: to make one costs more than to answer it.
_NEXT_EXPIRY = (
    select(assignments.c.offer_expires)
    .where(
        assignments.c.rollout == bindparam("the_rollout"),
        assignments.c.grant == bindparam("the_grant"),
        assignments.c.offer_expires.is_not(None),
    )
    .order_by(assignments.c.offer_expires)
    .limit(1)
)


async def insert(conn: AsyncConnection, rollout_id: str, spec: RolloutSpec, state: RolloutState, now: datetime) -> None:
    """Add a rollout and its stages, still without members."""
    await conn.execute(
        plain_insert(rollouts).values(
            id=rollout_id, release=spec.release, state=state, spec=spec.model_dump(mode="json"), created_at=now
        )
    )
    await conn.execute(
        plain_insert(stages),
        [
            {"rollout": rollout_id, "position": position, "name": stage.name, "state": "pending"}
            for position, stage in enumerate(spec.stages)
        ],
    )


async def get(conn: AsyncConnection, rollout_id: str) -> Rollout | None:
    """One rollout."""
    row = (await conn.execute(_SELECT.where(rollouts.c.id == rollout_id))).mappings().first()
    return None if row is None else _read(row)


async def known(conn: AsyncConnection, ids: Collection[str]) -> list[str]:
    """Those of these rollouts that exist here."""
    return list(await conn.scalars(select(rollouts.c.id).where(rollouts.c.id.in_(list(ids)))))


async def not_ended(conn: AsyncConnection) -> list[Rollout]:
    """Rollouts that the engine looks at: started or scheduled, with a member that may still move.

    One that ended is among them while a failure that came late is to be settled.
    """
    late = select(assignments.c.rollout).where(text(UNSETTLED))
    rows = await conn.execute(
        _SELECT.where(
            rollouts.c.state.not_in(NOT_BEGUN),
            or_(rollouts.c.ended_at.is_(None), rollouts.c.id.in_(late)),
        ).order_by(rollouts.c.created_at, rollouts.c.id)
    )
    return [_read(row) for row in rows.mappings()]


async def in_states(conn: AsyncConnection, states: Collection[RolloutState]) -> list[Rollout]:
    """Rollouts in one of these states, by id."""
    rows = await conn.execute(_SELECT.where(rollouts.c.state.in_(list(states))).order_by(rollouts.c.id))
    return [_read(row) for row in rows.mappings()]


async def page(conn: AsyncConnection, *, after: str = "", limit: int = 200) -> list[Rollout]:
    """Rollouts by id, beginning behind ``after``."""
    rows = await conn.execute(_SELECT.where(rollouts.c.id > after).order_by(rollouts.c.id).limit(limit))
    return [_read(row) for row in rows.mappings()]


async def states(conn: AsyncConnection, limit: int = 50) -> dict[str, str]:
    """State by rollout id, of the newest rollouts."""
    rows = await conn.execute(
        select(rollouts.c.id, rollouts.c.state).order_by(rollouts.c.created_at.desc()).limit(limit)
    )
    return {row.id: row.state for row in rows}


async def next_id(conn: AsyncConnection) -> str:
    """``r-<n>``, one above the number of rollouts, or higher where that is taken."""
    number = (await conn.scalar(select(func.count()).select_from(rollouts)) or 0) + 1
    while await get(conn, f"r-{number}") is not None:
        number += 1
    return f"r-{number}"


async def components(conn: AsyncConnection, ids: Collection[str]) -> dict[str, str]:
    """Which component each of these rollouts brings; a few ids."""
    query = select(rollouts.c.id, releases.c.component).join(releases, releases.c.id == rollouts.c.release)
    return dict((await conn.execute(query.where(rollouts.c.id.in_(ids)))).all())


async def save(
    conn: AsyncConnection,
    rollout_id: str,
    *,
    is_news: bool = True,
    **values: Any,  # noqa: ANN401 - columns
) -> None:
    """Change columns of a rollout; what is news to a person who looks at it raises its version."""
    version = {"version": rollouts.c.version + 1} if is_news else {}
    if values or version:
        await conn.execute(update(rollouts).where(rollouts.c.id == rollout_id).values(**values, **version))


async def load_stages(conn: AsyncConnection, rollout_id: str) -> list[Stage]:
    """The stages in order."""
    rows = await conn.execute(select(stages).where(stages.c.rollout == rollout_id).order_by(stages.c.position))
    return [Stage.from_row(row) for row in rows.mappings()]


async def save_stages(conn: AsyncConnection, changed: Sequence[Stage]) -> None:
    """Write stages as they are now."""
    for stage in changed:
        await conn.execute(
            update(stages)
            .where(stages.c.rollout == stage.rollout, stages.c.position == stage.position)
            .values(
                state=stage.state,
                members=stage.members,
                opened_at=stage.opened_at,
                soaking_since=stage.soaking_since,
                passed_at=stage.passed_at,
            )
        )


async def waiting_reasons(conn: AsyncConnection, rollout_id: str) -> dict[int, dict[str, int]]:
    """Devices by stage and ``gate: code`` of what keeps them waiting; looks at waiting devices only."""
    reason = func.json_each(assignments.c.reasons).table_valued("value")
    gate = func.json_extract(reason.c.value, "$.gate")
    name = (gate + ": " + func.json_extract(reason.c.value, "$.code")).label("name")
    rows = await conn.execute(
        select(assignments.c.stage, name, func.count().label("n"))
        .select_from(assignments.join(reason, onclause=type_coerce(assignments.c.reasons, String) != "[]"))
        .where(assignments.c.rollout == rollout_id, assignments.c.state.not_in([str(s) for s in OUTCOMES]))
        .group_by(assignments.c.stage, name)
    )
    found: dict[int, dict[str, int]] = {}
    for row in rows:
        found.setdefault(row.stage, {})[row.name] = row.n
    return found


async def next_offer_expiry(conn: AsyncConnection, rollout_id: str) -> datetime | None:
    """When the first open offer (download or activate) runs out."""
    found: list[datetime] = []
    for grant in ("download", "activate"):
        first = await conn.scalar(_NEXT_EXPIRY, {"the_rollout": rollout_id, "the_grant": grant})
        if first is not None:
            found.append(first)
    return min(found, default=None)


def _read(row: RowMapping) -> Rollout:
    return Rollout.from_row(row, _plan(row["spec"]))


@lru_cache(maxsize=64)
def _plan(stored: str) -> RolloutSpec:
    """By what it says, not by whose it is: an id may be given again, a text always means the same."""
    return RolloutSpec.model_validate(json.loads(stored))
