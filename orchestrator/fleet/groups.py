"""Groups of devices that an operator names. Each change holds for all named devices or for none."""

from collections.abc import Sequence

from sqlalchemy.ext.asyncio import AsyncConnection

from orchestrator.errors import ConflictError, NotFoundError
from orchestrator.storage import devices, events, groups
from orchestrator.storage.database import Database
from protocol.clock import Clock

MAX_NAMED = 100
"""Devices that an event names one by one; it has the count of all."""


async def create(
    db: Database, clock: Clock, name: str, members: Sequence[str], *, actor: str = "operator"
) -> list[str]:
    """Make a group; returns its members.

    Raises:
        ConflictError: The name is taken.
        NotFoundError: A device is not enrolled.
    """
    async with db.begin() as conn:
        if await groups.exists(conn, name):
            raise ConflictError(f"group {name}: exists already; add devices with 'flagship group add {name} DEVICE'")
        await _check_devices(conn, members)
        await groups.insert_group(conn, name, clock.now())
        await groups.add_members(conn, name, members)
        await _tell(conn, clock, "created", name, members, actor)
        return await groups.members(conn, name)


async def add(db: Database, clock: Clock, name: str, members: Sequence[str], *, actor: str = "operator") -> list[str]:
    """Put devices in; those that are in stay. Returns the members; raises NotFoundError."""
    async with db.begin() as conn:
        await _check_group(conn, name)
        await _check_devices(conn, members)
        await groups.add_members(conn, name, members)
        await _tell(conn, clock, "added", name, members, actor)
        return await groups.members(conn, name)


async def remove(
    db: Database, clock: Clock, name: str, members: Sequence[str], *, actor: str = "operator"
) -> list[str]:
    """Take devices out. Returns the members; raises NotFoundError where one is not in."""
    async with db.begin() as conn:
        await _check_group(conn, name)
        for device in members:
            if not await groups.remove_member(conn, name, device):
                raise NotFoundError(f"group {name}: device {device} is not in it; nothing was changed")
        await _tell(conn, clock, "removed", name, members, actor)
        return await groups.members(conn, name)


async def _check_group(conn: AsyncConnection, name: str) -> None:
    if not await groups.exists(conn, name):
        raise NotFoundError(f"group {name}: there is none; see 'flagship group list'")


async def _check_devices(conn: AsyncConnection, members: Sequence[str]) -> None:
    unknown = await devices.missing(conn, members)
    if unknown:
        raise NotFoundError(f"devices {_some(unknown)}: not enrolled; see 'flagship device list'; nothing was changed")


async def _tell(conn: AsyncConnection, clock: Clock, verb: str, name: str, members: Sequence[str], actor: str) -> None:
    text = f"group {name}: {verb}: {_some(members) or 'no devices'}"
    data = {"group": name, "count": len(members), "devices": list(members[:MAX_NAMED])}
    await events.add_order(conn, f"group_{verb}", text, clock.now(), actor=actor, data=data)


def _some(ids: Sequence[str]) -> str:
    return ", ".join(ids[:3]) + (", ..." if len(ids) > 3 else "")
