"""The questions of the engine, answered from memory: what ``storage.engine_rows`` finds with partial indexes.

``MemoryFleet`` holds the members of several rollouts, their counts and the permits that they share; ``MemoryRows`` is
one rollout's part of it. Its methods are ``async`` because ``Rows`` is; they never wait, and ``finish`` runs them.
"""

from collections import Counter
from collections.abc import Collection, Coroutine, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from heapq import nsmallest
from typing import Any, TypeVar

from orchestrator.model.assignment import (
    BY_ROLLOUT,
    BY_SCOPE,
    OVER,
    PENDING,
    Assignment,
    Work,
    count_deltas,
    counted,
    let_go,
    scope_figures,
)
from orchestrator.model.elsewhere import Elsewhere
from orchestrator.model.failure import FAILED_STATES
from orchestrator.model.rollout import Rollout, Stage
from orchestrator.rollouts.carrying_out import Change, has_free_permit
from orchestrator.rollouts.engine import time_limits
from orchestrator.rollouts.facts import Facts
from orchestrator.rollouts.simulation.indexes import Indexes
from protocol.states import State

T = TypeVar("T")


def finish(work: Coroutine[Any, Any, T]) -> T:
    """Run what never waits to its end.

    Raises:
        RuntimeError: It waits all the same.
    """
    try:
        work.send(None)
    except StopIteration as end:
        result: T = end.value
        return result
    work.close()
    raise RuntimeError("what stands in memory is not waited for")


class MemoryFleet:
    """Members of every rollout.

    Attributes:
        parts: By rollout.
        barred: Devices that are offered nothing: revoked, retired, or two under one id.
        held: Permits by scope, over all rollouts.
    """

    def __init__(self) -> None:
        self.parts: dict[str, MemoryRows] = {}
        self.barred: set[str] = set()
        self.held: Counter[str] = Counter()

    def add(self, rollout: Rollout, stages: Sequence[Stage], *, component: str = "", version: str = "") -> "MemoryRows":
        """Take in a rollout that has no member yet."""
        part = MemoryRows(self, rollout, stages, component=component, version=version)
        self.parts[rollout.id] = part
        return part

    def let_go_of(self, changes: Iterable[Change]) -> list[Change]:
        """Let go of what waited for these devices elsewhere, as ``storage.letting_go`` does; returns what changed."""
        if len(self.parts) < 2:
            return []
        over = {
            (after.device, after.rollout)
            for before, after in changes
            if after.state != before.state and (after.is_terminal or after.state == PENDING)
        }
        freed: list[Change] = []
        for device, rollout in sorted(over):
            for part in self.parts.values():
                row = part.rows.get(device)
                if row is not None and row.held_by == BY_ROLLOUT + rollout:
                    change = (row, let_go(row))
                    part.write([change])
                    freed.append(change)
        return freed + self._mended(changes)

    def left_inconsistent(self, ids: Iterable[str]) -> list[Assignment]:
        """Where these devices were left inconsistent, and hold a permit for it."""
        rows = (part.rows.get(name) for part in self.parts.values() for name in ids)
        return [row for row in rows if row is not None and row.state == State.INCONSISTENT and row.permits]

    def _mended(self, changes: Iterable[Change]) -> list[Change]:
        by = {a.device: a.rollout for b, a in changes if b.state != a.state == State.SUCCEEDED}
        found: list[Change] = []
        for row in self.left_inconsistent(by):
            part, other = self.parts[row.rollout], self.parts[by[row.device]]
            if part is not other and part.component == other.component:
                found.append((row, replace(row, scopes=[])))
                part.write(found[-1:])
        return found


class MemoryRows:
    """One rollout, its stages and members; a ``Rows``.

    Attributes:
        rollout, stages: As they stand; whoever decides puts new ones here.
        rows: By device.
        counts: By stage and key, as ``storage.assignments.load_counts`` finds them.
        offers: When a site was made how many offers, within the time that is kept.
    """

    def __init__(
        self, fleet: MemoryFleet, rollout: Rollout, stages: Sequence[Stage], *, component: str, version: str
    ) -> None:
        self.fleet, self.rollout, self.stages = fleet, rollout, list(stages)
        self.component, self.version = component, version
        self.rows: dict[str, Assignment] = {}
        self.counts: dict[int, dict[str, int]] = {}
        self.offers: dict[str, list[tuple[datetime, int]]] = {}
        self._waiting: Counter[str] = Counter()
        self._at = Indexes()

    def insert(self, rows: Iterable[Assignment]) -> None:
        """Add new members and count them."""
        for row in rows:
            self.rows[row.device] = row
            counts = self.counts.setdefault(row.stage, {})
            for key, n in counted(row).items():
                counts[key] = counts.get(key, 0) + n
            self._scopes(row, 1)
            self._at.add(row)

    def write(self, changes: Iterable[Change]) -> None:
        """Put rows in the place of others, and change counts by the difference."""
        for before, after in changes:
            for (_, stage, key), n in count_deltas(before, after).items():
                counts = self.counts.setdefault(stage, {})
                if left := counts.get(key, 0) + n:
                    counts[key] = left
                else:
                    counts.pop(key, None)
            if before.scopes or after.scopes:
                self._scopes(before, -1)
                self._scopes(after, 1)
            self.rows[after.device] = after
            self._at.move(before, after)

    def _scopes(self, row: Assignment, sign: int) -> None:
        for scope, (held, waiting) in scope_figures(row).items():
            self.fleet.held[scope] += sign * held
            if waiting:
                self._waiting[scope] += sign
                if not self._waiting[scope]:
                    del self._waiting[scope]

    def facts(
        self, *, steady_from: datetime | None = None, is_deliverable: bool = True, is_latched: bool = False
    ) -> Facts:
        """What the engine judges, as ``fact_loading`` reads it from a database."""
        spec = self.rollout.spec
        waiting = finish(self.waiting_scopes()) if spec.max_unavailable else {}
        return Facts(
            rollout=self.rollout,
            stages=list(self.stages),
            counts=self.counts,
            next_offer_expiry=self._at.open.first(),
            is_deliverable=is_deliverable,
            oldest=finish(self.oldest(time_limits(spec))),
            next_let_go=self._at.held.first(),
            next_grant_end=self._at.granted.first(),
            has_free_permit=has_free_permit(spec, waiting),
            is_latched=is_latched,
            steady_from=steady_from,
        )

    def _rows(self, names: Iterable[str]) -> list[Assignment]:
        return [self.rows[name] for name in names]

    async def save(self, changes: Sequence[Change]) -> None:
        """Write rows and counts, of other rollouts too."""
        for before, after in changes:
            self.fleet.parts[after.rollout].write([(before, after)])

    async def unsettled(self, limit: int) -> list[Assignment]:
        """Attempts that failed and were not judged."""
        return self._rows(self._at.unsettled.take(limit))

    async def next(self, stage: int, limit: int) -> list[Assignment]:
        """Ready devices of a stage whose turn it is, in their order; none that is barred."""
        queue, barred = self._at.queue(stage), self.fleet.barred
        out = sum(name in queue.live for name in barred)
        return self._rows([name for name in queue.take(limit + out) if name not in barred][: max(0, limit)])

    async def asks(self, limit: int) -> list[Assignment]:
        """Devices that ask for an activate grant."""
        return self._rows(self._at.asks.take(limit))

    async def expiring(self, until: datetime, limit: int) -> list[Assignment]:
        """Open offers that run out by then, the earliest first."""
        return self._rows(self._at.open.take(limit, until))

    async def at_work(self, work: str, since: datetime, limit: int) -> list[Assignment]:
        """Devices that are at it since then or longer, and were not judged for it."""
        return self._rows(self._at.at_work[work].take(limit, since))

    async def due(self, now: datetime, limit: int) -> list[Assignment]:
        """Held devices whose time has come."""
        return self._rows(self._at.held.take(limit, now))

    async def blocked(self, scope: str, limit: int) -> list[Assignment]:
        """Devices that wait for a permit of a scope."""
        waiting = self._at.blocked.get(BY_SCOPE + scope)
        return [] if waiting is None else self._rows(waiting.take(limit))

    async def grants_ended(self, now: datetime, limit: int) -> list[Assignment]:
        """Devices that did not use their activate grant while it lasted."""
        return self._rows(self._at.granted.take(limit, now))

    async def untouched(self, limit: int) -> list[Assignment]:
        """Members that have no open offer."""
        return self._rows(self._at.untouched.take(limit))

    async def failed(self, after: str, limit: int) -> list[Assignment]:
        """Members that ended badly, by device, beginning behind one. Looks at every member: a person asked."""
        found = (name for name, row in self.rows.items() if row.state in FAILED_STATES and name > after)
        return self._rows(nsmallest(limit, found))

    async def queued(self, after: str, limit: int) -> list[Assignment]:
        """Devices that have an offer and have not begun to download, by device. Looks at all that are queued."""
        return self._rows(nsmallest(limit, (name for name in self._at.at_work[Work.QUEUED].live if name > after)))

    async def elsewhere(self, ids: Collection[str]) -> dict[str, list[Elsewhere]]:
        """Open parts of these devices in other rollouts."""
        found: dict[str, list[Elsewhere]] = {}
        for part in self.fleet.parts.values():
            if part is self:
                continue
            for name in ids:
                row = part.rows.get(name)
                if row is not None and row.state not in OVER and row.state != PENDING:
                    found.setdefault(name, []).append(Elsewhere(row, part.rollout, part.component, part.version))
        return found

    async def site_offers(self, sites: Collection[str], since: datetime) -> dict[str, tuple[int, datetime]]:
        """(offers, time of the first) since then, by site; sites without any are left out."""
        found: dict[str, tuple[int, datetime]] = {}
        for site in sites:
            recent = [(at, n) for at, n in self.offers.get(site, ()) if at > since]
            if recent:
                found[site] = (sum(n for _, n in recent), min(at for at, _ in recent))
        return found

    async def note_offers(self, offers: Mapping[str, int], now: datetime, keep: timedelta) -> None:
        """Count offers by site, and forget what is older than ``keep`` there."""
        for site, n in offers.items():
            kept = [(at, older) for at, older in self.offers.get(site, ()) if at > now - keep]
            self.offers[site] = [*kept, (now, n)]

    async def permits(self, scopes: Collection[str]) -> Counter[str]:
        """Permits that are held by scope, over all rollouts."""
        return Counter({scope: self.fleet.held[scope] for scope in scopes})

    async def left_inconsistent(self, ids: Collection[str]) -> dict[str, set[str]]:
        """Scopes in which these devices count as unavailable for what another rollout left behind."""
        found: dict[str, set[str]] = {}
        for row in self.fleet.left_inconsistent(ids):
            if row.rollout != self.rollout.id:
                found.setdefault(row.device, set()).update(row.permits)
        return found

    async def waiting_scopes(self) -> dict[str, int]:
        """Scopes in which devices of this rollout wait for a permit, with the permits that are held there."""
        return {scope: self.fleet.held[scope] for scope in sorted(self._waiting)}

    async def oldest(self, works: Collection[str]) -> dict[str, datetime]:
        """By work, since when the device that is at it longest is."""
        found = {work: self._at.at_work[work].first() for work in works}
        return {work: since for work, since in found.items() if since is not None}

    async def next_let_go(self) -> datetime | None:
        """When the first device that is held is looked at again."""
        return self._at.held.first()

    async def next_grant_end(self) -> datetime | None:
        """When the first activate grant that was not used ends."""
        return self._at.granted.first()

    def recount(self) -> dict[int, dict[str, int]]:
        """What the counts must be, from the rows; for tests."""
        found: dict[int, Counter[str]] = {}
        for row in self.rows.values():
            found.setdefault(row.stage, Counter()).update(counted(row))
        return {stage: dict(keys) for stage, keys in found.items()}
