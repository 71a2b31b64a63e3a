"""Runs the engine: loads facts, reconciles, writes what was decided and marks topics, in one transaction.

It looks when it is woken (a report, an operator) and when the engine said that time alone may change something. A look
costs counts and stages, not members; offers are made in bounded batches.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from orchestrator.config import Settings
from orchestrator.errors import LostLeadError, OperationError
from orchestrator.model.assignment import OFFERED, Assignment
from orchestrator.model.audit import AuditKind
from orchestrator.model.rollout import Rollout, RolloutState
from orchestrator.rollouts.engine import OFFER_BATCH, Decisions, Facts, reconcile
from orchestrator.rollouts.pace import Bucket
from orchestrator.rollouts.replaying import cause_of, record
from orchestrator.storage import assignments, audit, chunk_keeping, dirty, events, rollouts
from orchestrator.storage.assignments import Change
from orchestrator.storage.database import Database
from orchestrator.storage.lead import check_lead
from protocol.clock import Clock
from protocol.topics import Kind

log = structlog.get_logger(__name__)

MAX_IDLE_S = 30.0
"""The longest time between two looks, whatever the engine expects."""
SETTLE_S = 0.05
"""The least time between two looks: reports come in batches."""


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
        self._retry_s = settings.timing.tick_s
        self._wake_delivery = wake_delivery
        self._halted = halted
        self._woken = asyncio.Event()

    def wake(self) -> None:
        """Facts have changed: look at once."""
        self._woken.set()

    async def run(self) -> None:
        """Look, again and again, until cancelled."""
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
        wakes = [await self._look_at(facts) for facts in await self._db.look(load_active)]
        now = self._clock.now()
        return min(((at - now).total_seconds() for at in wakes if at is not None), default=MAX_IDLE_S)

    async def _look_at(self, facts: Facts) -> datetime | None:
        now, rollout_id = self._clock.now(), facts.rollout.id
        if (decisions := reconcile(facts, now, self._lease)).is_nothing:
            return decisions.wake_at
        written = await self._db.write(partial(self._decide, rollout_id=rollout_id, now=now))
        if written is None:
            return None
        decisions, more = written
        self._wake_delivery()
        if any(happening.kind == "rollout_halted" for happening in decisions.happenings):
            self._halted()
        for happening in decisions.happenings:
            log.info(happening.kind, rollout_id=rollout_id, text=happening.text)
        return now if more else decisions.wake_at

    async def _decide(self, conn: AsyncConnection, rollout_id: str, now: datetime) -> tuple[Decisions, bool] | None:
        """Once more, on facts that cannot change until what follows from them is written."""
        await check_lead(conn)
        facts = await load_facts(conn, rollout_id)
        if facts is None:
            return None
        decisions = reconcile(facts, now, self._lease)
        if not decisions.is_nothing:
            await self._log(conn, facts, decisions, now)
        return decisions, await self._write(conn, facts, decisions, now)

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
        offered = await self._offer(conn, decisions, now)
        answered = await self._answer(conn, decisions, now)
        renewed = await self._renew(conn, decisions, now)
        # One that was answered has a new life already; two changes of one row would undo one another.
        settled = {row.device for row, _ in answered}
        changes = [*offered, *answered, *(change for change in renewed if change[0].device not in settled)]
        await assignments.save_all(conn, changes)
        devices = [row.device for _, row in changes]
        marks = {
            Kind.OFFER: [dirty.offer_key(device, after.id) for device in devices],
            Kind.STATUS_DEVICE: devices,
            Kind.ANNOUNCE: [after.id] if decisions.announce else [],
            Kind.STATUS_ROLLOUT: [after.id],
            Kind.STATUS_FLEET: [""] if after.state is not before.state else [],
        }
        await dirty.mark_all(conn, marks, now)
        await _save_rollout(conn, before, after, len(offered))
        await rollouts.save_stages(conn, decisions.stages)
        for happening in decisions.happenings:
            figures = {"figures": [figure.model_dump(mode="json") for figure in decisions.figures]}
            await events.add(conn, happening.kind, happening.text, now, rollout=after.id, data=figures)
        return OFFER_BATCH in (len(offered), len(answered), len(renewed))

    async def _offer(self, conn: AsyncConnection, decisions: Decisions, now: datetime) -> list[Change]:
        rows: list[Assignment] = []
        for stage in decisions.offer_stages:
            rows += await assignments.to_offer(conn, decisions.rollout.id, stage, decisions.offer_budget - len(rows))
            if len(rows) >= decisions.offer_budget:
                break
        return [
            (
                row,
                replace(
                    row,
                    state=OFFERED,
                    ready=False,
                    grant="download",
                    offered_at=now,
                    offer_expires=now + self._lease,
                    updated_at=now,
                ),
            )
            for row in rows
        ]

    async def _answer(self, conn: AsyncConnection, decisions: Decisions, now: datetime) -> list[Change]:
        """Devices that ask for ``activate``: granted, or, in a halt, only heard; they ask again after it."""
        if decisions.answer is None:
            return []
        rows = await assignments.asking(conn, decisions.rollout.id, OFFER_BATCH)
        if not decisions.answer:
            return [(row, replace(row, asking=False)) for row in rows]
        return [
            (
                row,
                replace(row, asking=False, grant="activate", grant_nonce=row.nonce, offer_expires=now + self._lease),
            )
            for row in rows
        ]

    async def _renew(self, conn: AsyncConnection, decisions: Decisions, now: datetime) -> list[Change]:
        """Open offers at half of their life; a grant for ``activate`` that was not used by then is asked for again."""
        if decisions.renew_until is None:
            return []
        rows = await assignments.open_offers_until(conn, decisions.rollout.id, decisions.renew_until, OFFER_BATCH)
        return [
            (row, replace(row, grant="download", grant_nonce=None, offer_expires=now + self._lease)) for row in rows
        ]


async def load_facts(conn: AsyncConnection, rollout_id: str) -> Facts | None:
    """What the engine judges; None when there is no such rollout."""
    rollout = await rollouts.get(conn, rollout_id)
    return None if rollout is None else await _facts_of(conn, rollout)


async def load_active(conn: AsyncConnection) -> list[Facts]:
    """What the engine judges, of every rollout that has not ended."""
    return [await _facts_of(conn, rollout) for rollout in await rollouts.not_ended(conn)]


async def _facts_of(conn: AsyncConnection, rollout: Rollout) -> Facts:
    return Facts(
        rollout=rollout,
        stages=await rollouts.load_stages(conn, rollout.id),
        counts=await assignments.load_counts(conn, rollout.id),
        next_offer_expiry=await rollouts.next_offer_expiry(conn, rollout.id),
        is_deliverable=not await chunk_keeping.not_deliverable(conn, [rollout.release]),
    )


async def _save_rollout(conn: AsyncConnection, before: Rollout, after: Rollout, offered: int) -> None:
    bucket = Bucket(after.spec.pace_per_minute, after.pace_credit, after.pace_at).spent(offered)
    after = replace(after, offers_made=before.offers_made + offered, pace_credit=bucket.credit)
    if after.state is RolloutState.HALTED and before.state is not RolloutState.HALTED:
        after = replace(after, halts=before.halts + 1)
    names: Sequence[str] = (
        "state", "reason", "started_at", "ended_at", "announcement_expires", "offers_made", "pace_credit", "pace_at",
        "halts",
    )  # fmt: skip
    changed = {name: getattr(after, name) for name in names if getattr(after, name) != getattr(before, name)}
    if changed:
        await rollouts.save(conn, after.id, **changed)
