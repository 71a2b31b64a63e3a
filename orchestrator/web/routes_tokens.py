"""Named tokens: create, list, revoke. The home's admin token alone makes and revokes them."""

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from fastapi import APIRouter, Response

from orchestrator.fleet import tokens
from orchestrator.storage import tokens as rows
from orchestrator.storage.tokens import Token
from orchestrator.web.auth import ActorName
from orchestrator.web.pages import Cursor, Limit, Page, page
from orchestrator.web.requests import CreateToken
from orchestrator.web.services import Services
from orchestrator.web.views import plain
from protocol.identifiers import IdText


def token_routes(services: Services, forget: Callable[[str], None]) -> APIRouter:
    """The routes below ``/tokens``.

    Args:
        forget: Told the digest of a token that was revoked.
    """
    router = APIRouter(prefix="/tokens", tags=["tokens"])

    @router.post("", status_code=201)
    async def create_token(body: CreateToken, response: Response, actor: ActorName) -> dict[str, Any]:
        """Make a token. It stands in this answer and nowhere else."""
        made = await tokens.create(services.db, services.clock, body.name, actor=actor)
        response.headers["Cache-Control"] = "no-store"
        return {**_view(made.token), "token": made.secret}

    @router.get("")
    async def list_tokens(limit: Limit = 100, cursor: Cursor = "") -> Page:
        """Tokens by name, revoked ones too."""
        async with services.db.read() as conn:
            found = await rows.page(conn, after=cursor, limit=limit + 1)
        return page([_view(token) for token in found], limit, "name")

    @router.post("/{name}/revoke")
    async def revoke_token(name: IdText, actor: ActorName) -> dict[str, Any]:
        """The token opens nothing from now on."""
        revoked = await tokens.revoke(services.db, services.clock, name, actor=actor)
        forget(revoked.sha256)
        return _view(revoked)

    return router


def _view(token: Token) -> dict[str, Any]:
    row = plain(asdict(token))
    del row["sha256"]
    return row
