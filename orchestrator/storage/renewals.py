"""Certificates for new keys that their devices were not heard under yet."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from orchestrator.model.device import DeviceState
from orchestrator.storage import certificates
from orchestrator.storage.certificate_tables import renewals
from orchestrator.storage.tables import assignments, devices, rollouts

_BATCH = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Renewed:
    """One certificate on its way.

    Attributes:
        digest: sha256 hex of the request's payload.
        session, seq: The request's place in the order of its device's reports.
        report_key: securesystemslib ``Key.to_dict()`` plus ``keyid``.
    """

    device: str
    digest: str
    session: int
    seq: int
    report_key: dict[str, Any]
    content_key: str
    certificate: str
    certificate_serial: str
    expires: datetime
    issued_at: datetime


async def get(conn: AsyncConnection, device: str) -> Renewed | None:
    """What is on its way to a device."""
    return (await get_many(conn, [device])).get(device)


async def get_many(conn: AsyncConnection, ids: Collection[str]) -> dict[str, Renewed]:
    """What is on its way, by device."""
    wanted, found = list(ids), {}
    for start in range(0, len(wanted), _BATCH):
        rows = await conn.execute(select(renewals).where(renewals.c.device.in_(wanted[start : start + _BATCH])))
        found.update({row["device"]: Renewed(**row) for row in rows.mappings()})
    return found


async def put(conn: AsyncConnection, item: Renewed) -> None:
    """Put a certificate on its way; a former one of the device is forgotten."""
    await remove(conn, item.device)
    values = {name: getattr(item, name) for name in Renewed.__dataclass_fields__}
    await conn.execute(insert(renewals).values(**values))
    await certificates.add(conn, item.device, item.certificate_serial)


async def remove(conn: AsyncConnection, device: str) -> None:
    """It arrived, or counts no more."""
    await conn.execute(delete(renewals).where(renewals.c.device == device))


async def use(conn: AsyncConnection, item: Renewed) -> bool:
    """Let the new keys take the place of the old ones; False where the device is not enrolled any more."""
    values = {
        "report_key": item.report_key,
        "content_key": item.content_key,
        "certificate_serial": item.certificate_serial,
    }
    known = (devices.c.id == item.device, devices.c.state == DeviceState.ENROLLED)
    result = await conn.execute(update(devices).where(*known).values(**values))
    await remove(conn, item.device)
    return result.rowcount == 1


async def open_offers_of(conn: AsyncConnection, device: str) -> list[str]:
    """Rollouts whose offer to a device carries a content key: it must be wrapped anew."""
    return list(
        await conn.scalars(
            select(assignments.c.rollout)
            .join(rollouts, rollouts.c.id == assignments.c.rollout)
            .where(
                assignments.c.device == device,
                assignments.c.grant.in_(["download", "activate"]),
                rollouts.c.ended_at.is_(None),
            )
        )
    )
