"""The fleet's figures and its events over HTTP."""

import pytest

from tests.orchestrator.web.conftest import Api
from tests.orchestrator.web.test_routes_devices import enrol


async def test_status_counts_the_fleet(api: Api) -> None:
    """The same figures as the status topic, and how each broker stands."""
    await enrol(api, "a", "b")
    api.seen.connected = False
    body = (await api.http.get("/api/v1/status")).json()
    assert (body["fleet"], body["devices"], body["online"]) == ("harbour", 2, 0)
    assert (body["halted"], body["broker_connected"]) == (False, False)
    standing = {"name": "main", "connected": False, "topics": 3, "releases": ["gateway/1.1.0"], "why": ""}
    assert body["brokers"] == [standing]


async def test_events_come_in_order_and_pages(api: Api) -> None:
    """The oldest first; a device's events alone where it is named."""
    await enrol(api, "a", "b")
    first = (await api.http.get("/api/v1/events", params={"limit": 1})).json()
    rest = (await api.http.get("/api/v1/events", params={"cursor": first["next"]})).json()
    assert [event["device"] for event in first["items"] + rest["items"]] == ["a", "b"]
    assert rest["next"] == ""
    of_b = (await api.http.get("/api/v1/events", params={"device": "b"})).json()["items"]
    assert [event["kind"] for event in of_b] == ["device_enrolled"]


@pytest.mark.parametrize("params", [{"cursor": "x"}, {"cursor": "-1"}, {"device": "a/b"}, {"limit": "0"}])
async def test_questions_that_make_no_sense_are_refused(api: Api, params: dict[str, str]) -> None:
    """Exit code 2."""
    answer = await api.http.get("/api/v1/events", params=params)
    assert (answer.status_code, answer.json()["exit_code"]) == (422, 2)
