"""Carries decisions out on the rows of one rollout, step by step, each in a bounded batch.

It knows no database: ``Rows`` finds and saves, in a transaction of ``storage`` or in the memory of a simulation. What a
step finds is as the step before left it.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Protocol

from orchestrator.model.assignment import Assignment, let_go
from orchestrator.model.elsewhere import Elsewhere
from orchestrator.model.plan import RolloutSpec
from orchestrator.model.rollout import Rollout, RolloutState
from orchestrator.rollouts import steps
from orchestrator.rollouts.facts import OFFER_BATCH, Decisions
from orchestrator.rollouts.pace import Bucket
from protocol.states import State
from protocol.versions import compare

Change = tuple[Assignment, Assignment]
"""(before, after)."""
HOUR = timedelta(hours=1)


_STOPPED = frozenset({RolloutState.HALTED, RolloutState.ABORTED})


class Rows(Protocol):
    """The rows of one rollout; ``storage.engine_rows`` says what each question means."""

    async def save(self, changes: Sequence[Change]) -> None: ...  # noqa: D102
    async def unsettled(self, limit: int) -> list[Assignment]: ...  # noqa: D102
    async def next(self, stage: int, limit: int) -> list[Assignment]: ...  # noqa: D102
    async def asks(self, limit: int) -> list[Assignment]: ...  # noqa: D102
    async def expiring(self, until: datetime, limit: int) -> list[Assignment]: ...  # noqa: D102
    async def at_work(self, work: str, since: datetime, limit: int) -> list[Assignment]: ...  # noqa: D102
    async def due(self, now: datetime, limit: int) -> list[Assignment]: ...  # noqa: D102
    async def blocked(self, scope: str, limit: int) -> list[Assignment]: ...  # noqa: D102
    async def grants_ended(self, now: datetime, limit: int) -> list[Assignment]: ...  # noqa: D102
    async def untouched(self, limit: int) -> list[Assignment]: ...  # noqa: D102
    async def elsewhere(self, ids: Collection[str]) -> Mapping[str, Sequence[Elsewhere]]: ...  # noqa: D102
    async def site_offers(self, sites: Collection[str], since: datetime) -> Mapping[str, tuple[int, datetime]]: ...  # noqa: D102
    async def note_offers(self, offers: Mapping[str, int], now: datetime, keep: timedelta) -> None: ...  # noqa: D102
    async def permits(self, scopes: Collection[str]) -> Counter[str]: ...  # noqa: D102
    async def left_inconsistent(self, ids: Collection[str]) -> Mapping[str, Collection[str]]: ...  # noqa: D102
    async def waiting_scopes(self) -> Mapping[str, int]: ...  # noqa: D102


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What holds for every rollout, and what this one brings.

    Attributes:
        lease: Life of offers.
        grant_life: When an activate grant has surely ended on the device, from when it was given.
        image_bytes: What an offer costs a site's budget.
        component, version: Of the release.
    """

    lease: timedelta
    grant_life: timedelta
    image_bytes: int = 1
    component: str = ""
    version: str = ""


@dataclass(slots=True)
class Written:
    """What was written.

    Attributes:
        changes: Of this rollout, and of those that gave way to it.
        offered: Offers made; what the pace is spent on.
        more: There is more to do at once.
    """

    changes: list[Change] = field(default_factory=list)
    offered: int = 0
    more: bool = False


def limit_of(spec: RolloutSpec, scope: str) -> int:
    """How many devices of a scope may be unavailable at once; without a limit of this plan, none are held back."""
    for limit in spec.max_unavailable:
        if limit.group is not None and scope == f"group:{limit.group}":
            return limit.count
        if limit.label is not None and scope.startswith(f"{limit.label}="):
            return limit.count
    return 2**31


def has_free_permit(spec: RolloutSpec, held: Mapping[str, int]) -> bool:
    """Whether one of the scopes in which devices wait has a permit left.

    Args:
        held: Permits that are taken, by such a scope.
    """
    return any(taken < limit_of(spec, scope) for scope, taken in held.items())


def spent(rollout: Rollout, offered: int) -> Rollout:
    """The rollout once so many offers were made of its pace."""
    bucket = Bucket(rollout.spec.pace_per_minute, rollout.pace_credit, rollout.pace_at).spent(offered)
    return replace(rollout, offers_made=rollout.offers_made + offered, pace_credit=bucket.credit)


async def carry_out(rows: Rows, decisions: Decisions, terms: Terms, now: datetime) -> Written:
    """Do what was decided."""
    work = _Work(rows, decisions, terms, now)
    if decisions.settle:
        await work.settle()
        return work.written
    await work.end_waits()
    if decisions.close_pending is not None:
        await work.close_pending(decisions.close_pending)
    if decisions.answer is not None:
        await work.answer(granting=decisions.answer)
    if decisions.offer_budget:
        await work.offer()
    if decisions.renew_until is not None:
        rows_out = await rows.expiring(decisions.renew_until, OFFER_BATCH)
        await work.save([(row, steps.renew(row, now, terms.lease)) for row in rows_out])
    return work.written


@dataclass
class _Work:
    rows: Rows
    decisions: Decisions
    terms: Terms
    now: datetime
    written: Written = field(default_factory=Written)

    @property
    def spec(self) -> RolloutSpec:
        return self.decisions.rollout.spec

    async def save(self, changes: Sequence[Change], *, more: bool = False) -> None:
        """Write a step's changes; a full batch, or a step that leads to another, means that there is more to do."""
        if changes:
            await self.rows.save(changes)
            self.written.changes += changes
            self.written.more |= more or len(changes) >= OFFER_BATCH

    async def settle(self) -> None:
        """Judge failed attempts: tried again, or failed for good."""
        rollout = self.decisions.rollout
        goes_on = rollout.state not in (RolloutState.ABORTED, RolloutState.COMPLETED)
        may_retry = goes_on and (self.spec.end_at is None or self.spec.end_at > self.now)
        found = await self.rows.unsettled(OFFER_BATCH)
        settled = [(row, steps.settle(row, self.spec, self.now, may_retry=may_retry)) for row in found]
        await self.save(settled, more=True)

    async def end_waits(self) -> None:
        """What time alone ends: work that took too long, grants, holds, and waiting for a permit."""
        for name, since in self.decisions.time_out.items():
            late = await self.rows.at_work(name, since, OFFER_BATCH)
            await self.save([(row, steps.time_out(row, self.now)) for row in late], more=True)
        if self.decisions.end_grants:
            unused = await self.rows.grants_ended(self.now, OFFER_BATCH)
            await self.save([(row, steps.end_grant(row, self.now)) for row in unused], more=True)
        if self.decisions.let_go:
            due = await self.rows.due(self.now, OFFER_BATCH)
            await self.save([(row, let_go(row)) for row in due], more=True)
        if self.decisions.free:
            await self._free()

    async def _free(self) -> None:
        left = OFFER_BATCH
        for scope, held in (await self.rows.waiting_scopes()).items():
            room = min(left, limit_of(self.spec, scope) - held)
            if room > 0:
                waiting = await self.rows.blocked(scope, room)
                await self.save([(row, let_go(row)) for row in waiting], more=True)
                left -= len(waiting)
            if left <= 0:
                return

    async def close_pending(self, state: State) -> None:
        """Members that were never reached, or that waited for another try, are done."""
        found = await self.rows.untouched(OFFER_BATCH)
        why = self.decisions.rollout.reason or state.value
        await self.save([(row, steps.end(row, state, why, self.now)) for row in found], more=True)

    async def answer(self, *, granting: bool) -> None:
        """Devices that ask for ``activate``: granted, blocked for want of a permit, or, in a halt, only heard."""
        asks = await self.rows.asks(OFFER_BATCH)
        if not granting:
            await self.save([(row, steps.hear_only(row)) for row in asks])
            return
        scopes = {scope for row in asks for scope in row.scopes}
        held = await self.rows.permits(scopes)
        own: Mapping[str, Collection[str]] = {}  # a device is away once, by however many rollouts
        if any(held[scope] >= limit_of(self.spec, scope) for scope in scopes):
            own = await self.rows.left_inconsistent([row.device for row in asks])
        changes: list[Change] = []
        for row in asks:
            others = {s: held[s] - (s in own.get(row.device, ())) for s in row.scopes if s not in row.permits}
            full = next((scope for scope, taken in others.items() if taken >= limit_of(self.spec, scope)), None)
            if full is not None:
                changes.append((row, steps.hold_for_scope(row, full, self.now, holds_one=row.device in own)))
                continue
            held.update(others.keys())
            changes.append((row, steps.grant(row, self.now, self.terms.lease, self.terms.grant_life)))
        await self.save(changes)

    async def offer(self) -> None:
        """Offer the download to the devices whose turn it is, within the budget of the pace and of their sites."""
        budget, found = self.decisions.offer_budget, list[Assignment]()
        for stage in self.decisions.offer_stages:
            found += await self.rows.next(stage, budget - len(found))
            if len(found) >= budget:
                break
        if not found:
            return
        elsewhere = await self.rows.elsewhere([row.device for row in found])
        sites = await self._site_rooms(found)
        changes: list[Change] = []
        others: list[Change] = []
        used: Counter[str] = Counter()
        for row in found:
            after, gave_way = self._turn(row, elsewhere.get(row.device, ()), sites, used)
            changes.append((row, after))
            others += gave_way
        self.written.offered = sum(after.offered_at == self.now and not after.held_by for _, after in changes)
        # Who is held has left the turn to those behind: look again.
        await self.save(changes, more=self.written.offered < len(changes))
        await self.save(others)
        if +used:
            await self.rows.note_offers(+used, self.now, HOUR)

    def _turn(
        self, row: Assignment, others: Sequence[Elsewhere], sites: "_Sites", used: Counter[str]
    ) -> tuple[Assignment, list[Change]]:
        stays = next((other for other in others if not self._gives_way(other)), None)
        if stays is not None:
            return steps.hold_for_rollout(row, stays.row.rollout, self.now), []
        first = sites.full_since(row.site, used[row.site], self.now)
        if first is not None:  # asked before anybody gives way for it
            return steps.hold_for_site(row, first + HOUR), []
        gave_way = [(o.row, self._preempted(o)) for o in others if o.row.grant != "closed"]
        still = {o.row.rollout for o in others} - {after.rollout for _, after in gave_way if after.is_terminal}
        if still:
            return steps.hold_for_rollout(row, min(still), self.now), gave_way
        used[row.site] += sites.per_hour is not None
        return steps.offer(row, self.now, self.terms.lease), gave_way

    def _gives_way(self, other: Elsewhere) -> bool:
        """Whether the other rollout's part yields: it is lighter, or stopped, and has not begun to install."""
        if other.row.is_changing:
            return False
        mine, theirs = self.spec.rank, other.rollout.spec.rank
        return mine > theirs or (mine == theirs and other.rollout.state in _STOPPED)

    def _preempted(self, other: Elsewhere) -> Assignment:
        # What comes back afterwards must be news to the device then: not older than what replaces it.
        same = other.component == self.terms.component
        for_good = same and compare(self.terms.version, other.version) >= 0
        return steps.preempt(other.row, self.decisions.rollout.id, self.now, for_good=for_good)

    async def _site_rooms(self, found: Sequence[Assignment]) -> "_Sites":
        budget = self.spec.site_bytes_per_hour
        if budget is None:
            return _Sites(None)
        given = await self.rows.site_offers({row.site for row in found}, self.now - HOUR)
        return _Sites(budget // max(1, self.terms.image_bytes), given)


@dataclass(frozen=True, slots=True)
class _Sites:
    """Offers that a site's budget allows within an hour, and (offers, the first of them) in the last one by site."""

    per_hour: int | None
    given: Mapping[str, tuple[int, datetime]] = field(default_factory=dict)

    def full_since(self, site: str, used: int, now: datetime) -> datetime | None:
        """When the first of the hour's offers was made, if a site may have no more with ``used`` made just now."""
        if self.per_hour is None:
            return None
        given, first = self.given.get(site, (0, now))
        return first if given + used >= self.per_hour else None
