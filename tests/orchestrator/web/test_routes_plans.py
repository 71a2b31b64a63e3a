"""Plans tried out over HTTP."""

from tests.orchestrator.web.conftest import Api, store_release
from tests.orchestrator.web.test_routes_devices import enrol
from tests.orchestrator.web.test_routes_rollouts import SPEC


async def test_a_plan_is_tried_out(api: Api) -> None:
    """The answer has everything, and there is no rollout afterwards."""
    await enrol(api, "a", "b", "c", "d")
    await store_release(api.db, "gateway", "1.1.0")
    woken = api.seen.woken
    answer = await api.http.post("/api/v1/rollouts/plan", json={"spec": SPEC})
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert found["stages"] == [{"name": "canary", "members": 1}, {"name": "all", "members": 3}]
    assert found["bytes_by_site"]["total_bytes"] == 4000
    assert (await api.http.get("/api/v1/rollouts")).json()["items"] == []
    assert api.seen.woken == woken


async def test_a_plan_that_cannot_be_is_refused(api: Api) -> None:
    """As it would be when it is created."""
    answer = await api.http.post("/api/v1/rollouts/plan", json={"spec": SPEC})
    assert (answer.status_code, answer.json()["exit_code"]) == (404, 3)
    answer = await api.http.post("/api/v1/rollouts/plan", json={"spec": {**SPEC, "pase": 1}})
    assert (answer.status_code, answer.json()["exit_code"]) == (422, 2)


async def test_a_large_plan_is_taken(api: Api) -> None:
    """Stages may list thousands of devices; what is larger than any plan is not read."""
    await enrol(api, "a")
    await store_release(api.db, "gateway", "1.1.0")
    ids = [f"{number:064}" for number in range(10_000)]
    stages = [{"name": name, "devices": ids} for name in ("one", "two")]
    for path in ("/api/v1/rollouts/plan", "/api/v1/rollouts"):
        answer = await api.http.post(path, json={"spec": {**SPEC, "stages": stages}})
        assert answer.status_code in (404, 409), answer.text
        answer = await api.http.post(path, json={"spec": {**SPEC, "stages": stages * 4}})
        assert answer.status_code == 413
