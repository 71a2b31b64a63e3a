"""Releases: take a package in, publish it, list what there is."""

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import structlog
from fastapi import APIRouter, Request
from sqlalchemy.ext.asyncio import AsyncConnection
from starlette.requests import ClientDisconnect

from orchestrator.errors import ConflictError, NotFoundError, OperationError
from orchestrator.storage import chunk_keeping, releases
from orchestrator.storage.chunk_keeping import OnBroker
from orchestrator.storage.releases import ReleaseRecord
from orchestrator.web.auth import ActorName
from orchestrator.web.pages import Cursor, Limit, Page, page
from orchestrator.web.services import Services
from protocol.clock import rfc3339
from protocol.identifiers import IdText, VersionText

log = structlog.get_logger(__name__)

UPLOAD_PATH = "/api/v1/releases"
IDLE_S = 60.0
_PIECE = 1 << 20
_SUFFIX = ".incoming"


def release_routes(services: Services) -> APIRouter:
    """The routes below ``/releases``."""
    router = APIRouter(prefix="/releases", tags=["releases"])
    one_at_a_time = asyncio.Lock()

    @router.post("", status_code=201)
    async def publish_release(request: Request, actor: ActorName) -> dict[str, Any]:
        """Import the package in the body as a device would check it, then publish its chunks once and read them back.

        Done when one broker has all of it; ``behind`` says why others have not, and they are made right by themselves.
        The same package again goes on where it stopped.
        """
        if one_at_a_time.locked():
            raise ConflictError("a package is being taken in right now; publish this one when that is done")
        async with one_at_a_time, _upload(services.home.incoming, request) as package:
            release = await services.import_package(package, actor)
        published = await services.delivery.publish_release(release)
        services.controller.wake()
        return {
            **await _show(services, release),
            "published_chunk_bytes": published.sent_bytes,
            "behind": published.behind,
        }

    @router.get("")
    async def list_releases(limit: Limit = 100, cursor: Cursor = "") -> Page:
        """Releases by id."""
        async with services.db.read() as conn:
            found = await releases.page(conn, after=cursor, limit=limit + 1)
            brokers = await chunk_keeping.on_brokers(conn, [record.id for record in found])
        return page([_view(record, brokers.get(record.id, [])) for record in found], limit, "id")

    @router.get("/{product}/{version}")
    async def show_release(product: IdText, version: VersionText) -> dict[str, Any]:
        """One release."""
        return await _show(services, f"{product}/{version}")

    @router.get("/{product}/{version}/chunks")
    async def list_chunks(product: IdText, version: VersionText, limit: Limit = 100, cursor: Cursor = "") -> Page:
        """Chunks and manifest pieces of a release by id, with their ciphertext bytes."""
        release = f"{product}/{version}"
        async with services.db.read() as conn:
            await _require(conn, release)
            found = await releases.chunk_page(conn, release, after=cursor, limit=limit + 1)
        return page([{"cid": cid, "length": length} for cid, length in found], limit, "cid")

    return router


@contextlib.asynccontextmanager
async def _upload(directory: Path, request: Request) -> AsyncIterator[Path]:
    """The body as a file that is gone afterwards, as are those of a former life that was cut off.

    Raises:
        OperationError: It cannot be written, or the sender went away.
    """
    file = directory / f"{secrets.token_hex(8)}{_SUFFIX}"
    try:
        await asyncio.to_thread(_make_room, directory)
        await _write_body(file, request)
        yield file
    finally:
        await asyncio.to_thread(file.unlink, missing_ok=True)


async def _write_body(file: Path, request: Request) -> None:
    buffer = bytearray()
    stream = request.stream()
    try:
        with await asyncio.to_thread(file.open, "xb") as target:
            while True:
                async with asyncio.timeout(IDLE_S):
                    piece = await anext(stream, None)
                if piece is None:
                    break
                buffer += piece
                if len(buffer) >= _PIECE:
                    await asyncio.to_thread(target.write, bytes(buffer))
                    buffer.clear()
            await asyncio.to_thread(target.write, bytes(buffer))
    except ClientDisconnect as error:
        raise OperationError("the upload broke off; publish the package again") from error
    except TimeoutError as error:
        raise OperationError(f"the upload stood still for {IDLE_S:g} s; publish the package again") from error
    except OSError as error:
        raise OperationError(f"{file}: cannot be written: {error.strerror or error}") from error


def _make_room(directory: Path) -> None:
    try:
        directory.mkdir(mode=0o700, exist_ok=True)
        for left in directory.glob(f"*{_SUFFIX}"):
            left.unlink(missing_ok=True)
            log.info("unfinished upload removed", file=left.name)
    except OSError as error:
        raise OperationError(f"{directory}: cannot be used: {error.strerror or error}") from error


async def _show(services: Services, release: str) -> dict[str, Any]:
    async with services.db.read() as conn:
        found = await _require(conn, release)
        brokers = await chunk_keeping.on_brokers(conn, [release])
    return _view(found, brokers.get(release, []))


async def _require(conn: AsyncConnection, release: str) -> ReleaseRecord:
    found = await releases.get(conn, release)
    if found is None:
        raise NotFoundError(f"release {release}: not known here; publish it with 'flagship release publish PACKAGE'")
    return found


def _view(record: ReleaseRecord, brokers: Sequence[OnBroker]) -> dict[str, Any]:
    row = asdict(record)
    del row["wrapped_key"]
    return {**row, "imported_at": rfc3339(record.imported_at), "brokers": [_on_broker(item) for item in brokers]}


def _on_broker(item: OnBroker) -> dict[str, Any]:
    return {"broker": item.broker, "chunks": item.state.value, "missing_bytes": item.missing_bytes, "why": item.why}
