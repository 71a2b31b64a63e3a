"""A device's way out of the fleet: revoked, retired, or cleared of the suspicion that there are two of it.

Each is one transaction, after which the device is heard no more and is offered nothing. What a broker has to do about
it (``delivery/keeping_out.py``) follows from the rows and is repeated until it was seen to be done.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncConnection

from orchestrator.errors import ConflictError, NotFoundError, UsageError
from orchestrator.model.audit import AuditKind
from orchestrator.model.device import Device, DeviceState
from orchestrator.storage import audit, certificates, devices, dirty, events, renewals
from orchestrator.storage.database import Database
from orchestrator.storage.exclusions import exclude_device
from protocol.clock import Clock
from protocol.topics import Kind

MAX_REASON_CHARS = 500

Close = Callable[[Database, Clock, str, str], Awaitable["Closed"]]
"""``revoke`` or ``retire``: (database, clock, device, reason)."""


@dataclass(frozen=True, slots=True)
class Closed:
    """What closing a device came to.

    Attributes:
        rollouts: From which it was taken out just now.
    """

    device: Device
    rollouts: list[str]


async def revoke(db: Database, clock: Clock, device: str, reason: str, *, actor: str = "operator") -> Closed:
    """The device is not trusted any more; its id is never used again. A second time changes nothing.

    Raises:
        NotFoundError: There is no such device.
        UsageError: The reason is missing or too long.
    """
    _check_reason(reason)
    async with db.begin() as conn:
        known = await _get(conn, device)
        if known.state == DeviceState.REVOKED:
            return Closed(known, [])
        return await close(conn, known, DeviceState.REVOKED, reason, clock.now(), actor=actor)


async def retire(db: Database, clock: Clock, device: str, reason: str, *, actor: str = "operator") -> Closed:
    """The device leaves in peace; its id may be enrolled again. A second time changes nothing.

    Its certificates are revoked like those of a revoked device: they would outlive its place in the fleet.

    Raises:
        NotFoundError: There is no such device.
        ConflictError: It was revoked: that is not taken back.
        UsageError: The reason is missing or too long.
    """
    _check_reason(reason)
    async with db.begin() as conn:
        known = await _get(conn, device)
        if known.state == DeviceState.REVOKED:
            raise ConflictError(f"device {device}: was revoked; that is not taken back by retiring it")
        if known.state == DeviceState.RETIRED:
            return Closed(known, [])
        return await close(conn, known, DeviceState.RETIRED, reason, clock.now(), actor=actor)


async def close(
    conn: AsyncConnection,
    device: Device,
    state: DeviceState,
    reason: str,
    now: datetime,
    *,
    actor: str = "operator",
) -> Closed:
    """Write it down: order, state, certificates, open offers, event."""
    await _log_order(conn, "revoke" if state is DeviceState.REVOKED else "retire", device.id, reason, now, actor)
    await devices.close(conn, device.id, state, reason, now)
    await certificates.revoke(conn, device.id, now)
    await renewals.remove(conn, device.id)
    await dirty.mark(conn, Kind.CERT, [device.id], now)
    rollouts = await exclude_device(conn, device.id, f"device {state}: {reason}", now)
    left = f"; taken out of {', '.join(rollouts)}" if rollouts else ""
    await events.add(
        conn, f"device_{state}", f"{device.id}: {state}: {reason}{left}", now, actor=actor, device=device.id
    )
    await _mark(conn, device.id, now)
    return Closed(await _get(conn, device.id), rollouts)


async def clear_duplicate(db: Database, clock: Clock, device: str, reason: str, *, actor: str = "operator") -> Device:
    """A person has dealt with the second device: offers may be made again.

    What was seen of both is forgotten; if both still live, it is flagged again as soon as they speak.

    Raises:
        NotFoundError: There is no such device.
        ConflictError: It is not flagged.
        UsageError: The reason is missing or too long.
    """
    _check_reason(reason)
    now = clock.now()
    async with db.begin() as conn:
        known = await _get(conn, device)
        if known.duplicate_since is None:
            raise ConflictError(f"device {device}: is not flagged as a duplicate; there is nothing to clear")
        await _log_order(conn, "clear-duplicate", device, reason, now, actor)
        await devices.clear_duplicate(conn, device)
        await events.add(
            conn, "device_duplicate_cleared", f"{device}: cleared: {reason}", now, actor=actor, device=device
        )
        await _mark(conn, device, now)
        return await _get(conn, device)


async def _log_order(conn: AsyncConnection, verb: str, device: str, reason: str, now: datetime, actor: str) -> None:
    figures = {"verb": verb, "reason": reason}
    cause = f"{verb} {device}: {reason}"
    await audit.append(conn, AuditKind.ORDER, at=now, actor=actor, cause=cause, device=device, figures=figures)


async def _get(conn: AsyncConnection, device: str) -> Device:
    found = await devices.get(conn, device)
    if found is None:
        raise NotFoundError(f"device {device}: not enrolled here; 'flagship device list' names those that are")
    return found


async def _mark(conn: AsyncConnection, device: str, now: datetime) -> None:
    await dirty.mark(conn, Kind.STATUS_DEVICE, [device], now)
    await dirty.mark(conn, Kind.STATUS_FLEET, [""], now)


def _check_reason(reason: str) -> None:
    if not reason.strip():
        raise UsageError("--reason: expected why, found nothing; it stands in the events for those who come after")
    if len(reason) > MAX_REASON_CHARS:
        raise UsageError(f"--reason: at most {MAX_REASON_CHARS} characters, found {len(reason)}")
