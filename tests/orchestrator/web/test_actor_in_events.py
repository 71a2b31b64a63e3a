"""Whoever has a name acts under it: every change by HTTP is an event of that actor."""

from collections.abc import Iterable, Iterator
from typing import Any

from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.routing import BaseRoute

from orchestrator.web import auth
from tests.orchestrator.web.conftest import Api, store_release
from tests.orchestrator.web.requests_of_devices import enrolment_request
from tests.orchestrator.web.test_routes_rollouts import SPEC

CHANGES_NOTHING = {"/trust/leaving", "/rollouts/plan"}
"""POSTs that only ask."""


async def change(api: Api, actor: dict[str, str], path: str, body: Any = None, method: str = "POST") -> dict[str, Any]:
    """One change under a name."""
    answer = await api.http.request(method, f"/api/v1/{path}", json={} if body is None else body, headers=actor)
    assert answer.is_success, f"{path}: {answer.text}"
    found: dict[str, Any] = answer.json()
    return found


async def happened(api: Api) -> list[tuple[str, str]]:
    """(kind, actor) of every event but those of tokens."""
    events = (await api.http.get("/api/v1/events", params={"limit": 1000})).json()["items"]
    return [(event["kind"], event["actor"]) for event in events if not event["kind"].startswith("token_")]


def walk(routes: Iterable[BaseRoute]) -> Iterator[APIRoute]:
    """Routes of routers inside routers too."""
    for route in routes:
        if isinstance(route, APIRoute):
            yield route
        elif (router := getattr(route, "original_router", None)) is not None:
            yield from walk(router.routes)


def test_every_route_that_changes_something_asks_who(api: Api) -> None:
    """A route that forgets would write somebody else's name."""
    assert isinstance(api.app, FastAPI)
    changing = {
        route.path: [dependency.call for dependency in route.dependant.dependencies]
        for route in walk(api.app.routes)
        if (route.methods or set()) - {"GET", "HEAD"} and route.path not in CHANGES_NOTHING
    }
    assert len(changing) > 15
    assert [path for path, calls in changing.items() if auth._actor not in calls] == []


async def test_rollouts_are_ordered_by_somebody(api: Api) -> None:
    """Two people, two names: who submits and who starts can be told apart."""
    anna, ben = await api.make_token("anna"), await api.make_token("ben")
    await change(api, anna, "devices", {"requests": [enrolment_request("a"), enrolment_request("b")]})
    await store_release(api.db, "gateway", "1.1.0")
    await change(api, anna, "rollouts", {"spec": SPEC})
    before = len(await happened(api))
    verbs = ("start", "pause", "resume", "halt", "resume", "abort")
    for verb in verbs:
        await change(api, ben, f"rollouts/r-1/{verb}", {"reason": "why"})
    found = await happened(api)
    assert ("rollout_created", "anna") in found[:before]
    past = ("started", "paused", "resumed", "halted", "resumed", "aborted")
    assert found[before:] == [(f"rollout_{word}", "ben") for word in past]


async def test_devices_and_groups_are_changed_by_somebody(api: Api) -> None:
    """From enrolment to the end, and every change of a group; an event of a group names devices."""
    anna = await api.make_token("anna")
    requests = [enrolment_request(name) for name in ("a", "b", "c")]
    await change(api, anna, "devices", {"requests": requests})
    await change(api, anna, "devices", {"requests": requests[:1]})  # a new certificate
    await change(api, anna, "groups", {"name": "canary", "devices": ["a"]})
    await change(api, anna, "groups/canary/devices", {"devices": ["b", "c"]})
    await change(api, anna, "groups/canary/devices/remove", {"devices": ["a"]})
    await change(api, anna, "groups/canary/devices/a", method="PUT")
    await change(api, anna, "groups/canary/devices/b", method="DELETE")
    async with api.db.begin() as conn:
        await conn.exec_driver_sql("UPDATE devices SET duplicate_since = enrolled_at WHERE id = 'a'")
    await change(api, anna, "devices/a/clear-duplicate", {"reason": "one is gone"})
    await change(api, anna, "devices/a/revoke", {"reason": "stolen"})
    await change(api, anna, "devices/b/retire", {"reason": "sold"})
    assert await happened(api) == [
        (kind, "anna")
        for kind in (
            *["device_enrolled"] * 3, "certificate_issued", "group_created", "group_added", "group_removed",
            "group_added", "group_removed", "device_duplicate_cleared", "device_revoked", "device_retired",
        )
    ]  # fmt: skip
    events = (await api.http.get("/api/v1/events", params={"limit": 1000})).json()["items"]
    (added, _) = [event for event in events if event["kind"] == "group_added"]
    assert added["text"] == "group canary: added: b, c"
    assert added["data"] == {"group": "canary", "count": 2, "devices": ["b", "c"]}


async def test_claims_are_made_and_revoked_by_somebody(api: Api) -> None:
    """As is everything that lets devices in."""
    anna = await api.make_token("anna")
    csr = enrolment_request("x")["csr"]
    plan = {"name": "claim.batch", "csr": csr, "automatic": False, "life_s": 3600}
    await change(api, anna, "claims", plan | {"any_product": "gateway", "any_hardware": "rev-a"})
    await change(api, anna, "claims/claim.batch/revoke")
    assert await happened(api) == [("claim_created", "anna"), ("claim_revoked", "anna")]


async def test_releases_and_ceremonies_are_taken_in_for_somebody(api: Api) -> None:
    """Who publishes is told to the importer and to the keeper of trust."""
    anna = await api.make_token("anna")
    answer = await api.http.post("/api/v1/releases", content=b"package", headers=anna)
    assert answer.status_code == 201
    await change(api, anna, "trust", {"files": {"2.root.json": "{}"}})
    assert (api.seen.importers, api.seen.ceremonies) == (["anna"], ["anna"])
    assert await happened(api) == []


async def test_the_admin_is_an_actor_too(api: Api) -> None:
    """Under his own name."""
    await change(api, {}, "groups", {"name": "canary"})
    assert await happened(api) == [("group_created", "admin")]
