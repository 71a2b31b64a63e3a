"""The whole fleet at once: halt everything, let it go on, and which of both holds."""

from typing import Any

from fastapi import APIRouter

from orchestrator.rollouts import fleet_halt
from orchestrator.storage import fleet_latch
from orchestrator.web.auth import ActorName
from orchestrator.web.requests import Order
from orchestrator.web.services import Services
from orchestrator.web.views import plain


def fleet_routes(services: Services) -> APIRouter:
    """The routes below ``/fleet``."""
    router = APIRouter(prefix="/fleet", tags=["fleet"])
    db, clock, delivery = services.db, services.clock, services.delivery

    def wake() -> None:
        services.controller.wake()
        delivery.wake()

    @router.get("/halt")
    async def show_halt() -> dict[str, Any]:
        """Whether the fleet is halted: since when, by whom and why."""
        async with db.read() as conn:
            latch = await fleet_latch.get(conn)
        if latch is None:
            return {"halted": False}
        return plain({"halted": True, "at": latch.at, "by": latch.by, "reason": latch.reason})

    @router.post("/halt")
    async def halt_all(body: Order, actor: ActorName) -> dict[str, Any]:
        """Hold every device that is not installing; answers when nothing is on its way any more.

        ``brokers_cut`` names those that did not answer in time and were cut off: what they had received, they have.
        """
        cut: list[str] = []

        async def barrier() -> None:
            services.anchor.wake()
            cut.extend(await delivery.barrier())

        held = await fleet_halt.halt_all(db, clock, body.reason, actor=actor, barrier=barrier)
        wake()
        latch = held.latch
        return plain(
            {
                "halted": True,
                "at": latch.at,
                "by": latch.by,
                "reason": latch.reason,
                "rollouts": list(held.rollouts),
                "brokers_cut": cut,
            }
        )

    @router.post("/lift")
    async def lift(body: Order, actor: ActorName) -> dict[str, Any]:
        """Let every rollout go on that is not halted by itself."""
        held = await fleet_halt.lift_halt(db, clock, body.reason, actor=actor)
        wake()
        return {"halted": False, "rollouts": list(held.rollouts)}

    return router
