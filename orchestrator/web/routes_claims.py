"""Claims and the requests that came under them: create, list, revoke; approve, reject."""

from dataclasses import asdict
from datetime import timedelta
from typing import Annotated, Any

from fastapi import APIRouter, Path

from orchestrator.fleet import admission, claims
from orchestrator.fleet.claims import ClaimPlan
from orchestrator.storage import claims as rows
from orchestrator.storage.claims import Enrolment, Expected
from orchestrator.web.auth import ActorName
from orchestrator.web.pages import Cursor, Limit, Page, page
from orchestrator.web.requests import CreateClaim, Order
from orchestrator.web.services import Services
from orchestrator.web.views import plain
from protocol.identifiers import ClaimText

CLAIMS_PATH = "/api/v1/claims"
MAX_CLAIM_BYTES = 64 << 20
RequestId = Annotated[str, Path(pattern=r"^e-[0-9a-f]{12}$")]
_SHOWN = ("id", "serial", "device", "product", "hardware", "labels", "claim", "comes_back", "keyid", "asked_at")


def claim_routes(services: Services) -> APIRouter:
    """The routes below ``/claims`` and ``/enrolments``."""
    router = APIRouter(tags=["enrolment"])

    @router.post("/claims", status_code=201)
    async def create_claim(body: CreateClaim, actor: ActorName) -> dict[str, Any]:
        """Make a claim; the answer is what goes into its folder."""
        expected = [Expected(claim=body.name, **one.model_dump()) for one in body.devices]
        plan = ClaimPlan(
            name=body.name,
            csr=body.csr,
            expected=expected,
            any_product=body.any_product,
            any_hardware=body.any_hardware,
            automatic=body.automatic,
            per_minute=body.per_minute,
            life=timedelta(seconds=body.life_s),
        )
        made = await claims.create(services.db, services.home, services.settings, services.clock, plan, actor=actor)
        return {
            "folder": made.folder.model_dump(mode="json"),
            "certificate": made.certificate,
            "ca": made.ca,
            "root": made.root,
        }

    @router.get("/claims")
    async def list_claims(limit: Limit = 100, cursor: Cursor = "") -> Page:
        """Claims by name."""
        async with services.db.read() as conn:
            found = await rows.page(conn, after=cursor, limit=limit + 1)
        shown = [plain(asdict(claim)) | {"listed": listed, "admitted": got} for claim, listed, got in found]
        return page(shown, limit, "name")

    @router.post("/claims/{name}/revoke")
    async def revoke_claim(name: ClaimText, actor: ActorName) -> dict[str, Any]:
        """No request under it is answered any more."""
        await claims.revoke(services.db, services.clock, name, actor=actor)
        return {"name": name, "state": rows.REVOKED}

    @router.get("/enrolments")
    async def list_pending(limit: Limit = 100, cursor: Cursor = "") -> Page:
        """Requests that wait for a person."""
        async with services.db.read() as conn:
            found = await rows.pending(conn, after=cursor, limit=limit + 1)
        return page([_view(item) for item in found], limit, "id")

    @router.post("/enrolments/{request}/approve")
    async def approve(request: RequestId, actor: ActorName) -> dict[str, Any]:
        """Admit the device; it gets its certificate when it asks again."""
        item = await admission.approve(services.admission, services.db, request, actor=actor)
        services.delivery.wake()
        return _view(item)

    @router.post("/enrolments/{request}/reject")
    async def reject(request: RequestId, body: Order, actor: ActorName) -> dict[str, Any]:
        """Refuse the device."""
        item = await admission.reject(services.db, services.clock, request, body.reason, actor=actor)
        return _view(item)

    return router


def _view(item: Enrolment) -> dict[str, Any]:
    row = asdict(item)
    return plain({name: row[name] for name in _SHOWN})
