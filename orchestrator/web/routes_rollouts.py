"""Rollouts: create, list, show, the verbs, and orders for media."""

from datetime import timedelta
from enum import StrEnum
from typing import Any

from fastapi import APIRouter

from orchestrator.errors import NotFoundError
from orchestrator.rollouts import creating, operations, reverting
from orchestrator.rollouts.fact_loading import load_facts
from orchestrator.rollouts.stage_moves import figures_of
from orchestrator.storage import rollouts
from orchestrator.web.auth import ActorName
from orchestrator.web.pages import Cursor, Limit, Page, page
from orchestrator.web.requests import CloneRollout, CreateRollout, OrderOffline, OrderRollout, RevertRollout
from orchestrator.web.services import Services
from orchestrator.web.views import rollout_view, whole_rollout_view
from protocol.clock import rfc3339
from protocol.identifiers import IdText


class Verb(StrEnum):
    """What a person may order."""

    SUBMIT = "submit"
    APPROVE = "approve"
    REJECT = "reject"
    START = "start"
    PAUSE = "pause"
    RESUME = "resume"
    PROMOTE = "promote"
    HALT = "halt"
    RETRY = "retry"
    ABORT = "abort"


_UNSAID = {Verb.HALT: "halted by an operator", Verb.ABORT: "aborted by an operator"}
NAMED = 1000
"""Devices that are named of those that cannot go back for one reason."""
_HOLDS_BACK = frozenset({Verb.HALT, Verb.ABORT})
"""Answered only when sends in flight have ended."""


def rollout_routes(services: Services) -> APIRouter:
    """The routes below ``/rollouts``."""
    router = APIRouter(prefix="/rollouts", tags=["rollouts"])
    db, clock, delivery = services.db, services.clock, services.delivery

    async def shown(rollout: str) -> dict[str, Any]:
        async with db.read() as conn:
            facts = await load_facts(conn, rollout)
        if facts is None:
            raise NotFoundError(f"rollout {rollout}: there is none of that id; 'flagship rollout list' names them")
        return whole_rollout_view(facts.rollout, facts.stages, figures_of(facts))

    def wake() -> None:
        services.controller.wake()
        delivery.wake()

    @router.post("", status_code=201)
    async def create_rollout(body: CreateRollout, actor: ActorName) -> dict[str, Any]:
        """Store a plan and choose its members; nothing is sent before it starts."""
        made = await creating.create(db, clock, body.spec, rollout_id=body.id or "", actor=actor)
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
    async def order_offline(rollout: IdText, body: OrderOffline, actor: ActorName) -> dict[str, Any]:
        """Sign an announcement and offers for a medium; what is handed out here cannot be called back."""
        life = timedelta(seconds=body.life_s)
        made = await services.offline.order(rollout, body.devices, life, actor=actor)
        wake()
        return {
            "rollout": made.rollout,
            "release": made.release,
            "until": rfc3339(made.until),
            "announcement": made.announcement.decode(),
            "offers": {device: envelope.decode() for device, envelope in made.offers.items()},
        }

    @router.post("/{rollout}/clone", status_code=201)
    async def clone_rollout(rollout: IdText, body: CloneRollout, actor: ActorName) -> dict[str, Any]:
        """Make a new draft of its plan; times that are past are left out."""
        made = await creating.clone(db, clock, rollout, body.id or "", release=body.release or "", actor=actor)
        wake()
        return await shown(made.id)

    @router.post("/{rollout}/revert", status_code=201)
    async def revert_rollout(rollout: IdText, body: RevertRollout, actor: ActorName) -> dict[str, Any]:
        """Make a rollout back to each release that its devices ran before; says who cannot go back, and why."""
        made = await reverting.revert(db, clock, rollout, unhealthy=body.unhealthy, begin=body.start, actor=actor)
        wake()
        stay = [{"why": why, "count": len(ids), "devices": ids[:NAMED]} for why, ids in made.stay.items()]
        return {"rollout": rollout, "rollouts": made.rollouts, "stay": stay, "started": body.start}

    @router.post("/{rollout}/{verb}")
    async def order(rollout: IdText, verb: Verb, body: OrderRollout, actor: ActorName) -> dict[str, Any]:
        """Carry out a verb; a halt and an abort answer when sends in flight have ended.

        ``brokers_cut`` names those that did not answer in time and were cut off: what they had received, they have.
        """
        if verb is Verb.START:
            await creating.start(db, clock, rollout, actor=actor, version=body.version, reason=body.reason or "")
            wake()
            return {**await shown(rollout), "brokers_cut": []}
        given = operations.Order(
            verb=verb,
            reason=body.reason or _UNSAID.get(verb, ""),
            version=body.version,
            actor=actor,
            devices=frozenset(body.devices),
            classes=frozenset(body.classes),
        )
        await operations.order(db, clock, rollout, given)
        if verb in _HOLDS_BACK:
            services.anchor.wake()
        cut = await delivery.barrier() if verb in _HOLDS_BACK else []
        wake()
        return {**await shown(rollout), "brokers_cut": cut}

    return router
