"""Certificates of devices, by serial: which were given out, which are revoked."""

from collections.abc import Collection
from datetime import datetime

from sqlalchemy import select, update
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from orchestrator.storage.tables import certificates

_BATCH = 500


async def add(conn: AsyncConnection, device: str, serial: str) -> None:
    """Note a certificate in the transaction that gives it out; one that is not noted cannot be revoked.

    Args:
        serial: In hex.
    """
    await conn.execute(insert(certificates).values(serial=serial, device=device).on_conflict_do_nothing())


async def revoke(conn: AsyncConnection, device: str, now: datetime) -> None:
    """Revoke every certificate that a device was ever given."""
    await conn.execute(
        update(certificates)
        .where(certificates.c.device == device, certificates.c.revoked_at.is_(None))
        .values(revoked_at=now)
    )


async def revoked(conn: AsyncConnection, since: datetime) -> dict[int, datetime]:
    """Serial -> when it was revoked, of those revoked since an instant."""
    rows = await conn.execute(
        select(certificates.c.serial, certificates.c.revoked_at).where(
            certificates.c.revoked_at.is_not(None), certificates.c.revoked_at >= since
        )
    )
    return {int(row.serial, 16): row.revoked_at for row in rows}


async def owners(conn: AsyncConnection, serials: Collection[int]) -> list[str]:
    """Devices whose certificates are among these and are not revoked here."""
    wanted, found = [f"{serial:x}" for serial in serials], set()
    for start in range(0, len(wanted), _BATCH):
        found |= set(
            await conn.scalars(
                select(certificates.c.device).where(
                    certificates.c.serial.in_(wanted[start : start + _BATCH]), certificates.c.revoked_at.is_(None)
                )
            )
        )
    return sorted(found)
