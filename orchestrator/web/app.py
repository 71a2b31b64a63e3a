"""The HTTP API, put together. ``service.py`` starts it under uvicorn."""

from typing import Annotated

from fastapi import APIRouter, FastAPI, Security
from fastapi.security import HTTPBearer

from orchestrator.storage.chunk_store import ChunkStore
from orchestrator.web import problems
from orchestrator.web.actors import Actors
from orchestrator.web.auth import Door, read_token
from orchestrator.web.routes_audit import audit_routes
from orchestrator.web.routes_chunks import CHUNKS_PATH, chunk_route
from orchestrator.web.routes_claims import CLAIMS_PATH, MAX_CLAIM_BYTES, claim_routes
from orchestrator.web.routes_devices import ENROL_PATH, MAX_ENROL_BYTES, device_routes
from orchestrator.web.routes_fleet import fleet_routes
from orchestrator.web.routes_groups import group_routes
from orchestrator.web.routes_metrics import METRICS_PATH, is_loopback, metrics_routes
from orchestrator.web.routes_plans import MAX_PLAN_BYTES, PLAN_PATH, ROLLOUTS_PATH, plan_routes
from orchestrator.web.routes_releases import UPLOAD_PATH, release_routes
from orchestrator.web.routes_rollouts import rollout_routes
from orchestrator.web.routes_status import status_routes
from orchestrator.web.routes_tokens import token_routes
from orchestrator.web.routes_trust import MAX_TRUST_BYTES, TRUST_PATH, trust_routes
from orchestrator.web.services import Services

PREFIX = "/api/v1"
FREE = frozenset({"/healthz"})


def create_app(services: Services) -> FastAPI:
    """Build the app.

    Raises:
        OperationError: The home's admin token is missing or empty.
    """
    app = FastAPI(title="Flagship", version="1", openapi_url=f"{PREFIX}/openapi.json", docs_url=None, redoc_url=None)
    problems.install(app)
    actors = Actors(services.db, services.clock, read_token(services.home.admin_token))
    api = APIRouter(prefix=PREFIX, dependencies=[Security(_described)])
    for routes in (
        status_routes,
        audit_routes,
        claim_routes,
        device_routes,
        group_routes,
        release_routes,
        plan_routes,
        rollout_routes,
        fleet_routes,
        trust_routes,
    ):
        api.include_router(routes(services))
    api.include_router(token_routes(services, actors.forget))
    app.include_router(api)

    @app.get("/healthz", include_in_schema=False)
    async def healthz() -> dict[str, str]:
        """Whether this process answers."""
        return {"status": "ok"}

    app.router.routes.append(chunk_route(services.db, ChunkStore(services.home.chunks)))
    app.include_router(metrics_routes(services))
    free = FREE | {METRICS_PATH} if is_loopback(services.settings.api.host) else FREE
    limits = {
        ("POST", UPLOAD_PATH): services.settings.broker.max_retained_bytes,
        ("POST", ENROL_PATH): MAX_ENROL_BYTES,
        ("POST", CLAIMS_PATH): MAX_CLAIM_BYTES,
        ("POST", PREFIX + PLAN_PATH): MAX_PLAN_BYTES,
        ("POST", PREFIX + ROLLOUTS_PATH): MAX_PLAN_BYTES,
        ("POST", TRUST_PATH): MAX_TRUST_BYTES,
    }
    app.add_middleware(Door, actors=actors, free=free, limits=limits, free_below=CHUNKS_PATH)
    return app


def _described(_: Annotated[object, Security(HTTPBearer(auto_error=False))]) -> None:
    """Names the token in OpenAPI; ``Door`` is who asks for it."""
