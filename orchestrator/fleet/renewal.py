"""Renewal over the live session: new keys for old ones, in two steps so that nothing is lost on the way.

    request (old key) -> certificate issued, retained -> first report under the new key -> old keys count no more

The same request is answered with the same certificate, however often it comes.
"""

import asyncio
from datetime import timedelta

import structlog

from orchestrator.config import Home, Settings
from orchestrator.errors import UsageError
from orchestrator.fleet.authority import request_key
from orchestrator.fleet.enrolment import check_content_key, report_key_of
from orchestrator.fleet.issuer import Issued, open_issuer
from orchestrator.storage import devices, dirty, events, renewals
from orchestrator.storage.database import Database
from orchestrator.storage.renewals import Renewed
from protocol.clock import Clock
from protocol.errors import EnvelopeError, ErrorCode
from protocol.reports import Renewal
from protocol.topics import Kind

log = structlog.get_logger(__name__)


async def renew(db: Database, home: Home, settings: Settings, clock: Clock, asked: Renewal, digest: str) -> bool:
    """Answer an authentic request for a new certificate.

    Args:
        digest: sha256 hex of the request's payload.

    Returns:
        Whether a certificate was issued; False where it was before.

    Raises:
        EnvelopeError: E_SCOPE, E_REPLAY or E_FORMAT: why it is dropped.
        OperationError: The CA did not issue; the device asks again.
    """
    device, now = asked.device, clock.now()
    async with db.read() as conn:
        keys = (await devices.keys(conn, [device])).get(device)
        under_way = await renewals.get(conn, device)
    if keys is None:
        raise EnvelopeError(ErrorCode.SCOPE, f"device {device}: not enrolled")
    if under_way is not None and under_way.digest == digest:
        async with db.begin() as conn:
            await dirty.mark(conn, Kind.CERT, [device], now)
        return False
    if under_way is not None:
        if asked.order <= (under_way.session, under_way.seq):
            raise EnvelopeError(ErrorCode.REPLAY, f"device {device}: a later renewal was answered")
        if now - under_way.issued_at < timedelta(seconds=settings.certificates.renew_pause_s):
            raise EnvelopeError(ErrorCode.REPLAY, f"device {device}: another renewal so soon; it will be taken later")
    try:
        report_key = report_key_of(request_key(asked.csr))
        check_content_key(asked.content_key)
    except (UsageError, ValueError) as error:
        raise EnvelopeError(ErrorCode.FORMAT, f"device {device}: {error}") from error
    if report_key["keyid"] == keys[0]["keyid"] or asked.content_key == keys[1]:
        raise EnvelopeError(ErrorCode.FORMAT, f"device {device}: a renewal needs new keys, found an old one")
    issued = await asyncio.to_thread(_issue, home, settings, asked, clock)
    item = Renewed(
        device=device,
        digest=digest,
        session=asked.session,
        seq=asked.seq,
        report_key=report_key,
        content_key=asked.content_key,
        certificate=issued.certificate,
        certificate_serial=issued.serial,
        expires=issued.expires,
        issued_at=now,
    )
    async with db.begin() as conn:
        if (await devices.keys(conn, [device])).get(device) != keys:
            raise EnvelopeError(ErrorCode.SCOPE, f"device {device}: was revoked or got other keys meanwhile")
        await renewals.put(conn, item)
        await dirty.mark(conn, Kind.CERT, [device], now)
        text = f"renewed, until {issued.expires:%Y-%m-%d}"
        await events.add(conn, "certificate_issued", text, now, device=device)
    log.info("certificate renewed", device_id=device, expires=issued.expires.isoformat())
    return True


async def use_new_keys(db: Database, clock: Clock, device: str, keyid: str) -> None:
    """The device was heard under its new key: from now on only that one counts, and open offers are wrapped anew.

    Doing it again, or for a key that is not on its way, changes nothing.
    """
    now = clock.now()
    async with db.begin() as conn:
        item = await renewals.get(conn, device)
        if item is None or item.report_key["keyid"] != keyid:
            return
        if await renewals.use(conn, item):
            rollouts = await renewals.open_offers_of(conn, device)
            await dirty.mark(conn, Kind.OFFER, [dirty.offer_key(device, rollout) for rollout in rollouts], now)
            await events.add(conn, "keys_renewed", "heard under its new keys", now, device=device)
        await dirty.mark(conn, Kind.CERT, [device], now)
    log.info("new keys in use", device_id=device)


def _issue(home: Home, settings: Settings, asked: Renewal, clock: Clock) -> Issued:
    life = timedelta(seconds=settings.certificates.life_s)
    return open_issuer(home, settings).issue(asked.csr, asked.device, life, clock.now())
