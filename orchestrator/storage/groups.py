"""Groups of devices, by hand."""

from collections.abc import Collection
from datetime import datetime

from sqlalchemy import delete, func, insert, select
from sqlalchemy.dialects.sqlite import insert as insert_or_keep
from sqlalchemy.ext.asyncio import AsyncConnection

from orchestrator.storage import newcomers
from orchestrator.storage.tables import group_members, groups

_BATCH = 500


async def insert_group(conn: AsyncConnection, name: str, now: datetime) -> None:
    """Add an empty group."""
    await conn.execute(insert(groups).values(name=name, created_at=now))


async def exists(conn: AsyncConnection, name: str) -> bool:
    """Whether there is such a group."""
    return await conn.scalar(select(groups.c.name).where(groups.c.name == name)) is not None


async def existing(conn: AsyncConnection, names: Collection[str]) -> set[str]:
    """Those of these groups that there are."""
    wanted, found = list(names), set[str]()
    for start in range(0, len(wanted), _BATCH):
        found |= set(await conn.scalars(select(groups.c.name).where(groups.c.name.in_(wanted[start : start + _BATCH]))))
    return found


async def members_among(
    conn: AsyncConnection, names: Collection[str], devices: Collection[str]
) -> dict[str, frozenset[str]]:
    """Which of these devices are in which of these groups."""
    found: dict[str, set[str]] = {name: set() for name in names}
    wanted = sorted(devices)
    for start in range(0, len(wanted), _BATCH):
        rows = await conn.execute(
            select(group_members.c.group_name, group_members.c.device).where(
                group_members.c.device.in_(wanted[start : start + _BATCH])
            )
        )
        for name, device in rows:
            if name in found:
                found[name].add(device)
    return {name: frozenset(ids) for name, ids in found.items()}


async def sizes(conn: AsyncConnection) -> dict[str, int]:
    """Members per group, by name."""
    rows = await conn.execute(
        select(groups.c.name, func.count(group_members.c.device).label("n"))
        .outerjoin(group_members, group_members.c.group_name == groups.c.name)
        .group_by(groups.c.name)
        .order_by(groups.c.name)
    )
    return {row.name: row.n for row in rows}


async def members(conn: AsyncConnection, name: str) -> list[str]:
    """Device ids of a group, in order."""
    rows = await conn.scalars(
        select(group_members.c.device).where(group_members.c.group_name == name).order_by(group_members.c.device)
    )
    return list(rows)


async def of_device(conn: AsyncConnection, device: str) -> list[str]:
    """Names of the groups that a device is in."""
    rows = await conn.scalars(
        select(group_members.c.group_name).where(group_members.c.device == device).order_by(group_members.c.group_name)
    )
    return list(rows)


async def add_members(conn: AsyncConnection, name: str, devices: Collection[str]) -> None:
    """Put devices into a group; those that are in it stay."""
    rows = [{"group_name": name, "device": device} for device in devices]
    for start in range(0, len(rows), _BATCH):
        await conn.execute(insert_or_keep(group_members).on_conflict_do_nothing(), rows[start : start + _BATCH])
    await newcomers.note(conn, devices)


async def remove_member(conn: AsyncConnection, name: str, device: str) -> bool:
    """Take a device out; False if it was not in."""
    result = await conn.execute(
        delete(group_members).where(group_members.c.group_name == name, group_members.c.device == device)
    )
    return result.rowcount > 0
