"""Every refusal is problem+json with a sentence and an exit code."""

import pytest

from tests.orchestrator.web.conftest import Api


@pytest.mark.parametrize(
    ("method", "path", "content", "status", "exit_code"),
    [
        pytest.param("GET", "/api/v1/nothing", "", 404, 3, id="no such route"),
        pytest.param("DELETE", "/api/v1/status", "", 405, 1, id="no such method"),
        pytest.param("GET", "/nothing", "", 404, 3, id="outside the API"),
        pytest.param("POST", "/api/v1/groups", "{", 422, 2, id="half a document"),
        pytest.param("POST", "/api/v1/groups", "[]", 422, 2, id="not an object"),
        pytest.param("POST", "/api/v1/groups", "", 422, 2, id="no body"),
        pytest.param("POST", "/api/v1/groups", "\udcff", 400, 2, id="not text"),
        pytest.param("POST", "/api/v1/groups", "[" * 100_000, 400, 2, id="deeper than any parser goes"),
        pytest.param("GET", "/api/v1/devices/a%2Fb", "", 404, 3, id="a slash in disguise"),
        pytest.param("GET", "/api/v1/devices/%23", "", 422, 2, id="a wildcard in disguise"),
        pytest.param("GET", "/api/v1/devices/a%00b", "", 422, 2, id="a null byte"),
    ],
)
async def test_refusals_have_one_form(
    api: Api, method: str, path: str, content: str, status: int, exit_code: int
) -> None:
    """Title, status, detail in one line, exit code: whatever was wrong."""
    raw = content.encode("utf-8", "surrogateescape")
    answer = await api.http.request(method, path, content=raw, headers={"Content-Type": "application/json"})
    body = answer.json()
    assert answer.headers["content-type"] == "application/problem+json"
    assert set(body) == {"title", "status", "detail", "exit_code"}
    assert (answer.status_code, body["status"], body["exit_code"]) == (status, status, exit_code)
    assert body["detail"]
    assert "\n" not in body["detail"]


async def test_the_api_describes_itself(api: Api) -> None:
    """OpenAPI names every route and that a token is needed."""
    described = (await api.http.get("/api/v1/openapi.json")).json()
    assert "/api/v1/rollouts/{rollout}/{verb}" in described["paths"]
    assert described["components"]["securitySchemes"] == {"HTTPBearer": {"type": "http", "scheme": "bearer"}}
