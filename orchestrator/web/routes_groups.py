"""Groups: create, list, show, and who is in them."""

from typing import Any

from fastapi import APIRouter

from orchestrator.errors import NotFoundError
from orchestrator.fleet import groups as operations
from orchestrator.storage import groups
from orchestrator.web.auth import ActorName
from orchestrator.web.pages import Cursor, Limit, Page, page
from orchestrator.web.requests import CreateGroup, GroupDevices
from orchestrator.web.services import Services
from protocol.identifiers import IdText


def group_routes(services: Services) -> APIRouter:
    """The routes below ``/groups``."""
    router = APIRouter(prefix="/groups", tags=["groups"])
    db, clock = services.db, services.clock

    async def shown(group: str) -> dict[str, Any]:
        async with db.read() as conn:
            if not await groups.exists(conn, group):
                raise NotFoundError(f"group {group}: there is none of that name; 'flagship group list' names them")
            return {"name": group, "devices": await groups.members(conn, group)}

    @router.post("", status_code=201)
    async def create_group(body: CreateGroup, actor: ActorName) -> dict[str, Any]:
        """Create a group with its first members, or nothing."""
        await operations.create(db, clock, body.name, body.devices, actor=actor)
        return await shown(body.name)

    @router.get("")
    async def list_groups(limit: Limit = 100, cursor: Cursor = "") -> Page:
        """Groups by name, with how many devices each has."""
        async with db.read() as conn:
            sizes = await groups.sizes(conn)
        found = [{"name": name, "devices": count} for name, count in sizes.items() if name > cursor]
        return page(found, limit, "name")

    @router.get("/{group}")
    async def show_group(group: IdText) -> dict[str, Any]:
        """One group's devices."""
        return await shown(group)

    @router.post("/{group}/devices")
    async def add_devices(group: IdText, body: GroupDevices, actor: ActorName) -> dict[str, Any]:
        """Put devices in: all or none."""
        await operations.add(db, clock, group, body.devices, actor=actor)
        return await shown(group)

    @router.post("/{group}/devices/remove")
    async def remove_devices(group: IdText, body: GroupDevices, actor: ActorName) -> dict[str, Any]:
        """Take devices out: all or none."""
        await operations.remove(db, clock, group, body.devices, actor=actor)
        return await shown(group)

    @router.put("/{group}/devices/{device}")
    async def add_device(group: IdText, device: IdText, actor: ActorName) -> dict[str, Any]:
        """Put one device in."""
        await operations.add(db, clock, group, [device], actor=actor)
        return await shown(group)

    @router.delete("/{group}/devices/{device}")
    async def remove_device(group: IdText, device: IdText, actor: ActorName) -> dict[str, Any]:
        """Take one device out."""
        await operations.remove(db, clock, group, [device], actor=actor)
        return await shown(group)

    return router
