"""Groups over HTTP: every change is whole."""

import pytest

from tests.orchestrator.web.conftest import Api
from tests.orchestrator.web.test_routes_devices import enrol


async def test_a_group_from_birth_to_change(api: Api) -> None:
    """Create, add, remove, list and show agree."""
    await enrol(api, "a", "b", "c")
    made = await api.http.post("/api/v1/groups", json={"name": "canary", "devices": ["a"]})
    assert (made.status_code, made.json()) == (201, {"name": "canary", "devices": ["a"]})
    await api.http.post("/api/v1/groups/canary/devices", json={"devices": ["a", "b"]})
    assert (await api.http.put("/api/v1/groups/canary/devices/c")).json()["devices"] == ["a", "b", "c"]
    assert (await api.http.delete("/api/v1/groups/canary/devices/a")).json()["devices"] == ["b", "c"]
    now = await api.http.post("/api/v1/groups/canary/devices/remove", json={"devices": ["b"]})
    assert now.json()["devices"] == ["c"]
    assert (await api.http.get("/api/v1/groups")).json() == {"items": [{"name": "canary", "devices": 1}], "next": ""}
    assert (await api.http.get("/api/v1/devices/c")).json()["groups"] == ["canary"]


@pytest.mark.parametrize(
    ("method", "path", "body", "code", "exit_code"),
    [
        pytest.param("POST", "groups", {"name": "canary"}, 409, 5, id="name taken"),
        pytest.param("POST", "groups", {"name": "new", "devices": ["a", "zz"]}, 404, 3, id="unknown first member"),
        pytest.param("POST", "groups", {"name": "a/b"}, 422, 2, id="hostile name"),
        pytest.param("POST", "groups", {"name": "g", "x": 1}, 422, 2, id="unknown field"),
        pytest.param("POST", "groups/canary/devices", {"devices": ["b", "zz"]}, 404, 3, id="unknown member"),
        pytest.param("POST", "groups/canary/devices", {"devices": []}, 422, 2, id="nobody"),
        pytest.param("POST", "groups/canary/devices/remove", {"devices": ["a", "b"]}, 404, 3, id="not in it"),
        pytest.param("GET", "groups/none", None, 404, 3, id="unknown group"),
        pytest.param("PUT", "groups/none/devices/a", None, 404, 3, id="member of an unknown group"),
    ],
)
async def test_a_refused_change_changes_nothing(
    api: Api, method: str, path: str, body: object, code: int, exit_code: int
) -> None:
    """All or none: what was refused for one device is not done for another."""
    await enrol(api, "a", "b")
    await api.http.post("/api/v1/groups", json={"name": "canary", "devices": ["a"]})
    answer = await api.http.request(method, f"/api/v1/{path}", json=body)
    assert (answer.status_code, answer.json()["exit_code"]) == (code, exit_code)
    assert (await api.http.get("/api/v1/groups")).json()["items"] == [{"name": "canary", "devices": 1}]
