"""Rollouts: create, list, show, the five verbs, and orders for media."""

from datetime import timedelta
from enum import StrEnum
from typing import Any

from fastapi import APIRouter

from orchestrator.errors import NotFoundError
from orchestrator.rollouts import operations
from orchestrator.storage import rollouts
from orchestrator.web.pages import Cursor, Limit, Page, page
from orchestrator.web.requests import CreateRollout, Order, OrderOffline
from orchestrator.web.services import Services
from orchestrator.web.views import rollout_view, whole_rollout_view
from protocol.clock import rfc3339
from protocol.identifiers import IdText

ACTOR = "operator"
"""Whoever has the admin token."""


class Verb(StrEnum):
    """What a person may order."""

    START = "start"
    PAUSE = "pause"
    RESUME = "resume"
    HALT = "halt"
    ABORT = "abort"


def rollout_routes(services: Services) -> APIRouter:
    """The routes below ``/rollouts``."""
    router = APIRouter(prefix="/rollouts", tags=["rollouts"])
    db, clock, delivery = services.db, services.clock, services.delivery

    async def shown(rollout: str) -> dict[str, Any]:
        async with db.read() as conn:
            found = await rollouts.get(conn, rollout)
            if found is None:
                raise NotFoundError(f"rollout {rollout}: there is none of that id; 'flagship rollout list' names them")
            return whole_rollout_view(found, await rollouts.load_stages(conn, rollout))

    def wake() -> None:
        services.controller.wake()
        delivery.wake()

    @router.post("", status_code=201)
    async def create_rollout(body: CreateRollout) -> dict[str, Any]:
        """Store a plan and choose its members; nothing is sent before it starts."""
        made = await operations.create(db, clock, body.spec, rollout_id=body.id or "", actor=ACTOR)
        wake()
        return await shown(made.id)

    @router.get("")
    async def list_rollouts(limit: Limit = 100, cursor: Cursor = "") -> Page:
        """Rollouts by id."""
        async with db.read() as conn:
            found = await rollouts.page(conn, after=cursor, limit=limit + 1)
        return page([rollout_view(rollout) for rollout in found], limit, "id")

    @router.get("/{rollout}")
    async def show_rollout(rollout: IdText) -> dict[str, Any]:
        """One rollout: its plan and where it stands."""
        return await shown(rollout)

    @router.post("/{rollout}/offline")
    async def order_offline(rollout: IdText, body: OrderOffline) -> dict[str, Any]:
        """Sign an announcement and offers for a medium; what is handed out here cannot be called back."""
        made = await services.offline.order(rollout, body.devices, timedelta(seconds=body.life_s), actor=ACTOR)
        wake()
        return {
            "rollout": made.rollout,
            "release": made.release,
            "until": rfc3339(made.until),
            "announcement": made.announcement.decode(),
            "offers": {device: envelope.decode() for device, envelope in made.offers.items()},
        }

    @router.post("/{rollout}/{verb}")
    async def order(rollout: IdText, verb: Verb, body: Order) -> dict[str, Any]:
        """Start, pause, resume, halt or abort; a halt answers when sends in flight have ended.

        ``brokers_cut`` names those that did not answer in time and were cut off: what they had received, they have.
        """
        cut: list[str] = []

        async def barrier() -> None:
            services.anchor.wake()
            cut.extend(await delivery.barrier())

        match verb:
            case Verb.START:
                await operations.start(db, clock, rollout, actor=ACTOR)
            case Verb.PAUSE:
                await operations.pause(db, clock, rollout, body.reason, actor=ACTOR)
            case Verb.RESUME:
                await operations.resume(db, clock, rollout, body.reason, actor=ACTOR)
            case Verb.HALT:
                await operations.halt(db, clock, rollout, body.reason, barrier=barrier, actor=ACTOR)
            case Verb.ABORT:
                await operations.abort(db, clock, rollout, body.reason, barrier=barrier, actor=ACTOR)
        wake()
        return {**await shown(rollout), "brokers_cut": cut}

    return router
