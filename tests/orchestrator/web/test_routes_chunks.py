"""Chunks over HTTP: no login, cacheable for ever, only of what is published; devices have a door for them alone."""

import asyncio
import contextlib
import hashlib
import ssl
from collections.abc import AsyncIterator

import httpx
import pytest
from sqlalchemy import update

from orchestrator.config import Home
from orchestrator.errors import ConflictError
from orchestrator.storage import releases, tables
from orchestrator.storage.chunk_store import ChunkStore
from orchestrator.storage.releases import IMPORTING, PUBLISHED, WITHDRAWN
from orchestrator.web.listening import listening, run_app
from orchestrator.web.routes_chunks import ChunksOnly
from tests.certificates import free_ports
from tests.orchestrator.web.conftest import Api, store_release

DATA = bytes(range(256)) * 12
CID = hashlib.sha256(DATA).hexdigest()
RELEASE = "gateway/1.1.0"


@pytest.fixture
async def stocked(api: Api) -> Api:
    """One published release of one chunk, asked without the admin's token."""
    await store_release(api.db, "gateway", "1.1.0")
    async with api.db.begin() as conn:
        await conn.execute(update(tables.release_chunks).values(cid=CID, length=len(DATA)))
    ChunkStore(api.services.home.chunks).put(CID, DATA)
    del api.http.headers["Authorization"]
    return api


async def test_a_chunk_is_served_to_everybody_and_kept_for_ever(stocked: Api) -> None:
    """No token; the headers let any cache keep it, and who has it already gets no byte."""
    answer = await stocked.http.get(f"/chunks/{CID}")
    assert (answer.status_code, answer.content) == (200, DATA)
    assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert answer.headers["content-type"] == "application/octet-stream"
    assert (answer.headers["etag"], answer.headers["content-length"]) == (f'"{CID}"', str(len(DATA)))
    for known in (f'"{CID}"', f'W/"{CID}"', f'"x", "{CID}"', "*"):
        again = await stocked.http.get(f"/chunks/{CID}", headers={"If-None-Match": known})
        assert (again.status_code, again.content) == (304, b"")
        assert again.headers["etag"] == f'"{CID}"'
    assert (await stocked.http.get(f"/chunks/{CID}", headers={"If-None-Match": '"x"'})).content == DATA
    assert (await stocked.http.get("/api/v1/releases")).status_code == 401


@pytest.mark.parametrize("name", ["0" * 64, CID.upper(), CID[:63], CID + "0", "..%2f" + CID, "%00", "x" * 5000])
async def test_what_is_no_published_chunk_is_not_there(stocked: Api, name: str) -> None:
    """Unknown or malformed: 404 before the disk is touched, and no cache remembers it."""
    answer = await stocked.http.get(f"/chunks/{name}")
    assert (answer.status_code, answer.headers.get("cache-control")) in {(404, "no-store"), (404, None)}


@pytest.mark.parametrize("state", [IMPORTING, WITHDRAWN])
async def test_only_published_releases_are_served(stocked: Api, state: str) -> None:
    """What is not published yet, or not any more, is not there; a second release with the chunk brings it back."""
    async with stocked.db.begin() as conn:
        await releases.set_state(conn, RELEASE, state)
    assert (await stocked.http.get(f"/chunks/{CID}")).status_code == 404
    async with stocked.db.begin() as conn:
        await releases.set_state(conn, RELEASE, PUBLISHED)
    assert (await stocked.http.get(f"/chunks/{CID}")).status_code == 200


async def test_damage_is_an_error_and_never_an_answer(stocked: Api) -> None:
    """A chunk whose bytes changed on the disk, or that is gone, is not handed out."""
    place = stocked.services.home.chunks / CID[:2] / CID
    place.write_bytes(b"damaged")
    answer = await stocked.http.get(f"/chunks/{CID}")
    assert (answer.status_code, answer.headers["cache-control"]) == (500, "no-store")
    place.unlink()
    assert (await stocked.http.get(f"/chunks/{CID}")).status_code == 500


async def test_writing_is_not_for_everybody(stocked: Api) -> None:
    """Only GET and HEAD come in without the token."""
    for method in ("POST", "PUT", "DELETE"):
        assert (await stocked.http.request(method, f"/chunks/{CID}")).status_code == 405


async def test_the_list_of_a_release_comes_in_pages(api: Api) -> None:
    """Every chunk once, in order, with its length."""
    await store_release(api.db, "gateway", "1.1.0")
    rows = [{"release": RELEASE, "cid": f"{number:064x}", "length": number} for number in range(1, 6)]
    async with api.db.begin() as conn:
        await conn.execute(tables.release_chunks.insert(), rows)
    found, cursor = [], ""
    while True:
        page = (await api.http.get(f"/api/v1/releases/{RELEASE}/chunks", params={"limit": 2, "cursor": cursor})).json()
        found += [(row["cid"], row["length"]) for row in page["items"]]
        cursor = page["next"]
        if not cursor:
            break
    assert found == [("0" * 64, 900)] + [(row["cid"], row["length"]) for row in rows]
    assert (await api.http.get("/api/v1/releases/gateway/9/chunks")).status_code == 404


@contextlib.asynccontextmanager
async def mirror(stocked: Api, port: int) -> AsyncIterator[httpx.AsyncClient]:
    """The devices' door over TLS, and a client that trusts the devices' CA."""
    home: Home = stocked.services.home
    app = ChunksOnly(stocked.db, ChunkStore(home.chunks))
    with listening("mirror", "127.0.0.1", port) as listener:
        task = asyncio.create_task(run_app(app, listener, certificate=home.certificate("broker")))
        context = ssl.create_default_context(cafile=str(home.devices_ca))
        try:
            async with httpx.AsyncClient(base_url=f"https://127.0.0.1:{port}", verify=context, trust_env=False) as http:
                yield http
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def test_the_door_for_devices_has_chunks_and_nothing_else(stocked: Api) -> None:
    """Over TLS with the fleet's certificate; the API is not behind it, with the admin's token neither."""
    port, _ = free_ports()
    async with mirror(stocked, port) as http:
        answer = await http.get(f"/chunks/{CID}")
        assert (answer.status_code, answer.content) == (200, DATA)
        head = await http.head(f"/chunks/{CID}")
        assert (head.status_code, head.content, head.headers["content-length"]) == (200, b"", str(len(DATA)))
        token = {"Authorization": f"Bearer {stocked.services.home.admin_token.read_text().strip()}"}
        for path in ("/api/v1/releases", "/healthz", "/metrics", "/", "/chunks/", f"/chunks/{CID}/x"):
            assert (await http.get(path, headers=token)).status_code == 404, path
        assert (await http.post(f"/chunks/{CID}", content=b"x")).status_code == 404


def test_a_port_that_is_taken_is_named() -> None:
    """One sentence with the section to change."""
    port, _ = free_ports()
    with (
        listening("api", "127.0.0.1", port),
        pytest.raises(ConflictError, match=r"mirror: cannot listen.*mirror\.port"),
        listening("mirror", "127.0.0.1", port),
    ):
        pass
