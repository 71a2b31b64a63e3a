"""The audit log: entries by id, and one with its figures."""

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query

from orchestrator.errors import NotFoundError
from orchestrator.storage import audit
from orchestrator.web.pages import Limit, Page, page
from orchestrator.web.routes_status import OptionalId
from orchestrator.web.services import Services
from orchestrator.web.views import audit_view, whole_audit_view


def audit_routes(services: Services) -> APIRouter:
    """The routes below ``/audit``."""
    router = APIRouter(prefix="/audit", tags=["audit"])

    @router.get("")
    async def list_entries(
        limit: Limit = 100,
        cursor: Annotated[str, Query(pattern=r"^[0-9]{0,18}$")] = "",
        rollout: OptionalId = "",
        newest: bool = False,
    ) -> Page:
        """Entries without their figures, the oldest first; the newest first where ``newest`` is set."""
        async with services.db.read() as conn:
            found = await audit.page(
                conn, after=int(cursor or 0), limit=limit + 1, rollout=rollout, newest_first=newest
            )
        return page([audit_view(entry) for entry in found], limit, "id")

    @router.get("/{entry}")
    async def show_entry(entry: Annotated[int, Path(ge=1, le=10**18)]) -> dict[str, Any]:
        """One entry with its figures."""
        async with services.db.read() as conn:
            found = await audit.get(conn, entry)
        if found is None:
            raise NotFoundError(f"audit entry {entry}: there is none; see 'flagship audit tail'")
        return whole_audit_view(found)

    return router
