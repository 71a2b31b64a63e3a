"""Packages over HTTP: streamed to a file, taken in one at a time, gone afterwards."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from orchestrator.errors import ConflictError, OperationError
from protocol.errors import ErrorCode, TrustError
from tests.orchestrator.web.conftest import Api, store_release

PACKAGE = bytes(range(256)) * 6000


def incoming(api: Api) -> list[Path]:
    """What lies in the home's folder for packages that are being imported."""
    return list(api.services.home.incoming.iterdir())


async def test_brokers_that_lack_a_release_are_named(api: Api) -> None:
    """It is published all the same."""
    api.seen.behind = {"second": "it is down"}
    body = (await api.http.post("/api/v1/releases", content=PACKAGE)).json()
    assert (body["state"], body["behind"]) == ("published", {"second": "it is down"})


async def test_a_package_is_imported_and_published(api: Api) -> None:
    """Every byte reaches the importer, the answer says what was sent, and the file is gone."""
    answer = await api.http.post("/api/v1/releases", content=PACKAGE)
    assert answer.status_code == 201, answer.text
    body = answer.json()
    assert (body["id"], body["state"], body["published_chunk_bytes"]) == ("gateway/1.1.0", "published", 4711)
    assert "wrapped_key" not in body
    assert api.seen.packages == [PACKAGE]
    assert api.seen.published == ["gateway/1.1.0"]
    assert incoming(api) == []
    assert (await api.http.get("/api/v1/releases/gateway/1.1.0")).json()["id"] == "gateway/1.1.0"


@pytest.mark.parametrize(
    ("error", "code", "exit_code"),
    [
        pytest.param(OperationError("package x: damaged"), 500, 1, id="damaged"),
        pytest.param(ConflictError("release gateway/1.1.0: another one is known"), 409, 5, id="another of that name"),
        pytest.param(TrustError(ErrorCode.SIGNATURE, "not signed"), 422, 1, id="not signed"),
    ],
)
async def test_a_refused_package_leaves_nothing(api: Api, error: Exception, code: int, exit_code: int) -> None:
    """The importer's sentence reaches the caller; nothing is published and no file stays."""
    api.seen.error = error
    answer = await api.http.post("/api/v1/releases", content=PACKAGE)
    assert (answer.status_code, answer.json()["exit_code"]) == (code, exit_code)
    assert str(error) in answer.json()["detail"]
    assert api.seen.published == []
    assert incoming(api) == []


async def test_a_mistake_of_ours_is_a_problem_too(api: Api) -> None:
    """What nobody foresaw is answered in one sentence without its insides."""
    api.seen.error = KeyError("secret detail")
    answer = await api.http.post("/api/v1/releases", content=PACKAGE)
    assert answer.status_code == 500
    assert answer.headers["content-type"] == "application/problem+json"
    assert "secret detail" not in answer.text
    assert incoming(api) == []


async def test_packages_are_taken_one_at_a_time(api: Api) -> None:
    """A second package meanwhile is a conflict: disk and memory have bounds."""
    api.seen.gate.clear()
    first = asyncio.create_task(api.http.post("/api/v1/releases", content=PACKAGE))
    async with asyncio.timeout(10):
        while not api.seen.packages:
            await asyncio.sleep(0.01)
    second = await api.http.post("/api/v1/releases", content=PACKAGE)
    assert (second.status_code, second.json()["exit_code"]) == (409, 5)
    api.seen.gate.set()
    assert (await first).status_code == 201


async def test_leftovers_of_a_killed_serve_are_removed(api: Api) -> None:
    """An upload that was cut off by a kill does not fill the disk for ever."""
    (api.services.home.incoming / "0123.incoming").write_bytes(b"half")
    await api.http.post("/api/v1/releases", content=PACKAGE)
    assert incoming(api) == []


async def test_an_upload_that_stands_still_is_given_up(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """A caller that sends nothing more holds neither the file nor the turn."""
    monkeypatch.setattr("orchestrator.web.routes_releases.IDLE_S", 0.05)

    async def stuck() -> AsyncIterator[bytes]:
        yield PACKAGE
        await asyncio.sleep(30)

    answer = await api.http.post("/api/v1/releases", content=stuck())
    assert answer.json()["exit_code"] == 1
    assert "stood still" in answer.json()["detail"]
    assert incoming(api) == []


async def test_releases_in_pages(api: Api) -> None:
    """Ids hold a slash; cursors carry them."""
    for version in ("1.0.0", "1.1.0", "2.0.0"):
        await store_release(api.db, "gateway", version)
    first = (await api.http.get("/api/v1/releases", params={"limit": 2})).json()
    assert first["next"] == "gateway/1.1.0"
    rest = (await api.http.get("/api/v1/releases", params={"cursor": first["next"]})).json()
    assert [item["id"] for item in rest["items"]] == ["gateway/2.0.0"]


async def test_an_unknown_release_is_not_found(api: Api) -> None:
    """Exit code 3."""
    answer = await api.http.get("/api/v1/releases/gateway/9.9.9")
    assert (answer.status_code, answer.json()["exit_code"]) == (404, 3)
