"""The fleet in figures, and what happened."""

from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import AfterValidator

from orchestrator.delivery.status_rendering import fleet_status
from orchestrator.storage import concerns, devices, events, rollouts
from orchestrator.web.pages import Limit, Page, page
from orchestrator.web.services import Services
from orchestrator.web.views import event_view
from protocol.clock import rfc3339
from protocol.identifiers import check_id

OptionalId = Annotated[str, Query(max_length=64), AfterValidator(lambda text: check_id(text) if text else "")]


def status_routes(services: Services) -> APIRouter:
    """``/status`` and ``/events``."""
    router = APIRouter(tags=["status"])

    @router.get("/status")
    async def show_status() -> dict[str, Any]:
        """The fleet as its status topic shows it, and how each broker stands."""
        async with services.db.read() as conn:
            status = fleet_status(
                services.settings.fleet,
                await devices.figures(conn),
                await concerns.count(conn),
                await devices.versions(conn),
                await rollouts.states(conn),
                services.clock.now(),
                services.delivery.signer_trouble,
            )
        lists = {name: rfc3339(expires) for name, expires in services.keeping_out.expiry.items()}
        return {
            **status.model_dump(mode="json"),
            "broker_connected": services.delivery.connected,
            "brokers": [asdict(broker) for broker in await services.delivery.standing()],
            "revocation_lists_expire": lists,
        }

    @router.get("/events")
    async def list_events(
        limit: Limit = 100,
        cursor: Annotated[str, Query(pattern=r"^[0-9]{0,18}$")] = "",
        rollout: OptionalId = "",
        device: OptionalId = "",
    ) -> Page:
        """What happened, the oldest first."""
        async with services.db.read() as conn:
            found = await events.page(conn, after=int(cursor or 0), limit=limit + 1, rollout=rollout, device=device)
        return page([event_view(event) for event in found], limit, "id")

    return router
