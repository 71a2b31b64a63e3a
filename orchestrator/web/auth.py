"""The door before the API: who is it, then a bound on the body, then the route.

An ASGI layer instead of a dependency: FastAPI reads and parses a body before it asks dependencies.
"""

from pathlib import Path
from typing import Annotated

from fastapi import Depends, Request
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from orchestrator.errors import NotAllowedError, NotFoundError, OperationError
from orchestrator.web.actors import Actors, Unknown
from orchestrator.web.problems import problem

MAX_BODY_BYTES = 1 << 20


def read_token(file: Path) -> str:
    """The admin token of a home.

    Raises:
        NotFoundError: It is missing.
        NotAllowedError: It is empty, which would open the door to everyone, not text, or not this user's to read.
    """
    try:
        token = file.read_text().strip()
    except FileNotFoundError as error:
        raise NotFoundError(f"{file}: the admin token is missing; restore it or make a home anew") from error
    except UnicodeDecodeError as error:
        raise NotAllowedError(f"{file}: the admin token is not text; restore it or make a home anew") from error
    except OSError as error:
        raise NotAllowedError(f"{file}: the admin token cannot be read: {error.strerror or error}") from error
    if not token:
        raise NotAllowedError(f"{file}: the admin token is empty; restore it or make a home anew")
    return token


def _actor(request: Request) -> str:
    name: str = request.state.actor
    return name


ActorName = Annotated[str, Depends(_actor)]
"""Who asks, as a route takes it: ``admin``, or the name of a token. A route that is free of tokens has none."""


class Door:
    """Lets pass what may pass.

    Args:
        free: Paths that need no token; every other does, whether it exists or not.
        free_below: So do all paths that begin like this.
        limits: Body bytes by (method, path), where it is not ``MAX_BODY_BYTES``.
    """

    def __init__(
        self, app: ASGIApp, actors: Actors, free: frozenset[str], limits: dict[tuple[str, str], int], free_below: str
    ) -> None:
        self._app = app
        self._actors = actors
        self._free = free
        self._free_below = free_below
        self._limits = limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse, or hand on with the actor's name and a bounded body."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers, path = Headers(scope=scope), str(scope["path"])
        limit = self._limits.get((scope["method"], path), MAX_BODY_BYTES)
        answer: ASGIApp | None = None
        if path not in self._free and not path.startswith(self._free_below):
            answer = await self._admit(scope, headers)
        if answer is None and _announced(headers) > limit:
            answer = problem(413, _too_large(limit))
        if answer is None:
            await self._app(scope, _bounded(receive, limit), send)
        else:
            await answer(scope, receive, send)

    async def _admit(self, scope: Scope, headers: Headers) -> ASGIApp | None:
        """Write down who it is; a refusal for who has no name."""
        client = scope.get("client")
        try:
            who = await self._actors.recognise(headers.get("authorization", ""), client[0] if client else "")
        except OperationError as error:
            return problem(500, str(error), error.exit_code)
        if isinstance(who, Unknown):
            answer = problem(who.status, who.detail)
            answer.headers.update(who.headers)
            return answer
        scope.setdefault("state", {})["actor"] = who
        return None


def _announced(headers: Headers) -> int:
    text = headers.get("content-length", "0")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else 0


def _bounded(receive: Receive, limit: int) -> Receive:
    seen = 0

    async def bounded() -> Message:
        nonlocal seen
        message = await receive()
        seen += len(message.get("body", b""))
        if seen > limit:
            raise HTTPException(413, _too_large(limit))
        return message

    return bounded


def _too_large(limit: int) -> str:
    return f"the body is larger than {limit} B, which is the most that is taken here"
