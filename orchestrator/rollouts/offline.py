"""Orders for a medium: an announcement and offers by which devices without a link act unasked for a time.

    look (may they?) -> sign -> look again -> write, and only then hand out

What was handed out cannot be called back: who signs for a medium gives up the halt for these devices until they have a
link again. Each order is an event. The same devices' topics are marked, so that what stands on the brokers is signed
later than what the medium carries, and a device that comes back hears the newer word.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Protocol

from sqlalchemy.ext.asyncio import AsyncConnection

from orchestrator.errors import ConflictError, NotAllowedError, NotFoundError, UsageError
from orchestrator.model.assignment import PENDING, Assignment
from orchestrator.model.audit import AuditKind
from orchestrator.model.plan import announced_policy
from orchestrator.model.rollout import BEGUN, Rollout, RolloutState
from orchestrator.rollouts import steps
from orchestrator.rollouts.steps import next_attempt
from orchestrator.signer.seam import AnnouncementRequest, OfferRequest, Refusal, Refused, Request, Signed
from orchestrator.storage import assignments, audit, devices, dirty, events, fleet_latch, published, releases, rollouts
from orchestrator.storage.database import Database
from orchestrator.storage.releases import ReleaseFacts
from protocol.clock import Clock, rfc3339
from protocol.directives import Action, Grant
from protocol.topics import Kind

MAX_DEVICES = 500
"""On one medium, in one order."""


class Signs(Protocol):
    """The part of ``orchestrator.signer`` that is needed here."""

    def sign(self, requests: Sequence[Request]) -> list[Signed | Refusal]:
        """Answer in order; blocking."""
        ...


@dataclass(frozen=True, slots=True)
class OfflineOrders:
    """What a medium carries, verbatim.

    Attributes:
        offers: Envelopes by device.
    """

    rollout: str
    release: str
    until: datetime
    announcement: bytes
    offers: dict[str, bytes]


@dataclass(frozen=True, slots=True)
class _Facts:
    rollout: Rollout
    release: ReleaseFacts
    rows: dict[str, Assignment]
    content_keys: dict[str, str]


class OfflineDesk:
    """Makes orders for media."""

    def __init__(self, db: Database, clock: Clock, signer: Signs, lease: timedelta) -> None:
        self._db = db
        self._clock = clock
        self._signer = signer
        self._lease = lease

    async def order(
        self, rollout_id: str, ids: Sequence[str], life: timedelta, *, actor: str = "operator"
    ) -> OfflineOrders:
        """Sign for these devices of a running rollout, until ``life`` from now.

        Raises:
            NotFoundError: There is no such rollout, or a device is not a member of it.
            ConflictError: The rollout does not run, a device's stage has not begun, or a device is done or kept out.
            NotAllowedError: The signer refuses; its sentence.
            UsageError: No device was named, or too many.
        """
        wanted = list(dict.fromkeys(ids))
        if not 0 < len(wanted) <= MAX_DEVICES:
            raise UsageError(f"rollout {rollout_id}: expected 1 to {MAX_DEVICES} devices, found {len(wanted)}")
        async with self._db.read() as conn:
            facts = await _load(conn, rollout_id, wanted)
        until = (self._clock.now() + life).replace(microsecond=0)
        answers = await asyncio.to_thread(self._signer.sign, _requests(facts, until))
        signed = [_signed(answer) for answer in answers]
        async with self._db.begin() as conn:
            now_facts = await _load(conn, rollout_id, wanted)
            if now_facts.rollout.halts != facts.rollout.halts:
                raise ConflictError(f"rollout {rollout_id}: was halted meanwhile; order again if it may go on")
            await self._write(conn, now_facts, until, signed, actor)
        announcement, *offers = (answer.envelope for answer in signed)
        return OfflineOrders(
            rollout_id, facts.rollout.release, until, announcement, dict(zip(wanted, offers, strict=True))
        )

    async def _write(
        self, conn: AsyncConnection, facts: _Facts, until: datetime, signed: Sequence[Signed], actor: str
    ) -> None:
        now, rollout = self._clock.now(), facts.rollout
        fresh = [row for row in facts.rows.values() if row.state == PENDING]
        text = (
            f"{len(facts.rows)} devices may act unasked until {rfc3339(until)}; "
            "a halt or an abort does not reach them before they have a link"
        )
        data = {"devices": list(facts.rows), "until": rfc3339(until)}
        figures = {"verb": "offline", **data}
        await audit.append(conn, AuditKind.ORDER, at=now, actor=actor, cause=text, rollout=rollout.id, figures=figures)
        await assignments.save_all(conn, [(row, steps.offer(row, now, self._lease)) for row in fresh])
        await rollouts.save(conn, rollout.id, offers_made=rollout.offers_made + len(fresh))
        await published.note_order(conn, max((answer.epoch, answer.seq) for answer in signed))
        marks = {
            Kind.ANNOUNCE: [rollout.id],
            Kind.OFFER: [dirty.offer_key(device, rollout.id) for device in facts.rows],
            Kind.STATUS_DEVICE: list(facts.rows),
            Kind.STATUS_ROLLOUT: [rollout.id],
        }
        await dirty.mark_all(conn, marks, now)
        await events.add(conn, "rollout_offline", text, now, actor=actor, rollout=rollout.id, data=data)


async def _load(conn: AsyncConnection, rollout_id: str, wanted: Sequence[str]) -> _Facts:
    rollout = await rollouts.get(conn, rollout_id)
    if rollout is None:
        raise NotFoundError(f"rollout {rollout_id}: there is none; see 'flagship rollout list'")
    if rollout.state is not RolloutState.RUNNING:
        raise ConflictError(f"rollout {rollout_id}: is {rollout.state}, expected running; no medium is made of it")
    if (latch := await fleet_latch.get(conn)) is not None:
        raise ConflictError(f"the fleet is halted ({latch.reason}); no medium is made before that is lifted")
    release = (await releases.release_facts(conn, [rollout.release])).get(rollout.release)
    if release is None:
        raise ConflictError(f"release {rollout.release}: is not here any more; publish it again")
    begun = {stage.position: stage for stage in await rollouts.load_stages(conn, rollout_id) if stage.state in BEGUN}
    rows = await assignments.get_many(conn, [(rollout_id, device) for device in wanted])
    keys = await devices.content_keys(conn, set(wanted))
    for device in wanted:
        row = rows.get((rollout_id, device))
        if row is None:
            raise NotFoundError(f"device {device}: not a member of rollout {rollout_id}; no medium was made")
        if row.is_terminal:
            raise ConflictError(f"device {device}: is {row.state} in rollout {rollout_id}; leave it out")
        if row.stage not in begun:
            raise ConflictError(f"device {device}: its stage of rollout {rollout_id} has not begun; leave it out")
        if device not in keys:
            raise ConflictError(f"device {device}: is kept out of the fleet; see 'flagship device show {device}'")
    return _Facts(rollout, release, {device: rows[rollout_id, device] for device in wanted}, dict(keys))


def _requests(facts: _Facts, until: datetime) -> list[Request]:
    rollout, release = facts.rollout, facts.release
    whole: dict[str, Any] = {
        "rollout": rollout.id,
        "release": release.ref,
        "expires": until,
        "offline_until": until,
    }
    announcement = whole | {"action": Action.INSTALL, "policy": announced_policy(rollout.spec)}
    offers = (
        OfferRequest(
            whole | {"device": device, "attempt": next_attempt(row), "grant": Grant.DOWNLOAD},
            release.wrapped_key,
            facts.content_keys[device],
        )
        for device, row in facts.rows.items()
    )
    return [AnnouncementRequest(announcement, rollout.halts, rollout.reason), *offers]


def _signed(answer: Signed | Refusal) -> Signed:
    match answer:
        case Signed():
            return answer
        case Refusal(code=Refused.LATER):
            raise ConflictError(f"signer: {answer.why}; order again in {answer.retry_s:.0f} s")
        case _:
            raise NotAllowedError(f"signer: {answer.why}")
