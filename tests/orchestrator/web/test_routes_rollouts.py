"""Rollouts over HTTP: a plan is taken whole, a verb only where it applies."""

from typing import Any

import pytest

from tests.orchestrator.web.conftest import Api, store_release
from tests.orchestrator.web.test_routes_devices import enrol

STAGES = [{"name": "canary", "percent": 25}, {"name": "all", "percent": 100}]
SPEC: dict[str, Any] = {"release": "gateway/1.1.0", "stages": STAGES}


async def make(api: Api, **words: Any) -> dict[str, Any]:
    """Four devices, a release and a rollout."""
    await enrol(api, "a", "b", "c", "d")
    await store_release(api.db, "gateway", "1.1.0")
    answer = await api.http.post("/api/v1/rollouts", json={"spec": SPEC, **words})
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made


async def order(api: Api, verb: str, reason: str = "") -> tuple[int, dict[str, Any]]:
    """Give an order to r-1."""
    answer = await api.http.post(f"/api/v1/rollouts/r-1/{verb}", json={"reason": reason} if reason else {})
    return answer.status_code, answer.json()


async def test_a_plan_becomes_a_draft_with_members(api: Api) -> None:
    """Members are placed in stages; the id is the next one; nothing runs."""
    made = await make(api)
    assert (made["id"], made["state"]) == ("r-1", "draft")
    assert [(stage["name"], stage["members"]) for stage in made["stages"]] == [("canary", 1), ("all", 3)]
    assert (await api.http.get("/api/v1/rollouts/r-1")).json() == made
    assert [item["id"] for item in (await api.http.get("/api/v1/rollouts")).json()["items"]] == ["r-1"]


async def test_a_plan_may_have_a_name(api: Api) -> None:
    """An id that is given is taken, once."""
    assert (await make(api, id="spring"))["id"] == "spring"
    again = await api.http.post("/api/v1/rollouts", json={"spec": SPEC, "id": "spring"})
    assert (again.status_code, again.json()["exit_code"]) == (409, 5)


async def test_the_verbs(api: Api) -> None:
    """Every verb leads where the design says, and wakes engine and delivery."""
    await make(api)
    woken = api.seen.woken
    for verb, reason, state in (
        ("start", "the line is free", "running"),
        ("pause", "", "paused"),
        ("resume", "", "running"),
        ("halt", "smoke", "halted"),
        ("resume", "was a kettle", "running"),
        ("abort", "", "aborted"),
    ):
        status, body = await order(api, verb, reason)
        assert (status, body["state"]) == (200, state)
        assert api.seen.woken > woken
        woken = api.seen.woken
    told = (await api.http.get("/api/v1/events?rollout=r-1")).json()["items"]
    assert "started: the line is free" in [event["text"] for event in told]
    kinds = [event["kind"] for event in told]
    assert kinds == [
        "rollout_created", "rollout_started", "rollout_paused", "rollout_resumed", "rollout_halted",
        "rollout_resumed", "rollout_aborted",
    ]  # fmt: skip


async def test_a_halt_is_answered_when_sends_have_ended(api: Api) -> None:
    """Halt and abort wait at delivery's barrier; pause does not."""
    await make(api)
    await order(api, "start")
    await order(api, "pause")
    assert api.seen.barriers == api.seen.anchor.woken == 0
    await order(api, "halt")
    assert api.seen.barriers == api.seen.anchor.woken == 1
    await order(api, "abort")
    assert api.seen.barriers == api.seen.anchor.woken == 2


async def test_a_halt_names_the_brokers_that_were_cut_off_for_it(api: Api) -> None:
    """They did not answer; all else is told as ever."""
    await make(api)
    await order(api, "start")
    api.seen.cut = ["second"]
    answer = await api.http.post("/api/v1/rollouts/r-1/halt", json={})
    assert (answer.json()["state"], answer.json()["brokers_cut"]) == ("halted", ["second"])


async def test_orders_out_of_place_are_conflicts(api: Api) -> None:
    """A verb that the state does not allow changes nothing; a halt is not undone without a reason."""
    await make(api)
    assert (await order(api, "pause"))[1]["exit_code"] == 5
    await order(api, "start")
    assert (await order(api, "start"))[0] == 409
    await order(api, "halt", "smoke")
    status, body = await order(api, "resume")
    assert (status, body["exit_code"]) == (422, 2)
    assert "--reason" in body["detail"]
    assert (await api.http.get("/api/v1/rollouts/r-1")).json()["state"] == "halted"


@pytest.mark.parametrize(
    ("change", "code", "exit_code", "says"),
    [
        pytest.param({"release": "gateway/9.9.9"}, 404, 3, "gateway/9.9.9", id="unknown release"),
        pytest.param({"release": "gateway"}, 422, 2, "product/version", id="no release name"),
        pytest.param({"members": {"group": "none"}}, 404, 3, "group none", id="unknown group"),
        pytest.param({"members": {"selector": "site=="}}, 422, 2, "at character", id="selector that does not parse"),
        pytest.param({"members": {"selector": "site=mars"}}, 409, 5, "no member", id="nobody fits"),
        pytest.param({"stages": []}, 422, 2, "stages", id="no stage"),
        pytest.param({"stages": [{"name": "x", "percent": 50}]}, 422, 2, "add up to 50%", id="ends below 100 %"),
        pytest.param(
            {"stages": [{"name": "x", "selector": "id=zz"}, STAGES[1]]}, 409, 5, "x is empty", id="empty stage"
        ),
        pytest.param(
            {"stages": [{"name": "x", "percent": 5, "group": "g"}]}, 422, 2, "one of", id="two kinds of stage"
        ),
        pytest.param({"success_ratio": 0}, 422, 2, "success_ratio", id="success of nothing"),
        pytest.param({"soak": 5}, 422, 2, "soak", id="misspelt rule"),
        pytest.param({"start_at": "2026-12-01T03:00:00"}, 422, 2, "start_at", id="start without a zone"),
    ],
)
async def test_a_plan_that_makes_no_sense_is_refused(
    api: Api, change: dict[str, Any], code: int, exit_code: int, says: str
) -> None:
    """One sentence that names the place; no rollout is left behind."""
    await enrol(api, "a", "b")
    await store_release(api.db, "gateway", "1.1.0")
    answer = await api.http.post("/api/v1/rollouts", json={"spec": {**SPEC, **change}})
    body = answer.json()
    assert (answer.status_code, body["exit_code"]) == (code, exit_code)
    assert says in body["detail"]
    assert "\n" not in body["detail"]
    assert (await api.http.get("/api/v1/rollouts")).json()["items"] == []


async def test_endless_times_are_refused(api: Api) -> None:
    """JSON as some write it has Infinity; a soak without an end would never open the next stage."""
    text = '{"spec": {"release": "gateway/1.1.0", "stages": [{"name": "a", "percent": 100}], "soak_s": Infinity}}'
    answer = await api.http.post("/api/v1/rollouts", content=text, headers={"Content-Type": "application/json"})
    assert answer.status_code == 422
    assert "soak_s" in answer.json()["detail"]


@pytest.mark.parametrize("path", ["rollouts/r-9", "rollouts/r-9/start"])
async def test_an_unknown_rollout_is_not_found(api: Api, path: str) -> None:
    """Exit code 3, and the id that was asked for."""
    method = "POST" if path.endswith("start") else "GET"
    answer = await api.http.request(method, f"/api/v1/{path}", json={} if method == "POST" else None)
    assert (answer.status_code, answer.json()["exit_code"]) == (404, 3)
    assert "r-9" in answer.json()["detail"]


async def test_an_unknown_verb_is_refused(api: Api) -> None:
    """There are five verbs."""
    assert (await order(api, "explode"))[0] == 422


async def test_orders_for_a_medium_are_asked_for_by_name(api: Api) -> None:
    """Misspelt words are refused; what the signer refuses is said as it said it; nothing is written then."""
    await make(api)
    await order(api, "start")
    for body in ({}, {"devices": [], "life_s": 1}, {"devices": ["a"], "life_s": 0}, {"devices": ["a"], "until": "30d"}):
        assert (await api.http.post("/api/v1/rollouts/r-1/offline", json=body)).status_code == 422
    answer = await api.http.post("/api/v1/rollouts/r-1/offline", json={"devices": ["z"], "life_s": 60})
    assert (answer.status_code, answer.json()["exit_code"]) == (404, 3)
    long = {"devices": ["a", "b", "c", "d"], "life_s": 60}
    answer = await api.http.post("/api/v1/rollouts/r-1/offline", json=long)
    assert (answer.status_code, answer.json()["exit_code"]) == (409, 5)
    assert "has not begun" in answer.json()["detail"]


async def test_four_eyes_over_http(api: Api) -> None:
    """Who submitted it is known by the token; the same one may not approve."""
    await make(api, spec={**SPEC, "needs_approval": True})
    assert (await order(api, "start"))[0] == 409
    assert (await order(api, "submit"))[1]["state"] == "awaiting_approval"
    status, body = await order(api, "approve")
    assert (status, body["exit_code"]) == (403, 4)
    assert "was submitted by admin; another person approves it" in body["detail"]


async def test_an_order_for_another_version_is_refused(api: Api) -> None:
    """Somebody changed it since: nothing happens, and it says so."""
    made = await make(api)
    await order(api, "start")
    answer = await api.http.post("/api/v1/rollouts/r-1/pause", json={"version": made["version"]})
    assert (answer.status_code, answer.json()["exit_code"]) == (409, 5)
    assert "somebody changed it since" in answer.json()["detail"]


async def test_the_fleet_is_halted_and_lifted(api: Api) -> None:
    """The latch says who, when and why; it is lifted with a reason."""
    await make(api)
    await order(api, "start")
    assert (await api.http.get("/api/v1/fleet/halt")).json() == {"halted": False}
    halted = await api.http.post("/api/v1/fleet/halt", json={"reason": "smoke"})
    assert halted.json() | {"at": ""} == {
        "halted": True, "at": "", "by": "admin", "reason": "smoke", "rollouts": ["r-1"], "brokers_cut": [],
    }  # fmt: skip
    assert (await api.http.get("/api/v1/fleet/halt")).json()["reason"] == "smoke"
    assert (await api.http.post("/api/v1/fleet/lift", json={})).status_code == 422
    assert (await api.http.post("/api/v1/fleet/lift", json={"reason": "kettle"})).json()["rollouts"] == ["r-1"]


async def test_a_clone_and_a_revert(api: Api) -> None:
    """A clone is a draft of the same plan; what updated nobody has nothing to take back."""
    await make(api)
    cloned = await api.http.post("/api/v1/rollouts/r-1/clone", json={})
    assert (cloned.status_code, cloned.json()["id"], cloned.json()["state"]) == (201, "r-2", "draft")
    await order(api, "start")
    refused = await api.http.post("/api/v1/rollouts/r-1/revert", json={})
    assert (refused.status_code, refused.json()["exit_code"]) == (409, 5)
    assert "no device can go back: none was updated by it" in refused.json()["detail"]
