"""What devices' parts in rollouts say about a release: where it is set aside, where it is under way, how it went.

For planning: each question is one statement over the rollouts of a release or a product, not one per device.
"""

from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, String, delete, exists, func, select, type_coerce
from sqlalchemy.ext.asyncio import AsyncConnection

from orchestrator.model.assignment import CHANGING, OVER, Assignment, count_keys
from orchestrator.model.rollout import RolloutState
from orchestrator.storage.assignments import apply_count_deltas, load_counts
from orchestrator.storage.audit_moves import log_left
from orchestrator.storage.rollouts import NOT_BEGUN
from orchestrator.storage.tables import assignments, releases, rollouts, stages
from protocol.states import State

_BATCH = 500
_SET_ASIDE = [State.ROLLED_BACK.value, State.INCONSISTENT.value]
_WHOLE_FLEET = None


@dataclass(frozen=True, slots=True)
class PastRollout:
    """An ended rollout of a product.

    Attributes:
        stages: Name and members of each, in order.
        counts: By stage and key of ``model.assignment.count_keys``.
    """

    id: str
    release: str
    stages: tuple[tuple[str, int], ...]
    counts: dict[int, dict[str, int]]


async def quarantined(
    conn: AsyncConnection, release: str, ids: Collection[str] | None = _WHOLE_FLEET
) -> dict[str, datetime]:
    """Devices that rolled a release back or were left inconsistent by it, and did not take it since; since when."""
    later = assignments.alias("later")
    same = select(rollouts.c.id).where(rollouts.c.release == release)
    took_it_since = exists().where(
        later.c.device == assignments.c.device,
        later.c.rollout.in_(same),
        later.c.state == State.SUCCEEDED.value,
        later.c.updated_at > assignments.c.updated_at,
    )
    found: dict[str, datetime] = {}
    for some in _shares(ids):
        rows = await conn.execute(
            select(assignments.c.device, func.max(assignments.c.updated_at))
            .where(assignments.c.rollout.in_(same), assignments.c.state.in_(_SET_ASIDE), ~took_it_since, *some)
            .group_by(assignments.c.device)
        )
        found |= {row[0]: row[1] for row in rows if row[1] is not None}
    return found


async def open_elsewhere(
    conn: AsyncConnection, release: str, but: str = "", ids: Collection[str] | None = _WHOLE_FLEET
) -> dict[str, str]:
    """Devices that have an open part in a rollout of a release that has not ended, by device.

    Args:
        but: A rollout that does not count.
    """
    found: dict[str, str] = {}
    for some in _shares(ids):
        rows = await conn.execute(
            select(assignments.c.device, assignments.c.rollout)
            .join(rollouts, rollouts.c.id == assignments.c.rollout)
            .where(
                rollouts.c.release == release,
                rollouts.c.id != but,
                rollouts.c.state.not_in(NOT_BEGUN),
                rollouts.c.ended_at.is_(None),
                assignments.c.state.not_in(OVER),
                # Of an aborted rollout only those have anything left to do that are being changed.
                (rollouts.c.state != RolloutState.ABORTED) | assignments.c.state.in_(CHANGING),
                *some,
            )
        )
        found |= {row.device: row.rollout for row in rows}
    return found


async def placed(conn: AsyncConnection, rollout: str, ids: Collection[str]) -> set[str]:
    """Those of these devices that have a place in a rollout."""
    found: set[str] = set()
    for some in _shares(ids):
        found |= set(await conn.scalars(select(assignments.c.device).where(assignments.c.rollout == rollout, *some)))
    return found


async def came_from(conn: AsyncConnection, rollout: str, *, unhealthy: bool = False) -> dict[str, list[str]]:
    """Devices that a rollout updated, by the version that they ran before; "" where they did not say.

    Args:
        unhealthy: Only those that were left inconsistent, or are judged for want of an outcome.
    """
    c = assignments.c
    bad = (c.state == State.INCONSISTENT.value) | (c.verdict != "")
    rows = await conn.execute(
        select(c.device, c.from_version)
        .where(c.rollout == rollout, bad if unhealthy else c.state == State.SUCCEEDED.value)
        .order_by(c.device)
    )
    found: dict[str, list[str]] = {}
    for row in rows:
        found.setdefault(row.from_version or "", []).append(row.device)
    return found


async def newest_reasons(conn: AsyncConnection) -> Iterator[tuple[str, str]]:
    """(device, reasons as stored) of devices whose newest report in any rollout names gates that are not open."""
    order = (assignments.c.updated_at.desc(), assignments.c.rollout.desc())
    reasons = type_coerce(assignments.c.reasons, String).label("reasons")
    ranked = (
        select(
            assignments.c.device,
            reasons,
            func.row_number().over(partition_by=assignments.c.device, order_by=order).label("rank"),
        )
        .where(assignments.c.updated_at.is_not(None))
        .subquery()
    )
    rows = await conn.execute(
        select(ranked.c.device, ranked.c.reasons).where(ranked.c.rank == 1, ranked.c.reasons != "[]")
    )
    return ((device, text) for device, text in rows)


async def past_rollouts(conn: AsyncConnection, product: str, limit: int = 20) -> list[PastRollout]:
    """Ended rollouts of a product that made offers, the newest first, with their final counts."""
    rows = (
        await conn.execute(
            select(rollouts.c.id, rollouts.c.release)
            .join(releases, releases.c.id == rollouts.c.release)
            .where(releases.c.product == product, rollouts.c.ended_at.is_not(None), rollouts.c.offers_made > 0)
            .order_by(rollouts.c.created_at.desc())
            .limit(limit)
        )
    ).all()
    found: list[PastRollout] = []
    for rollout, release in rows:
        named = await conn.execute(
            select(stages.c.name, stages.c.members).where(stages.c.rollout == rollout).order_by(stages.c.position)
        )
        sizes = tuple((name, size) for name, size in named)
        found.append(PastRollout(rollout, release, sizes, await load_counts(conn, rollout)))
    return found


async def update_times_s(conn: AsyncConnection, past: Collection[str], limit: int = 2000) -> list[float]:
    """Seconds from offer to success of some devices in these rollouts."""
    rows = await conn.execute(
        select(assignments.c.offered_at, assignments.c.updated_at)
        .where(
            assignments.c.rollout.in_(list(past)),
            assignments.c.state == State.SUCCEEDED.value,
            assignments.c.offered_at.is_not(None),
            assignments.c.updated_at.is_not(None),
        )
        .limit(limit)
    )
    return [max(0.0, (updated - offered).total_seconds()) for offered, updated in rows]


async def remove_some(conn: AsyncConnection, rollout: str, limit: int) -> int:
    """Take away up to so many places of a rollout that has not begun, and its counts; how many there were."""
    some = select(assignments.c.device, assignments.c.stage).where(assignments.c.rollout == rollout).limit(limit)
    gone = [(row.device, row.stage) for row in await conn.execute(some)]
    for start in range(0, len(gone), _BATCH):
        ids = [device for device, _ in gone[start : start + _BATCH]]
        await conn.execute(delete(assignments).where(assignments.c.rollout == rollout, assignments.c.device.in_(ids)))
    keys = sorted(count_keys(Assignment(rollout=rollout, device="", stage=0, place=0.0)))
    left = Counter(stage for _, stage in gone)
    await apply_count_deltas(conn, Counter({(rollout, stage, key): -n for stage, n in left.items() for key in keys}))
    await log_left(conn, rollout, gone, keys)
    return len(gone)


def _shares(ids: Collection[str] | None) -> Iterator[list[ColumnElement[bool]]]:
    """Conditions under which the devices are looked at in turn; none for the whole fleet."""
    if ids is None:
        yield []
        return
    wanted = sorted(set(ids))
    for start in range(0, len(wanted), _BATCH):
        yield [assignments.c.device.in_(wanted[start : start + _BATCH])]
