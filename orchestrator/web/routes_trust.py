"""Trust metadata from a key ceremony: ``flagship trust publish`` is the client."""

from typing import Any

from fastapi import APIRouter

from orchestrator.web.auth import ActorName
from orchestrator.web.requests import LeavingKeys, PublishTrust
from orchestrator.web.services import Services

TRUST_PATH = "/api/v1/trust"
MAX_TRUST_BYTES = 3 * 2**20


def trust_routes(services: Services) -> APIRouter:
    """The routes below ``/trust``."""
    router = APIRouter(prefix="/trust", tags=["trust"])

    @router.post("")
    async def publish_trust(body: PublishTrust, actor: ActorName) -> dict[str, Any]:
        """Check metadata as a device would; keep it, tell devices, and sign anew what needs another director key."""
        files = {name: text.encode() for name, text in body.files.items()}
        versions = await services.trust.take_in(files, stolen=body.stolen, check_only=body.check_only, actor=actor)
        return {"versions": versions, "kept": not body.check_only}

    @router.post("/leaving")
    async def check_leaving(body: LeavingKeys) -> dict[str, Any]:
        """Whether director keys can leave: a conflict with counts where live orders are signed with them."""
        await services.trust.check_leaving(body.keyids)
        return {"in_use": False}

    return router
