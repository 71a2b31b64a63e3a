"""Devices over HTTP: admitted together or not at all, listed in pages."""

from dataclasses import replace

import pytest

from orchestrator.model.device import Dropped
from orchestrator.storage import assignments, devices
from protocol.enrolment import EnrolmentAnswers
from tests.orchestrator.web.conftest import NOW, Api, store_release
from tests.orchestrator.web.requests_of_devices import enrolment_request


async def enrol(api: Api, *names: str, **labels: str) -> None:
    """Admit devices."""
    answer = await api.http.post(
        "/api/v1/devices", json={"requests": [enrolment_request(name, **labels) for name in names]}
    )
    assert answer.status_code == 201, answer.text


async def test_enrolment_answers_every_request(api: Api) -> None:
    """Each device gets its certificate, the CA, the root and the broker's address; no key is in it."""
    body = {"requests": [enrolment_request("gw-1", site="north"), enrolment_request("gw-2")]}
    answer = await api.http.post("/api/v1/devices", json=body)
    assert answer.status_code == 201
    answers = EnrolmentAnswers.model_validate(answer.json()).answers
    assert [one.device for one in answers] == ["gw-1", "gw-2"]
    assert {one.brokers[0].port for one in answers} == {api.services.settings.broker.device_port}
    assert "PRIVATE" not in answer.text
    shown = (await api.http.get("/api/v1/devices/gw-1")).json()
    assert (shown["labels"], shown["state"], shown["groups"], shown["updates"]) == (
        {"site": "north"},
        "enrolled",
        [],
        [],
    )
    assert "content_key" not in shown
    assert "report_key" not in shown


async def test_one_bad_request_admits_nobody(api: Api) -> None:
    """A command that fails leaves nothing half done."""
    bad = enrolment_request("gw-2") | {"content_key": "A" * 44}
    answer = await api.http.post("/api/v1/devices", json={"requests": [enrolment_request("gw-1"), bad]})
    assert answer.status_code == 422
    assert answer.json()["exit_code"] == 2
    assert "gw-2" in answer.json()["detail"]
    async with api.db.read() as conn:
        assert await devices.page(conn) == []


@pytest.mark.parametrize("name", ["a/b", "+", "#", "", "-a", "a" * 65, "a\n"])
async def test_a_hostile_id_is_refused(api: Api, name: str) -> None:
    """An id that could reach into another device's topics never gets into the database."""
    answer = await api.http.post("/api/v1/devices", json={"requests": [enrolment_request("x") | {"device": name}]})
    assert answer.status_code == 422
    assert "device" in answer.json()["detail"]


async def test_an_unknown_device_is_not_found(api: Api) -> None:
    """One sentence, exit code 3."""
    answer = await api.http.get("/api/v1/devices/nobody")
    assert (answer.status_code, answer.json()["exit_code"]) == (404, 3)
    assert "nobody" in answer.json()["detail"]


async def test_pages_hold_every_device_once(api: Api) -> None:
    """The cursor goes on where the page before ended; the last page has none."""
    names = [f"gw-{number}" for number in range(7)]
    await enrol(api, *names)
    found, cursor, pages = [], "", 0
    while pages == 0 or cursor:
        page = (await api.http.get("/api/v1/devices", params={"limit": 3, "cursor": cursor})).json()
        found += [device["id"] for device in page["items"]]
        cursor, pages = page["next"], pages + 1
    assert (found, pages) == (names, 3)


async def test_a_full_last_page_has_no_next(api: Api) -> None:
    """Nobody is sent to an empty page."""
    await enrol(api, "a", "b")
    assert (await api.http.get("/api/v1/devices", params={"limit": 2})).json()["next"] == ""


@pytest.mark.parametrize("limit", [0, -1, 1001, "x"])
async def test_a_page_has_bounds(api: Api, limit: object) -> None:
    """Nobody asks for the whole fleet in one page."""
    answer = await api.http.get("/api/v1/devices", params={"limit": str(limit)})
    assert (answer.status_code, answer.json()["exit_code"]) == (422, 2)


async def test_devices_of_a_group(api: Api) -> None:
    """A group narrows the list, page by page."""
    await enrol(api, "a", "b", "c", "d")
    await api.http.post("/api/v1/groups", json={"name": "canary", "devices": ["a", "c", "d"]})
    first = (await api.http.get("/api/v1/devices", params={"group": "canary", "limit": 2})).json()
    assert [device["id"] for device in first["items"]] == ["a", "c"]
    rest = (await api.http.get("/api/v1/devices", params={"group": "canary", "cursor": first["next"]})).json()
    assert [device["id"] for device in rest["items"]] == ["d"]
    assert (await api.http.get("/api/v1/devices", params={"group": "none"})).status_code == 404


async def test_explain_answers_in_sentences(api: Api) -> None:
    """What the device is, and that an asked rollout is not there."""
    await enrol(api, "gw-1")
    answer = await api.http.get("/api/v1/devices/gw-1/explain")
    assert answer.status_code == 200
    assert answer.json()["sentences"][0].startswith("gw-1 is gateway on")
    assert answer.json()["refusals"] == []
    api.seen.dropped["gw-1"] = Dropped("E_REPLAY", "", 2, NOW)
    answer = await api.http.get("/api/v1/devices/gw-1/explain")
    assert "2 reports were dropped" in answer.json()["sentences"][-1]
    assert (await api.http.get("/api/v1/devices/nobody/explain")).status_code == 404
    missing = await api.http.get("/api/v1/devices/gw-1/explain", params={"rollout": "r-9"})
    assert missing.status_code == 404
    assert "r-9" in missing.json()["detail"]


async def test_explain_shows_what_a_failed_update_wrote(api: Api) -> None:
    """The end of what its installer or check said; of one that goes well nothing is shown."""
    await enrol(api, "gw-1", "gw-2")
    await store_release(api.db, "gateway", "1.1.0")
    spec = {"release": "gateway/1.1.0", "stages": [{"name": "all", "percent": 100}]}
    assert (await api.http.post("/api/v1/rollouts", json={"spec": spec})).status_code == 201
    assert (await api.http.post("/api/v1/rollouts/r-1/start", json={})).status_code == 200
    async with api.db.begin() as conn:
        for name, state in (("gw-1", "rolled_back"), ("gw-2", "succeeded")):
            row = await assignments.get(conn, "r-1", name)
            assert row is not None
            after = replace(row, state=state, log="no route\nto host", offered_at=NOW)
            await assignments.save_all(conn, [(row, after)])
    found = (await api.http.get("/api/v1/devices/gw-1/explain")).json()["logs"]
    assert found == [{"rollout": "r-1", "attempt": 1, "log": "no route\nto host"}]
    assert (await api.http.get("/api/v1/devices/gw-2/explain")).json()["logs"] == []


@pytest.mark.parametrize("verb", ["revoke", "retire"])
async def test_closing_says_what_was_done_and_what_is_pending(api: Api, verb: str) -> None:
    """Keys forgotten, sends in flight over, everybody woken; the answer says what the broker has yet to do."""
    await enrol(api, "gw-1")
    api.seen.still_to_do = "broker main: no answer"
    answer = await api.http.post(f"/api/v1/devices/gw-1/{verb}", json={"reason": "stolen"})
    assert answer.status_code == 200
    body = answer.json()
    assert (body["state"], body["closed_reason"]) == (f"{verb}d", "stolen")
    assert (body["pending"], body["excluded_from"], body["session_ended_at"]) == ("broker main: no answer", [], None)
    assert (api.seen.forgotten, api.seen.barriers) == (["gw-1"], 1)
    assert api.seen.woken >= 2
    assert (await api.http.post("/api/v1/devices/gw-1/clear-duplicate", json={"reason": "x"})).status_code == 409
    assert (await api.http.post(f"/api/v1/devices/gw-1/{verb}", json={})).status_code == 422
    assert (await api.http.post(f"/api/v1/devices/nobody/{verb}", json={"reason": "x"})).status_code == 404


async def test_devices_are_listed_by_what_is_the_matter(api: Api) -> None:
    """Silent, stale, duplicate: in pages, with since when, and counted in the status."""
    names = ["a", "b", "c", "d"]
    await enrol(api, *names)
    async with api.db.begin() as conn:
        await conn.exec_driver_sql("UPDATE devices SET silent = 1 WHERE id <> 'd'")
        await conn.exec_driver_sql("UPDATE devices SET stale_since = heard_at WHERE id = 'd'")
    first = (await api.http.get("/api/v1/devices", params={"concern": "silent", "limit": 2})).json()
    assert [device["id"] for device in first["items"]] == ["a", "b"]
    assert all(device["silent_since"] for device in first["items"])
    rest = (await api.http.get("/api/v1/devices", params={"concern": "silent", "cursor": first["next"]})).json()
    assert [device["id"] for device in rest["items"]] == ["c"]
    stale = (await api.http.get("/api/v1/devices", params={"concern": "stale"})).json()["items"]
    assert [(device["id"], device["silent_since"]) for device in stale] == [("d", None)]
    status = (await api.http.get("/api/v1/status")).json()
    assert (status["silent"], status["stale"], status["duplicate"]) == (3, 1, 0)
    assert (await api.http.get("/api/v1/devices", params={"concern": "odd"})).status_code == 422
    assert (await api.http.get("/api/v1/devices", params={"concern": "stale", "group": "g"})).status_code == 422
