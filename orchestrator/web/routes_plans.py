"""Plans that are tried out before they become rollouts."""

from typing import Any

from fastapi import APIRouter

from orchestrator.rollouts.dry_run import try_out
from orchestrator.web.requests import PlanRollout
from orchestrator.web.services import Services
from protocol.versions import compare

ROLLOUTS_PATH, PLAN_PATH = "/rollouts", "/rollouts/plan"
MAX_PLAN_BYTES = 4 << 20
"""A plan may list thousands of devices."""


def plan_routes(services: Services) -> APIRouter:
    """The route ``/rollouts/plan``."""
    router = APIRouter(prefix=ROLLOUTS_PATH, tags=["rollouts"])

    @router.post("/plan")
    async def plan_rollout(body: PlanRollout) -> dict[str, Any]:
        """Try a plan out: members, exclusions, readiness, bytes, time, warnings. Nothing is written."""
        return (await try_out(services.db, services.clock, body.spec, compare)).to_json()

    return router
