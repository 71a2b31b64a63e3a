"""Devices: enrol, list, show, revoke, retire."""

from functools import partial
from typing import Any

from fastapi import APIRouter
from sqlalchemy.ext.asyncio import AsyncConnection

from orchestrator.errors import NotFoundError, UsageError
from orchestrator.fleet import closing, enrolment
from orchestrator.fleet.explaining import Place, explain
from orchestrator.rollouts.fact_loading import load_facts
from orchestrator.rollouts.placing import why_not
from orchestrator.rollouts.stage_moves import figures_of
from orchestrator.storage import assignments, concerns, devices, fleet_latch, groups
from orchestrator.storage.concerns import Concern
from orchestrator.web.auth import ActorName
from orchestrator.web.pages import Cursor, Limit, Page, page
from orchestrator.web.requests import EnrolDevices, Order
from orchestrator.web.routes_status import OptionalId
from orchestrator.web.services import Services
from orchestrator.web.views import device_view, update_view
from protocol.clock import rfc3339
from protocol.enrolment import EnrolmentAnswers
from protocol.identifiers import IdText
from protocol.states import FAILURES
from protocol.versions import compare

ENROL_PATH = "/api/v1/devices"
MAX_ENROL_BYTES = 32 << 20
SHOWN_UPDATES = 20


def device_routes(services: Services) -> APIRouter:
    """The routes below ``/devices``."""
    router = APIRouter(prefix="/devices", tags=["devices"])

    @router.post("", status_code=201)
    async def enrol_devices(body: EnrolDevices, actor: ActorName) -> EnrolmentAnswers:
        """Admit devices: all of the requests or, if one is refused, none."""
        answers = await enrolment.enrol(
            services.db, services.home, services.settings, services.clock, body.requests, actor=actor
        )
        services.delivery.wake()
        return answers

    @router.get("")
    async def list_devices(
        limit: Limit = 100, cursor: Cursor = "", group: OptionalId = "", concern: Concern | None = None
    ) -> Page:
        """Devices by id, of one group if it is named, or with one concern: silent, stale, duplicate."""
        if group and concern:
            raise UsageError("devices: expected a group or a concern, found both; ask for one")
        async with services.db.read() as conn:
            if concern:
                found = await concerns.page(conn, concern, after=cursor, limit=limit + 1)
            else:
                if group and not await groups.exists(conn, group):
                    raise NotFoundError(f"group {group}: there is none of that name; 'flagship group list' names them")
                found = await devices.page(conn, after=cursor, limit=limit + 1, group=group)
        return page([device_view(device) for device in found], limit, "id")

    @router.get("/{device}")
    async def show_device(device: IdText) -> dict[str, Any]:
        """One device: what it is, its groups, its updates with the newest first."""
        async with services.db.read() as conn:
            found = await devices.get(conn, device)
            if found is None:
                raise NotFoundError(f"device {device}: not enrolled here; 'flagship device list' names those that are")
            updates = await assignments.of_device(conn, device)
            names = await groups.of_device(conn, device)
        return {**device_view(found), "groups": names, "updates": [update_view(one) for one in updates[:SHOWN_UPDATES]]}

    @router.get("/{device}/explain")
    async def explain_device(device: IdText, rollout: OptionalId = "") -> dict[str, Any]:
        """Why a device is where it is, in sentences; in one rollout, or in those that it takes part in.

        ``logs`` is what installers and checks of failed updates wrote at their end, as the device reported it.
        """
        async with services.db.read() as conn:
            found = await devices.get(conn, device)
            if found is None:
                raise NotFoundError(f"device {device}: not enrolled here")
            places = await _places(conn, device, rollout)
            latch = await fleet_latch.get(conn)
        halt = f"since {rfc3339(latch.at)} by {latch.by} ({latch.reason})" if latch else ""
        return {
            "device": device,
            "sentences": explain(found, places, services.dropped(device), fleet_halt=halt),
            "refusals": found.refusals,
            "logs": [
                {"rollout": row.rollout, "attempt": row.attempt, "log": row.log}
                for row in (place.assignment for place in places)
                if row is not None and row.log and row.state in FAILURES
            ],
        }

    @router.post("/{device}/revoke")
    async def revoke_device(device: IdText, body: Order, actor: ActorName) -> dict[str, Any]:
        """Trust a device no more: one operation, done again without harm. Says what the broker has yet to do."""
        return await _close(services, device, partial(closing.revoke, actor=actor), body.reason)

    @router.post("/{device}/retire")
    async def retire_device(device: IdText, body: Order, actor: ActorName) -> dict[str, Any]:
        """Let a device go in peace; its id may be enrolled again."""
        return await _close(services, device, partial(closing.retire, actor=actor), body.reason)

    @router.post("/{device}/clear-duplicate")
    async def clear_duplicate(device: IdText, body: Order, actor: ActorName) -> dict[str, Any]:
        """Offer updates again to a device that was found twice."""
        found = await closing.clear_duplicate(services.db, services.clock, device, body.reason, actor=actor)
        services.delivery.wake()
        return device_view(found)

    return router


async def _places(conn: AsyncConnection, device: str, rollout: str) -> list[Place]:
    rows = (await assignments.of_device(conn, device))[:SHOWN_UPDATES]
    by_rollout = {row.rollout: row for row in rows}
    if rollout:
        by_rollout = {rollout: found} if (found := await assignments.get(conn, rollout, device)) else {}
    places = []
    for name in [rollout] if rollout else by_rollout:
        facts = await load_facts(conn, name)
        if facts is None:
            raise NotFoundError(f"rollout {name}: there is none of that name; 'flagship rollout list' names them")
        rules = {position: figure.text for position, figure in figures_of(facts) if figure.rule == "success"}
        row = by_rollout.get(name)
        why = "" if row else await why_not(conn, facts.rollout, device, compare)
        place = Place(rollout=facts.rollout, stages=facts.stages, assignment=row, rules=rules, why_not=why)
        places.append(place)
    return places


async def _close(services: Services, device: str, close: closing.Close, reason: str) -> dict[str, Any]:
    """Rows, then ingest's keys, then sends in flight, then the brokers: list before session."""
    closed = await close(services.db, services.clock, device, reason)
    services.forget_keys(device)
    services.controller.wake()
    services.delivery.wake()
    await services.delivery.barrier()
    pending = await services.keeping_out.pending(device, services.settings.timing.expel_wait_s)
    async with services.db.read() as conn:
        found = await devices.get(conn, device) or closed.device
    return {**device_view(found), "excluded_from": closed.rollouts, "pending": pending or ""}
