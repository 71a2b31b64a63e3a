"""Runs the engine: loads facts, reconciles, writes what was decided and marks topics, in one transaction.

It looks when it is woken (a report, an operator) and when the engine said that time alone may change something. A look
costs counts and stages, not members; offers are made in bounded batches. The heaviest rollout is looked at first.
"""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from orchestrator.config import Settings
from orchestrator.errors import ConflictError, LostLeadError, NotFoundError, OperationError, UsageError
from orchestrator.model.assignment import PENDING
from orchestrator.model.audit import AuditKind
from orchestrator.model.rollout import Rollout, RolloutState
from orchestrator.rollouts import creating
from orchestrator.rollouts.carrying_out import Change, Terms, carry_out, spent
from orchestrator.rollouts.engine import reconcile
from orchestrator.rollouts.fact_loading import load_active, load_facts
from orchestrator.rollouts.facts import Decisions, Facts
from orchestrator.rollouts.replaying import cause_of, record
from orchestrator.rollouts.reverting import revert_after_halt
from orchestrator.rollouts.steadiness import Steadiness
from orchestrator.rollouts.taking_in import take_in
from orchestrator.storage import audit, dirty, events, newcomers, releases, rollouts
from orchestrator.storage.database import Database
from orchestrator.storage.engine_rows import EngineRows
from orchestrator.storage.lead import check_lead
from orchestrator.storage.letting_go import let_go_of
from protocol.clock import Clock
from protocol.topics import Kind

log = structlog.get_logger(__name__)

MAX_IDLE_S = 30.0
"""The longest time between two looks, whatever the engine expects."""
AGAIN_S = 5.0
"""Before a start or a revert that failed is tried again."""
SETTLE_S = 0.05
"""The least time between two looks: reports come in batches."""


ENGINE = "engine"
GRANT_SKEW = timedelta(seconds=60)
"""How much longer an activate grant may last on a device than it says: its clock's error, and the way there."""


@dataclass(frozen=True, slots=True)
class _Done:
    """One transaction of the engine."""

    decisions: Decisions
    more: bool


class Controller:
    """The one writer of decisions."""

    def __init__(
        self,
        db: Database,
        clock: Clock,
        settings: Settings,
        wake_delivery: Callable[[], None],
        halted: Callable[[], None] = lambda: None,
    ) -> None:
        """Nothing runs yet.

        Args:
            halted: Told when the engine has halted a rollout, once that is written.
        """
        self._db = db
        self._clock = clock
        self._lease = timedelta(seconds=settings.timing.lease_s)
        self._grant_life = timedelta(seconds=settings.timing.activate_grant_s) + GRANT_SKEW
        self._retry_s = settings.timing.tick_s
        self._wake_delivery = wake_delivery
        self._halted = halted
        self._woken = asyncio.Event()
        self._works_beside = False
        self._doing: asyncio.Task[None] | None = None
        self.steadiness = Steadiness(clock.now(), clock.monotonic())

    def wake(self) -> None:
        """Facts have changed: look at once."""
        self._woken.set()

    def hears_again(self) -> None:
        """Reports were lost until now: what takes long is counted from here."""
        self.steadiness.begin_anew(self._clock.now())
        self.wake()

    async def run(self) -> None:
        """Look, again and again, until cancelled."""
        self._works_beside = True
        try:
            await self._look_on()
        finally:
            self._works_beside = False
            if self._doing is not None:
                self._doing.cancel()
                await asyncio.wait({self._doing})

    async def _look_on(self) -> None:
        while True:
            self._woken.clear()
            try:
                idle_s = await self.look()
            except LostLeadError:
                raise
            except OperationError as error:
                log.error("look failed", why=str(error))
                idle_s = self._retry_s
            await asyncio.sleep(SETTLE_S)
            try:
                async with asyncio.timeout(max(0.0, min(idle_s, MAX_IDLE_S) - SETTLE_S)):
                    await self._woken.wait()
            except TimeoutError:
                pass

    async def look(self) -> float:
        """Reconcile every rollout that has not ended; returns seconds until the next look is worth it.

        Raises:
            LostLeadError: Another orchestrator took over.
            OperationError: The database does not do what it is told; nothing is half written.
        """
        if self.steadiness.see(self._clock.now(), self._clock.monotonic()):
            log.warning("clock leapt; what takes long is counted from now", now=self._clock.now().isoformat())
        are_more = bool(await self._db.look(partial(newcomers.some, limit=1))) and await self._db.write(
            partial(take_in, now=self._clock.now(), starting=frozenset(self._db.starting))
        )
        active = await self._db.look(partial(load_active, steadiness=self.steadiness))
        wakes = [await self._look_at(facts) for facts in active]
        now = self._clock.now()
        if are_more:
            return 0.0
        return max(0.0, min(((at - now).total_seconds() for at in wakes if at is not None), default=MAX_IDLE_S))

    async def _look_at(self, facts: Facts) -> datetime | None:
        now, rollout_id = self._clock.now(), facts.rollout.id
        decisions = reconcile(facts, now, self._lease)
        if decisions.revert:
            await self._aside(self._revert(rollout_id))
        if decisions.is_nothing:
            return decisions.wake_at
        if decisions.begin:
            await self._aside(self._start(rollout_id, now))
            if self._works_beside:
                return None  # it wakes us when it is done
        done = await self._db.write(partial(self._decide, rollout_id=rollout_id, now=now))
        if done is None:
            return None
        self._wake_delivery()
        happenings = done.decisions.happenings
        if any(happening.kind.startswith("rollout_halted") for happening in happenings):
            self._halted()
        for happening in happenings:
            log.info(happening.kind, rollout_id=rollout_id, text=happening.text)
        if done.decisions.revert and not decisions.revert:
            return now  # it has just come to that
        return now if done.more else done.decisions.wake_at

    async def _start(self, rollout_id: str, now: datetime) -> None:
        """A scheduled rollout's time has come. What keeps it from starting makes it a draft again, with the reason."""
        try:
            await creating.start(self._db, self._clock, rollout_id, actor=ENGINE)
        except OperationError as error:
            log.error("scheduled rollout did not start", rollout_id=rollout_id, why=str(error))
            if not isinstance(error, ConflictError | NotFoundError | UsageError):
                await self._rest()  # then the next look tries again
                return
            async with self._db.begin() as conn:
                await check_lead(conn)
                found = await rollouts.get(conn, rollout_id)
                if found is None or found.state is not RolloutState.SCHEDULED:
                    return  # a person started or aborted it meanwhile
                await rollouts.save(conn, rollout_id, state=RolloutState.DRAFT, reason=f"did not start: {error}")
                await events.add(conn, "rollout_not_started", str(error), now, rollout=rollout_id)
                await dirty.mark(conn, Kind.STATUS_ROLLOUT, [rollout_id], now)

    async def _revert(self, rollout_id: str) -> None:
        if not await revert_after_halt(self._db, self._clock, rollout_id, ENGINE):
            await self._rest()

    async def _rest(self) -> None:
        """Between two tries of what failed for a reason that may pass."""
        if self._works_beside:
            await asyncio.sleep(AGAIN_S)

    async def _aside(self, work: Coroutine[Any, Any, None]) -> None:
        """Do what looks at the whole fleet beside the engine, one at a time; in its place where nothing runs beside."""
        if not self._works_beside:
            await work
        elif self._doing is None or self._doing.done():
            if self._doing is not None:
                self._doing.result()  # what it raised ends the engine
            self._doing = asyncio.create_task(work)
            self._doing.add_done_callback(lambda _: self.wake())
        else:
            work.close()

    async def _decide(self, conn: AsyncConnection, rollout_id: str, now: datetime) -> _Done | None:
        """Once more, on facts that cannot change until what follows from them is written."""
        await check_lead(conn)
        done: _Done | None = None
        for _ in range(2):  # failed attempts are settled first; what follows from them is decided in the same breath
            facts = await load_facts(conn, rollout_id, self.steadiness)
            if facts is None:
                return None
            decisions = reconcile(facts, now, self._lease)
            if not decisions.is_nothing:
                await self._log(conn, facts, decisions, now)
            done = _Done(decisions, await self._write(conn, facts, decisions, now))
            if not decisions.settle:
                break
        return done

    async def _log(self, conn: AsyncConnection, facts: Facts, decisions: Decisions, now: datetime) -> None:
        """Before anything moves: what the facts say is what the log comes to up to here."""
        await audit.append(
            conn,
            AuditKind.DECISION,
            at=now,
            actor="engine",
            cause=cause_of(decisions),
            rollout=facts.rollout.id,
            figures=record(facts, decisions, now, self._lease),
        )

    async def _write(self, conn: AsyncConnection, facts: Facts, decisions: Decisions, now: datetime) -> bool:
        """Returns whether a batch was full: there is more to do at once."""
        before, after = facts.rollout, decisions.rollout
        rows = EngineRows(conn, after.id)
        written = await carry_out(rows, decisions, await self._terms(conn, after), now)
        changes = [*written.changes, *await let_go_of(conn, written.changes)]
        await _mark(conn, after, changes, now, announce=decisions.announce, moved=after.state is not before.state)
        await _save_rollout(conn, before, after, written.offered, len(decisions.stages))
        await rollouts.save_stages(conn, decisions.stages)
        for happening in decisions.happenings:
            figures = {"figures": [figure.model_dump(mode="json") for figure in decisions.figures]}
            await events.add(conn, happening.kind, happening.text, now, rollout=after.id, data=figures)
        return written.more

    async def _terms(self, conn: AsyncConnection, rollout: Rollout) -> Terms:
        release = await releases.get(conn, rollout.release)
        terms = Terms(lease=self._lease, grant_life=self._grant_life)
        if release is None:
            return terms
        brings = (release.image_bytes, release.component, release.version)
        return replace(terms, image_bytes=brings[0], component=brings[1], version=brings[2])


async def _mark(
    conn: AsyncConnection, rollout: Rollout, changes: Sequence[Change], now: datetime, *, announce: bool, moved: bool
) -> None:
    """Topics that show what changed, of this rollout and of those that gave way to it."""
    # Of who waits for its turn and goes on waiting, nothing that an offer says has changed.
    told = [after for before, after in changes if not before.state == after.state == PENDING]
    offers = [dirty.offer_key(after.device, after.rollout) for after in told]
    marks = {
        Kind.OFFER: offers,
        Kind.STATUS_DEVICE: {after.device for _, after in changes},
        Kind.ANNOUNCE: [rollout.id] if announce else [],
        Kind.STATUS_ROLLOUT: {rollout.id, *(after.rollout for _, after in changes)},
        Kind.STATUS_FLEET: [""] if moved else [],
    }
    await dirty.mark_all(conn, marks, now)


async def _save_rollout(conn: AsyncConnection, before: Rollout, after: Rollout, offered: int, stages: int) -> None:
    after = spent(after, offered)
    if after.state is not before.state and after.state in (RolloutState.HALTED, RolloutState.ABORTED):
        after = replace(after, halts=before.halts + 1)
    names: Sequence[str] = (
        "state", "reason", "started_at", "ended_at", "announcement_expires", "offers_made", "pace_credit", "pace_at",
        "halts", "wants_revert", "acknowledged",
    )  # fmt: skip
    changed = {name: getattr(after, name) for name in names if getattr(after, name) != getattr(before, name)}
    if changed or stages:
        # A version is what a person looked at: a renewed lease or a counter is no news to anybody.
        is_news = bool(stages) or after.state is not before.state
        await rollouts.save(conn, after.id, is_news=is_news, **changed)
