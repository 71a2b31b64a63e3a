"""Claims, what is expected under them, and the requests that came."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from orchestrator.storage.certificate_tables import claims, enrolments, expected_devices
from orchestrator.storage.tables import devices

OPEN, REVOKED = "open", "revoked"
PENDING, ISSUED, REJECTED = "pending", "issued", "rejected"
_BATCH = 500


@dataclass(frozen=True, slots=True)
class Claim:
    """One claim certificate and what may come under it.

    Attributes:
        any_product, any_hardware: What a serial that is not listed comes in as; None where only listed ones may.
        per_minute: Requests that are looked at.
    """

    name: str
    state: str
    certificate_serial: str
    approval: str
    any_product: str | None
    any_hardware: str | None
    per_minute: int
    created_at: datetime
    expires: datetime


@dataclass(frozen=True, slots=True)
class Expected:
    """What the inventory says of a serial that has not come yet, or has."""

    serial: str
    claim: str
    device: str
    product: str
    hardware: str
    labels: dict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Enrolment:
    """One request under a claim, by the key that asked."""

    id: str
    keyid: str
    claim: str
    serial: str
    device: str
    product: str
    hardware: str
    labels: dict[str, str]
    comes_back: bool
    csr: str
    content_key: str
    state: str
    reason: str = ""
    certificate: str = ""
    asked_at: datetime
    decided_at: datetime | None = None


async def insert_claim(conn: AsyncConnection, claim: Claim, expected: Sequence[Expected]) -> None:
    """Add a claim with what it expects."""
    await conn.execute(insert(claims).values(**_values(claim)))
    if expected:
        await conn.execute(insert(expected_devices), [_values(one) for one in expected])


async def get(conn: AsyncConnection, name: str) -> Claim | None:
    """One claim."""
    row = (await conn.execute(select(claims).where(claims.c.name == name))).mappings().first()
    return None if row is None else Claim(**row)


async def page(conn: AsyncConnection, *, after: str = "", limit: int = 100) -> list[tuple[Claim, int, int]]:
    """(claim, serials listed, devices admitted) by name, beginning behind ``after``."""
    listed = (
        select(func.count()).select_from(expected_devices).where(expected_devices.c.claim == claims.c.name)
    ).scalar_subquery()
    admitted = (
        select(func.count())
        .select_from(enrolments)
        .where(enrolments.c.claim == claims.c.name, enrolments.c.state == ISSUED)
    ).scalar_subquery()
    query = select(claims, listed.label("listed"), admitted.label("admitted"))
    rows = await conn.execute(query.where(claims.c.name > after).order_by(claims.c.name).limit(limit))
    found = []
    for row in rows.mappings():
        values = dict(row)
        counts = values.pop("listed"), values.pop("admitted")
        found.append((Claim(**values), *counts))
    return found


async def set_state(conn: AsyncConnection, name: str, state: str) -> None:
    """Open or revoke a claim."""
    await conn.execute(update(claims).where(claims.c.name == name).values(state=state))


async def expected(conn: AsyncConnection, serial: str) -> Expected | None:
    """What the inventory says of a serial."""
    row = (await conn.execute(select(expected_devices).where(expected_devices.c.serial == serial))).mappings().first()
    return None if row is None else Expected(**row)


async def taken(conn: AsyncConnection, wanted: Sequence[Expected]) -> list[str]:
    """Serials and device ids among these that are listed already, or are devices here."""
    found: list[str] = []
    for start in range(0, len(wanted), _BATCH):
        part = wanted[start : start + _BATCH]
        serials, ids = [one.serial for one in part], [one.device for one in part]
        found += await conn.scalars(select(expected_devices.c.serial).where(expected_devices.c.serial.in_(serials)))
        found += await conn.scalars(select(expected_devices.c.device).where(expected_devices.c.device.in_(ids)))
        found += await conn.scalars(select(devices.c.id).where(devices.c.id.in_(ids)))
    return found


async def enrolment(conn: AsyncConnection, keyid: str) -> Enrolment | None:
    """The request of one report key."""
    row = (await conn.execute(select(enrolments).where(enrolments.c.keyid == keyid))).mappings().first()
    return None if row is None else Enrolment(**row)


async def enrolment_by_id(conn: AsyncConnection, wanted: str) -> Enrolment | None:
    """One request."""
    row = (await conn.execute(select(enrolments).where(enrolments.c.id == wanted))).mappings().first()
    return None if row is None else Enrolment(**row)


async def pending(conn: AsyncConnection, *, after: str = "", limit: int = 100) -> list[Enrolment]:
    """Requests that wait for a person, by id, beginning behind ``after``."""
    query = select(enrolments).where(enrolments.c.state == PENDING, enrolments.c.id > after)
    rows = await conn.execute(query.order_by(enrolments.c.id).limit(limit))
    return [Enrolment(**row) for row in rows.mappings()]


async def pending_count(conn: AsyncConnection, claim: str) -> int:
    """How many requests under a claim wait for a person."""
    query = select(func.count()).select_from(enrolments)
    return int(await conn.scalar(query.where(enrolments.c.claim == claim, enrolments.c.state == PENDING)) or 0)


async def put_enrolment(conn: AsyncConnection, item: Enrolment) -> None:
    """Add a request, or put its newest form in the place of the former one."""
    await conn.execute(delete(enrolments).where(enrolments.c.keyid == item.keyid))
    await conn.execute(insert(enrolments).values(**_values(item)))


async def reject_others(conn: AsyncConnection, serial: str, keyid: str, reason: str, now: datetime) -> int:
    """Reject every other pending request for a serial; returns how many there were."""
    result = await conn.execute(
        update(enrolments)
        .where(enrolments.c.serial == serial, enrolments.c.keyid != keyid, enrolments.c.state == PENDING)
        .values(state=REJECTED, reason=reason, decided_at=now)
    )
    return result.rowcount


def _values(item: object) -> Mapping[str, Any]:
    names: Collection[str] = item.__dataclass_fields__  # type: ignore[attr-defined]
    return {name: getattr(item, name) for name in names}
