"""Nobody without a token passes the door, and nothing larger than its bound."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from orchestrator.errors import NotAllowedError, NotFoundError
from orchestrator.web.auth import MAX_BODY_BYTES, read_token
from orchestrator.web.failure_limit import MAX_FAILURES
from orchestrator.web.routes_plans import MAX_PLAN_BYTES
from tests.orchestrator.web.conftest import MAX_PACKAGE_BYTES, Api

ROUTES = [
    ("GET", "/api/v1/status"), ("GET", "/api/v1/events"), ("GET", "/api/v1/devices"), ("POST", "/api/v1/devices"),
    ("GET", "/api/v1/devices/d"), ("GET", "/api/v1/groups"), ("POST", "/api/v1/groups"), ("GET", "/api/v1/groups/g"),
    ("PUT", "/api/v1/groups/g/devices/d"), ("DELETE", "/api/v1/groups/g/devices/d"),
    ("POST", "/api/v1/releases"), ("GET", "/api/v1/releases"), ("GET", "/api/v1/releases/p/1"),
    ("POST", "/api/v1/rollouts"), ("GET", "/api/v1/rollouts"), ("POST", "/api/v1/rollouts/r-1/halt"),
    ("POST", "/api/v1/devices/d/revoke"), ("POST", "/api/v1/claims"), ("POST", "/api/v1/trust"),
    ("GET", "/api/v1/tokens"), ("POST", "/api/v1/tokens"), ("POST", "/api/v1/tokens/anna/revoke"),
    ("GET", "/api/v1/openapi.json"), ("GET", "/api/v1/nothing"),
    ("GET", "/"), ("GET", "//api/v1/status"), ("GET", "/healthz/"),
]  # fmt: skip


async def test_every_route_asks_for_the_token(api: Api) -> None:
    """Without a token no route answers, not even that it does not exist."""
    for method, path in ROUTES:
        answer = await api.http.request(method, path, headers={"Authorization": ""})
        assert answer.status_code == 401, f"{method} {path}"
        assert answer.headers["www-authenticate"] == "Bearer", f"{method} {path}"
        assert answer.json()["exit_code"] == 4, f"{method} {path}"


async def test_every_route_knows_tokens(api: Api) -> None:
    """One that is wrong or was revoked opens none; one with a name opens what the admin's does, but for tokens.

    Nor does a token open anything from where it does not belong.
    """
    anna, ben = await api.make_token("anna"), await api.make_token("ben")
    assert (await api.http.post("/api/v1/tokens/ben/revoke")).status_code == 200
    for route in sorted(ROUTES, key=lambda route: route[1].endswith("anna/revoke")):  # with that, anna's opens no more
        await _knows_tokens(api, *route, anna=anna, ben=ben)


async def _knows_tokens(api: Api, method: str, path: str, *, anna: dict[str, str], ben: dict[str, str]) -> None:
    where = f"{method} {path}"
    for headers in (ben, {"Authorization": "Bearer flt_wrong"}):
        refused = await api.http.request(method, path, headers=headers)
        assert (refused.status_code, refused.json()["exit_code"]) == (401, 4), where
        assert refused.headers["www-authenticate"] == "Bearer", where
    secret = anna["Authorization"].removeprefix("Bearer ")
    url = f"{path}?token={secret}&access_token={secret}"
    misplaced = await api.http.request(method, url, headers={"Authorization": "", "Cookie": f"token={secret}"})
    assert misplaced.status_code == 401, where
    words: dict[str, Any] = {"json": {"name": "carl"}} if path == "/api/v1/tokens" and method == "POST" else {}
    for_admin = method == "POST" and path.startswith("/api/v1/tokens")
    named = await api.http.request(method, path, headers=anna, **words)
    assert (named.status_code == 403) if for_admin else (named.status_code not in {401, 403, 429}), where
    admin = await api.http.request(method, path, **words)
    assert admin.status_code not in {401, 403, 429}, where


async def test_guessers_are_told_to_wait(api: Api) -> None:
    """By an address; the sentence and the header say how long, and the exit code is that of a refused token."""
    for number in range(MAX_FAILURES):
        guess = await api.http.get("/api/v1/status", headers={"Authorization": f"Bearer guess-{number}"})
        assert guess.status_code == 401
    late = await api.http.get("/api/v1/status", headers={"Authorization": "Bearer another"})
    assert (late.status_code, late.json()["exit_code"], late.headers["retry-after"]) == (429, 4, "60")
    assert "try again in 60 s" in late.json()["detail"]
    transport = httpx.ASGITransport(api.app, client=("192.0.2.7", 1))  # type: ignore[arg-type]
    async with httpx.AsyncClient(transport=transport, base_url="http://flagship") as elsewhere:
        answer = await elsewhere.get("/api/v1/status", headers={"Authorization": "Bearer another"})
    assert answer.status_code == 401


async def test_a_database_that_does_not_answer_lets_nobody_in(api: Api) -> None:
    """One sentence instead of an open door; the home's token needs no database."""
    async with api.db.begin() as conn:
        await conn.exec_driver_sql("DROP TABLE tokens")
    answer = await api.http.get("/api/v1/groups", headers={"Authorization": "Bearer flt_any"})
    assert (answer.status_code, answer.json()["exit_code"]) == (500, 1)
    assert "flt_any" not in answer.text
    assert (await api.http.get("/api/v1/groups")).status_code == 200


@pytest.mark.parametrize("words", ["Bearer", "Bearer ", "Bearer x", "Basic {}", "{}", "Bearer {}x", "Bearer \xff"])
async def test_only_the_token_itself_opens(api: Api, words: str) -> None:
    """What is nearly the token does not open the door."""
    token = api.services.home.admin_token.read_text().strip()
    headers = [(b"authorization", words.format(token).encode("latin-1"))]
    answer = await api.http.get("/api/v1/status", headers=headers)
    assert answer.status_code == 401


async def test_health_needs_no_token(api: Api) -> None:
    """Who only asks whether the process lives learns just that."""
    answer = await api.http.get("/healthz", headers={"Authorization": ""})
    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})


@pytest.mark.parametrize(
    ("path", "limit"),
    [("/api/v1/rollouts", MAX_PLAN_BYTES), ("/api/v1/groups", MAX_BODY_BYTES), ("/api/v1/releases", MAX_PACKAGE_BYTES)],
)
async def test_a_body_that_says_it_is_too_large_is_not_read(api: Api, path: str, limit: int) -> None:
    """The length is believed before a byte is read."""
    answer = await api.http.post(path, content=b"x", headers={"Content-Length": str(limit + 1)})
    assert answer.status_code == 413
    assert answer.headers["content-type"] == "application/problem+json"
    assert str(limit) in answer.json()["detail"]


@pytest.mark.parametrize("path", ["/api/v1/rollouts", "/api/v1/releases"])
async def test_a_body_without_an_announced_length_is_cut_off(api: Api, path: str) -> None:
    """A caller that hides how much it sends is stopped at the bound."""
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while sent < 2 * MAX_PACKAGE_BYTES:
            sent += 1 << 18
            yield b" " * (1 << 18)

    answer = await api.http.post(path, content=endless())
    assert answer.status_code == 413
    assert answer.json()["exit_code"] == 2
    assert sent <= MAX_PACKAGE_BYTES + (1 << 19)
    assert list(api.services.home.incoming.iterdir()) == []


def test_a_home_without_a_token_does_not_serve(tmp_path: Path) -> None:
    """An empty token would let everyone in."""
    with pytest.raises(NotFoundError):
        read_token(tmp_path / "admin.token")
    (tmp_path / "admin.token").write_text(" \n")
    with pytest.raises(NotAllowedError):
        read_token(tmp_path / "admin.token")


async def test_refusals_are_the_same_for_a_foreign_client(api: Api) -> None:
    """A wrong token tells nothing about the right one."""
    transport = httpx.ASGITransport(api.app)  # type: ignore[arg-type]
    async with httpx.AsyncClient(transport=transport, base_url="http://flagship") as stranger:
        answers = [
            (await stranger.get("/api/v1/status", headers={"Authorization": f"Bearer {word}"})).text
            for word in ("a", "a" * 43, "a" * 5000)
        ]
    assert len(set(answers)) == 1
