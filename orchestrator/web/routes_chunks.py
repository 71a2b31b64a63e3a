"""``/chunks/{cid}``: the ciphertexts that brokers retain, for devices that fetch by HTTPS and for caches before them.

No login: a chunk is ciphertext under the hash of itself, every client of a broker may read it there, and a cache that
asked for a password would be none. Who knows a chunk's id can read its ciphertext, and needs an offer to open it.
"""

import asyncio

import structlog
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from orchestrator.errors import NotFoundError, OperationError
from orchestrator.storage import releases
from orchestrator.storage.chunk_store import ChunkStore
from orchestrator.storage.database import Database
from orchestrator.web.problems import problem
from protocol.identifiers import check_digest

log = structlog.get_logger(__name__)

CHUNKS_PATH = "/chunks/"
AT_ONCE = 8
"""Chunks that are looked up and read at the same time: the orchestrator's own work needs threads too."""
FOR_EVER = "public, max-age=31536000, immutable"


def chunk_route(db: Database, chunks: ChunkStore) -> Route:
    """GET and HEAD of the chunks of published releases."""
    at_once = asyncio.Semaphore(AT_ONCE)

    async def chunk(request: Request) -> Response:
        try:
            cid = check_digest(request.path_params["cid"])
        except ValueError:
            return _refused(404, "chunk: expected 64 lower-case hex digits in the path")
        async with at_once:
            if not await db.look(lambda conn: releases.is_published_chunk(conn, cid)):
                return _refused(404, f"chunk {cid[:16]}: belongs to no published release")
            tag = f'"{cid}"'
            headers = {"Cache-Control": FOR_EVER, "ETag": tag}
            if _names(request.headers.get("if-none-match", ""), tag):
                return Response(status_code=304, headers=headers)
            try:
                data = await asyncio.to_thread(chunks.get, cid)
            except (NotFoundError, OperationError) as error:
                log.error("chunk not served", why=str(error))
                return _refused(500, f"chunk {cid[:16]}: missing or damaged here; publish its release again")
        return Response(data, headers=headers, media_type="application/octet-stream")

    return Route(CHUNKS_PATH + "{cid}", chunk, methods=["GET"], include_in_schema=False)


class ChunksOnly:
    """An app that knows ``/chunks/{cid}`` and nothing else: what listens for devices."""

    def __init__(self, db: Database, chunks: ChunkStore) -> None:
        self._route = chunk_route(db, chunks)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer; another path or method is a 404."""
        if scope["type"] != "http":
            return
        if scope["method"] in {"GET", "HEAD"}:
            matched, more = self._route.matches(scope)
            if matched.value == 2:  # path and method
                await self._route.handle({**scope, **more}, receive, send)
                return
        await _refused(404, "there is nothing here but /chunks/{id}")(scope, receive, send)


def _refused(status: int, detail: str) -> Response:
    answer = problem(status, detail)
    answer.headers["Cache-Control"] = "no-store"
    return answer


def _names(if_none_match: str, tag: str) -> bool:
    return any(one.strip().removeprefix("W/") in {tag, "*"} for one in if_none_match[:1000].split(","))
