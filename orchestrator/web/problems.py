"""Refusals as problem+json (RFC 9457): title, detail in one sentence, and the exit code of a command that meets it."""

from http import HTTPStatus
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from orchestrator.errors import OperationError
from protocol.errors import FlagshipError, ProtocolError

log = structlog.get_logger(__name__)

_STATUS = {1: 500, 2: 422, 3: 404, 4: 403, 5: 409, 6: 409, 7: 409, 8: 504, 9: 503}
_EXIT_CODES = {400: 2, 401: 4, 403: 4, 404: 3, 409: 5, 413: 2, 415: 2, 422: 2, 429: 4, 503: 9, 504: 8}


def problem(status: int, detail: str, exit_code: int | None = None) -> JSONResponse:
    """One refusal.

    Args:
        exit_code: By default the one that fits the status.
    """
    body: dict[str, Any] = {
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": " ".join(detail.split()),
        "exit_code": _EXIT_CODES.get(status, 1) if exit_code is None else exit_code,
    }
    return JSONResponse(body, status, media_type="application/problem+json")


def install(app: FastAPI) -> None:
    """Make every failure of a route a problem."""
    app.add_exception_handler(OperationError, _operation)
    app.add_exception_handler(FlagshipError, _flagship)
    app.add_exception_handler(RequestValidationError, _validation)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(Exception, _unexpected)


def explain(errors: list[Any]) -> str:
    """The first thing that pydantic did not like, as a sentence with its place."""
    first = errors[0]
    place = ".".join(str(part) for part in first["loc"] if part not in ("body", "query", "path"))
    message = str(first["msg"]).removeprefix("Value error, ")
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    return f"{place}: {message}{more}" if place else f"{message}{more}"


async def _operation(_: Request, error: Exception) -> JSONResponse:
    code = getattr(error, "exit_code", 1)
    if code == 1:
        log.warning("request failed", why=str(error))
    return problem(_STATUS.get(code, 500), str(error), code)


async def _flagship(_: Request, error: Exception) -> JSONResponse:
    return problem(422 if isinstance(error, ProtocolError) else 500, str(error), 1)


async def _validation(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    return problem(422, explain(list(error.errors())))


async def _http(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    detail = error.detail
    if error.status_code in (404, 405) and detail == HTTPStatus(error.status_code).phrase:
        detail = f"{request.method} {request.url.path[:200]}: there is no such route"
    return problem(error.status_code, detail)


async def _unexpected(request: Request, error: Exception) -> JSONResponse:
    log.error("request broke", method=request.method, path=request.url.path, error=type(error).__name__)
    return problem(500, "a mistake inside flagship serve; its log has more")
