"""Devices: identity and what they last said about themselves."""

from collections.abc import AsyncIterator, Collection, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Integer, String, bindparam, delete, func, select, type_coerce, update
from sqlalchemy import insert as plain_insert
from sqlalchemy.ext.asyncio import AsyncConnection

from orchestrator.model.candidate import Candidate
from orchestrator.model.device import FIELDS, Device, DeviceState
from orchestrator.model.duplicates import Instances
from orchestrator.storage import certificates, newcomers
from orchestrator.storage.broker_tables import expelled
from orchestrator.storage.tables import devices, group_members

_COLUMNS = [devices.c[name] for name in FIELDS]
_BATCH = 500
_PLANNED_AT_ONCE = 5_000
# Columns as they are stored: what planning does not look at is never read.
_PLANNING = select(
    devices.c.id,
    devices.c.product,
    devices.c.hardware,
    devices.c.state,
    type_coerce(devices.c.duplicate_since.is_not(None), Integer),
    type_coerce(devices.c.online, Integer),
    type_coerce(devices.c.silent, Integer),
    type_coerce(devices.c.components, String),
    type_coerce(devices.c.labels, String),
)
_PLANNING_PAGE = _PLANNING.where(devices.c.id > bindparam("after")).order_by(devices.c.id).limit(bindparam("at_once"))


async def insert(conn: AsyncConnection, device: Device, *, report_key: dict[str, Any], content_key: str) -> None:
    """Add a device, or put a retired one back under a new identity; its old sessions count no more.

    Args:
        report_key: securesystemslib ``Key.to_dict()`` plus ``keyid``.
        content_key: X25519 public key, base64.
    """
    values: dict[str, Any] = {name: getattr(device, name) for name in FIELDS}
    values |= {"report_key": report_key, "content_key": content_key, "heard_at": device.enrolled_at}
    result = await conn.execute(
        update(devices)
        .where(devices.c.id == device.id, devices.c.state == DeviceState.RETIRED)
        .values(**values, session=0, seq=0, presence_session=0, instances={})
    )
    if result.rowcount == 0:
        await conn.execute(plain_insert(devices).values(**values))
    await newcomers.note(conn, [device.id])
    if device.certificate_serial:
        await certificates.add(conn, device.id, device.certificate_serial)


async def set_certificate(conn: AsyncConnection, device_id: str, serial: str) -> None:
    """Note the newest certificate of a device, by serial in hex."""
    await conn.execute(update(devices).where(devices.c.id == device_id).values(certificate_serial=serial))
    await certificates.add(conn, device_id, serial)


async def set_keys(
    conn: AsyncConnection, device_id: str, serial: str, *, report_key: dict[str, Any], content_key: str
) -> None:
    """Put new keys and their certificate in the place of a device's old ones."""
    values = {"certificate_serial": serial, "report_key": report_key, "content_key": content_key}
    await conn.execute(update(devices).where(devices.c.id == device_id).values(**values))
    await certificates.add(conn, device_id, serial)


async def get(conn: AsyncConnection, device_id: str) -> Device | None:
    """One device."""
    row = (await conn.execute(select(*_COLUMNS).where(devices.c.id == device_id))).mappings().first()
    return None if row is None else Device.from_row(row)


async def get_many(conn: AsyncConnection, ids: Collection[str]) -> dict[str, Device]:
    """Devices by id; those that do not exist are left out."""
    wanted, found = list(ids), {}
    for start in range(0, len(wanted), _BATCH):
        rows = await conn.execute(select(*_COLUMNS).where(devices.c.id.in_(wanted[start : start + _BATCH])))
        found.update({row["id"]: Device.from_row(row) for row in rows.mappings()})
    return found


async def page(conn: AsyncConnection, *, after: str = "", limit: int = 500, group: str = "") -> list[Device]:
    """Devices by id, beginning behind ``after``; of one group where it is named."""
    query = select(*_COLUMNS).where(devices.c.id > after).order_by(devices.c.id).limit(limit)
    if group:
        query = query.join(group_members, group_members.c.device == devices.c.id)
        query = query.where(group_members.c.group_name == group)
    return [Device.from_row(row) for row in (await conn.execute(query)).mappings()]


async def for_planning(conn: AsyncConnection) -> AsyncIterator[Sequence[Candidate]]:
    """The whole fleet by id, some thousand devices at a time."""
    after, made = "", Candidate._make
    while True:
        rows = (await conn.execute(_PLANNING_PAGE, {"after": after, "at_once": _PLANNED_AT_ONCE})).all()
        if not rows:
            return
        yield [made(row) for row in rows]
        after = rows[-1][0]


async def candidates(conn: AsyncConnection, ids: Collection[str]) -> list[Candidate]:
    """These devices as planning sees them, by id; those that do not exist are left out."""
    wanted, found = sorted(set(ids)), list[Candidate]()
    for start in range(0, len(wanted), _BATCH):
        query = _PLANNING.where(devices.c.id.in_(wanted[start : start + _BATCH])).order_by(devices.c.id)
        found += [Candidate._make(row) for row in await conn.execute(query)]
    return found


async def not_enrolled(conn: AsyncConnection, ids: Collection[str]) -> set[str]:
    """Which of these devices were revoked or retired."""
    wanted, found = sorted(set(ids)), set[str]()
    for start in range(0, len(wanted), _BATCH):
        some = devices.c.id.in_(wanted[start : start + _BATCH])
        found |= set(await conn.scalars(select(devices.c.id).where(some, devices.c.state != "enrolled")))
    return found


async def missing(conn: AsyncConnection, ids: Collection[str]) -> list[str]:
    """Which of these ids are not devices here."""
    wanted, found = sorted(set(ids)), set()
    for start in range(0, len(wanted), _BATCH):
        found |= set(await conn.scalars(select(devices.c.id).where(devices.c.id.in_(wanted[start : start + _BATCH]))))
    return [device for device in wanted if device not in found]


async def keys(conn: AsyncConnection, ids: Collection[str]) -> dict[str, tuple[dict[str, Any], str]]:
    """(report key, content key) by device id, of enrolled devices only: a revoked one is heard no more."""
    wanted, found = list(ids), {}
    for start in range(0, len(wanted), _BATCH):
        rows = await conn.execute(
            select(devices.c.id, devices.c.report_key, devices.c.content_key).where(
                devices.c.id.in_(wanted[start : start + _BATCH]), devices.c.state == DeviceState.ENROLLED
            )
        )
        found.update({row.id: (row.report_key, row.content_key) for row in rows})
    return found


async def revoked(conn: AsyncConnection, *, after: str = "", limit: int = 1000) -> list[str]:
    """Ids of revoked devices, beginning behind ``after``."""
    rows = await conn.scalars(
        select(devices.c.id)
        .where(devices.c.state == DeviceState.REVOKED, devices.c.id > after)
        .order_by(devices.c.id)
        .limit(limit)
    )
    return list(rows)


async def content_keys(conn: AsyncConnection, ids: Collection[str]) -> dict[str, str]:
    """Content keys of devices that may be offered something: enrolled, and not two under one id."""
    wanted, found = list(ids), {}
    for start in range(0, len(wanted), _BATCH):
        rows = await conn.execute(
            select(devices.c.id, devices.c.content_key).where(
                devices.c.id.in_(wanted[start : start + _BATCH]),
                devices.c.state == DeviceState.ENROLLED,
                devices.c.duplicate_since.is_(None),
            )
        )
        found.update({row.id: row.content_key for row in rows})
    return found


async def close(conn: AsyncConnection, device_id: str, state: DeviceState, reason: str, now: datetime) -> None:
    """Revoke or retire; that the session ended is still to be seen."""
    await conn.execute(
        update(devices)
        .where(devices.c.id == device_id)
        .values(
            state=state,
            online=False,
            silent=False,
            stale_since=None,
            duplicate_since=None,
            closed_at=now,
            closed_reason=reason,
            session_ended_at=None,
        )
    )
    await conn.execute(delete(expelled).where(expelled.c.device == device_id))


async def clear_duplicate(conn: AsyncConnection, device_id: str) -> None:
    """Forget what was seen of two devices, and go on from the order of the one that spoke last.

    The other one may have come further: reports of the device that stays must not look like replays.
    """
    known = Instances.from_json(
        await conn.scalar(select(devices.c.instances).where(devices.c.id == device_id)) or {}
    ).known
    values = {"session": known[-1].session, "seq": known[-1].seq} if known else {}
    await conn.execute(
        update(devices).where(devices.c.id == device_id).values(duplicate_since=None, instances={}, **values)
    )


async def figures(conn: AsyncConnection) -> tuple[int, int, int]:
    """(enrolled, online, revoked)."""
    row = (
        await conn.execute(
            select(
                func.count().filter(devices.c.state == DeviceState.ENROLLED),
                func.count().filter(devices.c.state == DeviceState.ENROLLED, devices.c.online),
                func.count().filter(devices.c.state == DeviceState.REVOKED),
            ).select_from(devices)
        )
    ).one()
    return row[0], row[1], row[2]


async def versions(conn: AsyncConnection, limit: int = 100) -> dict[str, int]:
    """Enrolled devices by ``component version``, the most frequent first."""
    part = func.json_each(devices.c.components).table_valued("key", "value")
    name = (part.c.key + " " + part.c.value).label("name")
    rows = await conn.execute(
        select(name, func.count().label("n"))
        .select_from(devices.join(part, onclause=devices.c.state == DeviceState.ENROLLED))
        .group_by(name)
        .order_by(func.count().desc(), name)
        .limit(limit)
    )
    return {row.name: row.n for row in rows}
