"""Late joiners of dynamic rollouts: devices that came or changed enter the last open stage, under the same pace."""

from collections import Counter
from collections.abc import Collection
from dataclasses import replace
from datetime import datetime
from json import dumps

from sqlalchemy.ext.asyncio import AsyncConnection

from orchestrator.model.rollout import Rollout, RolloutState
from orchestrator.rollouts.placing import newcomers as places_of
from orchestrator.storage import dirty, events, newcomers, placements, rollouts
from orchestrator.storage.placements import Row
from protocol.topics import Kind
from protocol.versions import compare

BATCH = 500
_TAKES = frozenset({RolloutState.RUNNING, RolloutState.PAUSED, RolloutState.HALTED})


async def take_in(conn: AsyncConnection, now: datetime, *, starting: Collection[str] = ()) -> bool:
    """Look at the next devices for every dynamic rollout; returns whether there may be more of them.

    Args:
        starting: Rollouts whose members are being placed just now: who comes meanwhile may be theirs, and waits.
    """
    if starting:
        return False
    ids = await newcomers.some(conn, BATCH)
    if not ids:
        return False
    takers = [rollout for rollout in await rollouts.in_states(conn, _TAKES) if _takes(rollout, now)]
    if not takers:
        await newcomers.forget_all(conn)
        return False
    for rollout in takers:
        await _take_into(conn, rollout, ids, now)
    await newcomers.seen(conn, ids)
    return len(ids) == BATCH


def _takes(rollout: Rollout, now: datetime) -> bool:
    spec = rollout.spec
    return spec.members.dynamic and spec.end_at is not None and spec.end_at > now and rollout.ended_at is None


async def _take_into(conn: AsyncConnection, rollout: Rollout, ids: list[str], now: datetime) -> None:
    places = await places_of(conn, rollout, ids, compare)
    if not places:
        return
    rows = [Row(rollout.id, p.device, p.stage, p.order, p.site, dumps(p.scopes)) for p in places]
    await placements.insert_rows(conn, rows)
    more = Counter(place.stage for place in places)
    stages = await rollouts.load_stages(conn, rollout.id)
    grown = [replace(stage, members=stage.members + more[stage.position]) for stage in stages if more[stage.position]]
    await rollouts.save_stages(conn, grown)
    some = ", ".join(place.device for place in places[:3]) + (" and others" if len(places) > 3 else "")
    text = f"{len(places)} devices joined: {some}"
    await events.add(conn, "members_joined", text, now, rollout=rollout.id, data={"devices": len(places)})
    await dirty.mark(conn, Kind.STATUS_ROLLOUT, [rollout.id], now)
