"""Devices that ask under a claim certificate: judged by the inventory, approved, answered.

The subject of a certificate comes from the inventory. What is refused leaves no row: a claim that floods fills nothing.
The same key is answered with the same certificate as often as it asks, so an answer may be lost.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from orchestrator.config import Home, Settings
from orchestrator.errors import ConflictError, NotFoundError
from orchestrator.fleet.authority import request_key
from orchestrator.fleet.claim_requests import Asked, Refused, again, open_claim, returns, subject_of
from orchestrator.fleet.enrolment import report_key_of
from orchestrator.fleet.issuer import Issued, open_issuer
from orchestrator.model.device import Device, DeviceState
from orchestrator.storage import claims, devices, dirty, events, renewals
from orchestrator.storage.claims import Claim, Enrolment
from orchestrator.storage.database import Database
from protocol.clock import Clock
from protocol.enrolment import ClaimAnswer
from protocol.topics import Kind

log = structlog.get_logger(__name__)

MAX_PENDING = 1000
"""Requests of one claim that wait for a person; more than a person will read."""
REFUSED_RETRY_S = 3600.0
TOLD_FOR = timedelta(hours=1)
MAX_TOLD = 1000


class Admission:
    """Judges requests and makes answers; one at a time."""

    def __init__(
        self,
        db: Database,
        home: Home,
        settings: Settings,
        clock: Clock,
        keys_changed: Callable[[str], None],
        *,
        max_pending: int = MAX_PENDING,
    ) -> None:
        """Make it; ``keys_changed`` hears of devices whose keys are others from now on."""
        self._db = db
        self._home = home
        self._settings = settings
        self._clock = clock
        self._keys_changed = keys_changed
        self._max_pending = max_pending
        self._told: OrderedDict[tuple[str, str], datetime] = OrderedDict()

    async def answer(self, asked: Asked) -> ClaimAnswer:
        """What to say to an authentic request. Saved before it is returned.

        Raises:
            OperationError: Nothing was changed; the device asks again.
        """
        try:
            item = await self._judge(asked)
        except Refused as no:
            log.warning("enrolment refused", claim=asked.request.claim, serial=asked.request.serial, why=str(no))
            await self._note(asked, no)
            return self._say(
                asked, status="refused", code=no.code, detail=no.detail[:300], retry_after_s=REFUSED_RETRY_S
            )
        if item.state == claims.PENDING:
            again_s = self._settings.certificates.pending_retry_s
            return self._say(
                asked, status="pending", code="approval", detail=f"request {item.id}", retry_after_s=again_s
            )
        return self._say(asked, status="issued", device=item.device, certificate=item.certificate)

    async def _judge(self, asked: Asked) -> Enrolment:
        now = self._clock.now()
        async with self._db.read() as conn:
            claim = await open_claim(conn, asked.request.claim, now)
            former = await claims.enrolment(conn, asked.keyid)
            if former is not None and former.state != claims.PENDING:
                answered = again(former, asked, now)
                if answered is not None:
                    return answered
            item = await self._fit(conn, claim, asked, now)
            automatic = self._is_automatic(claim, item)
            full = (
                not automatic and former is None and await claims.pending_count(conn, claim.name) >= self._max_pending
            )
        if automatic:
            return await self.admit(item)
        if full:
            raise Refused("full", f"{self._max_pending} requests wait for a person under {claim.name}")
        async with self._db.begin() as conn:
            await claims.put_enrolment(conn, item)
            if former is None:
                text = f"{item.serial} asks to be {item.device}: {item.id}"
                await events.add(conn, "enrolment_pending", text, now, device=item.device)
        return item

    def _is_automatic(self, claim: Claim, item: Enrolment) -> bool:
        return self._settings.certificates.automatic_return if item.comes_back else claim.approval == "auto"

    async def _fit(self, conn: AsyncConnection, claim: Claim, asked: Asked, now: datetime) -> Enrolment:
        """The request with the subject that the inventory gives it."""
        request = asked.request
        subject = await subject_of(conn, claim, request)
        if (request.product, request.hardware) != (subject.product, subject.hardware):
            raise Refused(
                "hardware",
                f"serial {request.serial}: the inventory has {subject.product} on {subject.hardware}, "
                f"the device says {request.product} on {request.hardware}",
            )
        comes_back = await returns(conn, subject, asked)
        return Enrolment(
            id=f"e-{asked.keyid[:12]}",
            keyid=asked.keyid,
            claim=claim.name,
            serial=request.serial,
            device=subject.device,
            product=subject.product,
            hardware=subject.hardware,
            labels=subject.labels,
            comes_back=comes_back,
            csr=request.csr,
            content_key=request.content_key,
            state=claims.PENDING,
            asked_at=now,
        )

    async def admit(self, item: Enrolment, actor: str = "engine") -> Enrolment:
        """Issue the certificate and take the device in.

        Raises:
            Refused: Another device took the id meanwhile.
            OperationError: The CA did not issue; nothing was changed.
        """
        now = self._clock.now()
        issued = await asyncio.to_thread(self._issue, item, now)
        done = replace(item, state=claims.ISSUED, certificate=issued.certificate, decided_at=now)
        async with self._db.begin() as conn:
            await _take_in(conn, done, issued, now, actor)
            await claims.put_enrolment(conn, done)
            await claims.reject_others(conn, item.serial, item.keyid, "another device has this serial", now)
            await dirty.mark(conn, Kind.STATUS_DEVICE, [item.device], now)
            await dirty.mark(conn, Kind.STATUS_FLEET, [""], now)
        self._keys_changed(item.device)
        return done

    def _issue(self, item: Enrolment, now: datetime) -> Issued:
        life = timedelta(seconds=self._settings.certificates.life_s)
        return open_issuer(self._home, self._settings).issue(item.csr, item.device, life, now)

    async def _note(self, asked: Asked, no: Refused) -> None:
        """An event for the operator: one an hour for a serial and a reason, so that nobody fills the table."""
        now, name = self._clock.now(), (asked.request.serial, no.code)
        if name in self._told and now - self._told[name] < TOLD_FOR:
            return
        self._told[name] = now
        self._told.move_to_end(name)
        if len(self._told) > MAX_TOLD:
            self._told.popitem(last=False)
        text = f"{asked.request.serial} under {asked.request.claim}: {no.detail}"
        async with self._db.begin() as conn:
            await events.add(conn, "enrolment_refused", text[:300], now, data={"code": no.code})

    def _say(self, asked: Asked, **words: Any) -> ClaimAnswer:  # noqa: ANN401 - of pydantic's model
        fleet = self._settings.fleet
        return ClaimAnswer(fleet=fleet, request=asked.digest, nonce=asked.request.nonce, **words)


async def approve(admission: Admission, db: Database, wanted: str, *, actor: str = "operator") -> Enrolment:
    """Admit a device that waits; it gets its certificate when it asks again.

    Raises:
        NotFoundError: There is no such request.
        ConflictError: It was decided already, or its id is taken.
        OperationError: The CA did not issue.
    """
    item = await _pending(db, wanted)
    try:
        return await admission.admit(item, actor=actor)
    except Refused as no:
        raise ConflictError(f"request {wanted}: {no.detail}") from no


async def reject(db: Database, clock: Clock, wanted: str, reason: str, *, actor: str = "operator") -> Enrolment:
    """Refuse a device that waits.

    Raises:
        NotFoundError: There is no such request.
        ConflictError: It was decided already.
    """
    item = await _pending(db, wanted)
    now = clock.now()
    done = replace(item, state=claims.REJECTED, reason=reason, decided_at=now)
    async with db.begin() as conn:
        await claims.put_enrolment(conn, done)
        text = f"{item.serial}, {wanted}: {reason or 'no reason given'}"
        await events.add_order(conn, "enrolment_rejected", text, now, actor=actor, device=item.device)
    return done


async def _pending(db: Database, wanted: str) -> Enrolment:
    async with db.read() as conn:
        item = await claims.enrolment_by_id(conn, wanted)
    if item is None:
        raise NotFoundError(f"request {wanted}: there is none; 'flagship device pending' names them")
    if item.state != claims.PENDING:
        raise ConflictError(f"request {wanted}: was decided already ({item.state})")
    return item


async def _take_in(conn: AsyncConnection, item: Enrolment, issued: Issued, now: datetime, actor: str) -> None:
    report_key = report_key_of(request_key(item.csr))
    known = await devices.get(conn, item.device)
    if known is not None and known.state == DeviceState.ENROLLED:
        if not item.comes_back:
            raise Refused("taken", f"serial {item.serial}: a device with other keys has it; ask the operator")
        await devices.set_keys(conn, item.device, issued.serial, report_key=report_key, content_key=item.content_key)
        await renewals.remove(conn, item.device)
        rollouts = await renewals.open_offers_of(conn, item.device)
        await dirty.mark(conn, Kind.OFFER, [dirty.offer_key(item.device, rollout) for rollout in rollouts], now)
        await dirty.mark(conn, Kind.CERT, [item.device], now)
        await events.add_order(conn, "device_returned", f"under {item.claim}", now, actor=actor, device=item.device)
        return
    if known is not None and known.state == DeviceState.REVOKED:
        raise Refused("revoked", f"device {item.device}: was revoked")
    device = Device(
        id=item.device,
        product=item.product,
        hardware=item.hardware,
        labels=dict(item.labels),
        certificate_serial=issued.serial,
        enrolled_at=now,
    )
    await devices.insert(conn, device, report_key=report_key, content_key=item.content_key)
    text = f"{item.product} on {item.hardware}, serial {item.serial} under {item.claim}"
    await events.add_order(conn, "device_enrolled", text, now, actor=actor, device=item.device)
