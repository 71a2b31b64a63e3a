"""The assignments that the engine acts on, found by partial indexes: what a question costs is what it finds.

``rollouts.carrying_out`` says what is asked; a simulation answers the same questions from memory.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Select, TextClause, and_, bindparam, delete, func, or_, select, text
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from orchestrator.model.assignment import BY_ROLLOUT, BY_SCOPE, OVER, PENDING, Assignment, Work
from orchestrator.model.elsewhere import Elsewhere
from orchestrator.model.rollout import Rollout
from orchestrator.storage import assignments as rows_of
from orchestrator.storage import releases, rollouts
from orchestrator.storage.assignments import Change
from orchestrator.storage.conditions import ASKS, AT_WORK, FAILED, GRANTED, HELD, NEXT, UNSETTLED, UNTOUCHED
from orchestrator.storage.engine_tables import scope_counts, site_offers
from orchestrator.storage.tables import assignments, devices
from protocol.states import State

_BATCH = 400
MAX_SCOPES = 10_000
_C = assignments.c
Where = ColumnElement[bool] | TextClause
_NEW_OFFERS = insert(site_offers)
# A clock that was set back may come to the same instant again.
_NOTE_OFFERS = _NEW_OFFERS.on_conflict_do_update(
    index_elements=[site_offers.c.rollout, site_offers.c.site, site_offers.c.at],
    set_={"offers": site_offers.c.offers + _NEW_OFFERS.excluded.offers},
)
# The questions of every look are made once: to make one costs more than to answer it.
_ROLLOUT, _WORK = _C.rollout == bindparam("the_rollout"), _C.work == bindparam("the_work")
_OLDEST = select(_C.work_since).where(_ROLLOUT, text(AT_WORK), _WORK).order_by(_C.work_since).limit(1)
_NEXT_LET_GO = (
    select(_C.not_before).where(_ROLLOUT, text(HELD), _C.not_before.is_not(None)).order_by(_C.not_before).limit(1)
)
_NEXT_GRANT_END = select(_C.grant_until).where(_ROLLOUT, text(GRANTED)).order_by(_C.grant_until).limit(1)
_PERMITS = (
    select(scope_counts.c.scope, func.sum(scope_counts.c.held))
    .where(scope_counts.c.scope.in_(bindparam("the_scopes", expanding=True)))
    .group_by(scope_counts.c.scope)
)
_WAITING, _ALL = scope_counts.alias("waiting_here"), scope_counts.alias("everywhere")
_WAITING_SCOPES = (
    select(_WAITING.c.scope, func.sum(_ALL.c.held))
    .join(_ALL, _ALL.c.scope == _WAITING.c.scope)
    .where(_WAITING.c.rollout == bindparam("the_rollout"), text("waiting_here.waiting > 0"))
    .group_by(_WAITING.c.scope)
    .order_by(_WAITING.c.scope)
    .limit(MAX_SCOPES)
)


@dataclass(frozen=True, slots=True)
class EngineRows:
    """The rows of one rollout, in the caller's transaction."""

    conn: AsyncConnection
    rollout: str

    async def save(self, changes: Sequence[Change]) -> None:
        """Write rows and counts."""
        await rows_of.save_all(self.conn, changes)

    async def unsettled(self, limit: int) -> list[Assignment]:
        """Attempts that failed and were not judged."""
        return await self._found(text(UNSETTLED), limit=limit, order=_C.device)

    async def next(self, stage: int, limit: int) -> list[Assignment]:
        """Ready devices of a stage whose turn it is, in their order; only enrolled ones, and one under each id."""
        query = (
            select(assignments)
            .join(devices, devices.c.id == _C.device)
            .where(
                _C.rollout == self.rollout,
                _C.stage == stage,
                text(NEXT.replace("state", "assignments.state")),
                devices.c.state == "enrolled",
                devices.c.duplicate_since.is_(None),
            )
            .order_by(_C.place)
            .limit(limit)
        )
        return [Assignment.from_row(row) for row in (await self.conn.execute(query)).mappings()]

    async def asks(self, limit: int) -> list[Assignment]:
        """Devices that ask for an activate grant."""
        return await self._found(text(ASKS), limit=limit, order=_C.device)

    async def expiring(self, until: datetime, limit: int) -> list[Assignment]:
        """Open offers that run out by then, the earliest first."""
        return await rows_of.open_offers_until(self.conn, self.rollout, until, limit)

    async def at_work(self, work: str, since: datetime, limit: int) -> list[Assignment]:
        """Devices that are at it since then or longer, and were not judged for it."""
        where = and_(text(AT_WORK), _C.work == work, _C.work_since <= since)
        return await self._found(where, limit=limit, order=_C.work_since)

    async def due(self, now: datetime, limit: int) -> list[Assignment]:
        """Held devices whose time has come."""
        return await self._found(and_(text(HELD), _C.not_before <= now), limit=limit, order=_C.not_before)

    async def blocked(self, scope: str, limit: int) -> list[Assignment]:
        """Devices that wait for a permit of a scope."""
        return await self._found(and_(text(HELD), _C.held_by == BY_SCOPE + scope), limit=limit, order=_C.not_before)

    async def grants_ended(self, now: datetime, limit: int) -> list[Assignment]:
        """Devices that did not use their activate grant while it lasted."""
        return await self._found(and_(text(GRANTED), _C.grant_until <= now), limit=limit, order=_C.grant_until)

    async def untouched(self, limit: int) -> list[Assignment]:
        """Members that have no open offer."""
        return await self._found(text(UNTOUCHED), limit=limit, order=_C.stage)

    async def failed(self, after: str, limit: int) -> list[Assignment]:
        """Members that ended badly, by device, beginning behind one."""
        return await self._found(and_(text(FAILED), _C.device > after), limit=limit, order=_C.device)

    async def queued(self, after: str, limit: int) -> list[Assignment]:
        """Devices that have an offer and have not begun to download, by device, beginning behind one."""
        where = and_(text(AT_WORK), _C.work == Work.QUEUED, _C.device > after)
        return await self._found(where, limit=limit, order=_C.device)

    async def elsewhere(self, ids: Collection[str]) -> dict[str, list[Elsewhere]]:
        """Open parts of these devices in other rollouts."""
        found: dict[str, list[Elsewhere]] = {}
        wanted, known = list(ids), dict[str, tuple[Rollout, str, str] | None]()
        for start in range(0, len(wanted), _BATCH):
            query = select(assignments).where(
                _C.device.in_(wanted[start : start + _BATCH]),
                _C.rollout != self.rollout,
                _C.state.not_in([*OVER, PENDING]),
            )
            for row in (await self.conn.execute(query)).mappings():
                other = Assignment.from_row(row)
                if other.rollout not in known:
                    known[other.rollout] = await self._brings(other.rollout)
                if (brought := known[other.rollout]) is not None:
                    found.setdefault(other.device, []).append(Elsewhere(other, *brought))
        return found

    async def _brings(self, rollout: str) -> tuple[Rollout, str, str] | None:
        found = await rollouts.get(self.conn, rollout)
        release = await releases.get(self.conn, found.release) if found else None
        return (found, release.component, release.version) if found and release else None

    async def site_offers(self, sites: Collection[str], since: datetime) -> dict[str, tuple[int, datetime]]:
        """(offers, time of the first) since then, by site; sites without any are left out."""
        found: dict[str, tuple[int, datetime]] = {}
        wanted = sorted(sites)
        for start in range(0, len(wanted), _BATCH):
            query = (
                select(
                    site_offers.c.site,
                    func.sum(site_offers.c.offers).label("n"),
                    func.min(site_offers.c.at).label("at"),
                )
                .where(
                    site_offers.c.rollout == self.rollout,
                    site_offers.c.site.in_(wanted[start : start + _BATCH]),
                    site_offers.c.at > since,
                )
                .group_by(site_offers.c.site)
            )
            found.update({row.site: (row.n, row.at) for row in await self.conn.execute(query)})
        return found

    async def note_offers(self, offers: Mapping[str, int], now: datetime, keep: timedelta) -> None:
        """Count offers by site, and forget what is older than ``keep`` there."""
        old = delete(site_offers).where(
            site_offers.c.rollout == self.rollout, site_offers.c.site.in_(list(offers)), site_offers.c.at <= now - keep
        )
        await self.conn.execute(old)
        rows = [{"rollout": self.rollout, "site": site, "at": now, "offers": n} for site, n in offers.items()]
        if rows:
            await self.conn.execute(_NOTE_OFFERS, rows)

    async def permits(self, scopes: Collection[str]) -> Counter[str]:
        """Permits that are held by scope, over all rollouts."""
        found: Counter[str] = Counter()
        wanted = sorted(scopes)
        for start in range(0, len(wanted), _BATCH):
            rows = await self.conn.execute(_PERMITS, {"the_scopes": wanted[start : start + _BATCH]})
            found.update(dict(rows.all()))
        return found

    async def left_inconsistent(self, ids: Collection[str]) -> dict[str, set[str]]:
        """Scopes in which these devices count as unavailable for what another rollout left behind."""
        found: dict[str, set[str]] = {}
        for row in await left_inconsistent(self.conn, ids):
            if row.rollout != self.rollout:
                found.setdefault(row.device, set()).update(row.permits)
        return found

    async def waiting_scopes(self) -> dict[str, int]:
        """Scopes in which devices of this rollout wait for a permit, with the permits that are held there."""
        found = await self.conn.execute(_WAITING_SCOPES, {"the_rollout": self.rollout})
        return dict(found.all())

    async def oldest(self, works: Collection[str]) -> dict[str, datetime]:
        """By work, since when the device that is at it longest is."""
        found: dict[str, datetime] = {}
        for work in works:
            first = await self._first(_OLDEST, the_work=work)
            if first is not None:
                found[work] = first
        return found

    async def next_let_go(self) -> datetime | None:
        """When the first device that is held is looked at again."""
        return await self._first(_NEXT_LET_GO)

    async def next_grant_end(self) -> datetime | None:
        """When the first activate grant that was not used ends."""
        return await self._first(_NEXT_GRANT_END)

    async def _first(self, question: Select[Any], **values: str) -> datetime | None:
        found: datetime | None = await self.conn.scalar(question, {"the_rollout": self.rollout, **values})
        return found

    async def _found(self, where: Where, *, limit: int, order: ColumnElement[object]) -> list[Assignment]:
        query = select(assignments).where(_C.rollout == self.rollout, where).order_by(order).limit(limit)
        return [Assignment.from_row(row) for row in (await self.conn.execute(query)).mappings()]


async def held_for(conn: AsyncConnection, pairs: Collection[tuple[str, str]]) -> list[Assignment]:
    """Devices that wait until another rollout is done with them.

    Args:
        pairs: (device, rollout that is done with it).
    """
    if not pairs:
        return []
    found: list[Assignment] = []
    wanted = sorted(pairs)
    for start in range(0, len(wanted), _BATCH):
        batch = wanted[start : start + _BATCH]
        query = select(assignments).where(
            _C.device.in_({device for device, _ in batch}),
            or_(*(_C.held_by == BY_ROLLOUT + rollout for rollout in {rollout for _, rollout in batch})),
        )
        done = set(batch)
        found += [
            row
            for row in map(Assignment.from_row, (await conn.execute(query)).mappings())
            if (row.device, row.held_by.removeprefix(BY_ROLLOUT)) in done
        ]
    return found


async def left_inconsistent(conn: AsyncConnection, ids: Collection[str]) -> list[Assignment]:
    """Where these devices were left inconsistent, and hold a permit for it."""
    found: list[Assignment] = []
    wanted = sorted(ids)
    for start in range(0, len(wanted), _BATCH):
        batch = _C.device.in_(wanted[start : start + _BATCH])
        query = select(assignments).where(batch, _C.state == State.INCONSISTENT)
        found += [row for row in map(Assignment.from_row, (await conn.execute(query)).mappings()) if row.permits]
    return found


async def being_changed(conn: AsyncConnection, ids: Collection[str]) -> list[Assignment]:
    """Where the software of these devices is being changed, and they were not judged for it."""
    found: list[Assignment] = []
    wanted = sorted(ids)
    for start in range(0, len(wanted), _BATCH):
        query = select(assignments).where(
            _C.device.in_(wanted[start : start + _BATCH]), text(AT_WORK), _C.work.in_([Work.INSTALLING, Work.VERIFYING])
        )
        found += [Assignment.from_row(row) for row in (await conn.execute(query)).mappings()]
    return found
