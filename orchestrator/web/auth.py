"""The door before the API: the admin token first, then a bound on the body, then the route.

An ASGI layer instead of a dependency: FastAPI reads and parses a body before it asks dependencies.
"""

import hmac
from pathlib import Path

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from orchestrator.errors import NotAllowedError, NotFoundError
from orchestrator.web.problems import problem

MAX_BODY_BYTES = 1 << 20
_BEARER = "bearer "


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


class Door:
    """Lets pass what may pass.

    Args:
        free: Paths that need no token; every other does, whether it exists or not.
        free_below: So do all paths that begin like this.
        limits: Body bytes by (method, path), where it is not ``MAX_BODY_BYTES``.
    """

    def __init__(
        self, app: ASGIApp, token: str, free: frozenset[str], limits: dict[tuple[str, str], int], free_below: str
    ) -> None:
        self._app = app
        self._token = token.encode()
        self._free = free
        self._free_below = free_below
        self._limits = limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse, or hand on with a bounded body."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers, path = Headers(scope=scope), str(scope["path"])
        limit = self._limits.get((scope["method"], path), MAX_BODY_BYTES)
        is_free = path in self._free or path.startswith(self._free_below)
        if not is_free and not self._is_admin(headers.get("authorization", "")):
            answer = problem(
                401,
                "the token is not that of the fleet that is served here; name its home with --home",
                NotAllowedError.exit_code,
            )
            answer.headers["WWW-Authenticate"] = "Bearer"
            await answer(scope, receive, send)
        elif _announced(headers) > limit:
            await problem(413, _too_large(limit))(scope, receive, send)
        else:
            await self._app(scope, _bounded(receive, limit), send)

    def _is_admin(self, authorization: str) -> bool:
        if not authorization.lower().startswith(_BEARER):
            return False
        given = authorization[len(_BEARER) :].strip().encode("latin-1", "replace")
        return hmac.compare_digest(given, self._token)


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
