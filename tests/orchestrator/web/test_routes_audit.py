"""The audit log over the API."""

from sqlalchemy import text

from orchestrator.model.audit import AuditKind
from orchestrator.storage import audit
from tests.orchestrator.web.conftest import NOW, Api
from tests.orchestrator.web.test_routes_devices import enrol


async def fill(api: Api, count: int) -> None:
    """Orders behind the first entry."""
    async with api.seen.db.begin() as conn:
        for number in range(count):
            await audit.append(
                conn,
                AuditKind.ORDER,
                at=NOW,
                actor="ann",
                cause=f"order {number}",
                rollout=f"r-{number % 2}",
                figures={"number": number},
            )


async def test_pages_go_on_by_cursor(api: Api) -> None:
    """The oldest first, or the newest; of one rollout where one is named; without figures."""
    await fill(api, 5)
    first = (await api.http.get("/api/v1/audit", params={"limit": 4})).json()
    assert [entry["id"] for entry in first["items"]] == [1, 2, 3, 4] and first["next"] == "4"
    assert first["items"][1]["cause"] == "order 0" and "figures" not in first["items"][1]
    rest = (await api.http.get("/api/v1/audit", params={"limit": 4, "cursor": first["next"]})).json()
    assert [entry["id"] for entry in rest["items"]] == [5, 6] and rest["next"] == ""
    newest = (await api.http.get("/api/v1/audit", params={"limit": 2, "newest": "true"})).json()
    assert [entry["id"] for entry in newest["items"]] == [6, 5]
    before = (
        await api.http.get("/api/v1/audit", params={"limit": 2, "newest": "true", "cursor": newest["next"]})
    ).json()
    assert [entry["id"] for entry in before["items"]] == [4, 3]
    of_one = (await api.http.get("/api/v1/audit", params={"rollout": "r-1"})).json()
    assert [entry["cause"] for entry in of_one["items"]] == ["order 1", "order 3"]


async def test_one_entry_has_its_figures(api: Api) -> None:
    """One that is not there is 404, wrong words are refused."""
    await fill(api, 1)
    found = (await api.http.get("/api/v1/audit/2")).json()
    assert (found["figures"], found["actor"], found["at"]) == ({"number": 0}, "ann", "2026-11-23T12:00:00Z")
    assert (await api.http.get("/api/v1/audit/3")).status_code == 404
    for path in ("/audit/0", "/audit/x", "/audit?cursor=x", "/audit?rollout=a/b", "/audit?limit=0"):
        assert (await api.http.get(f"/api/v1{path}")).status_code == 422, path


async def test_a_damaged_entry_is_a_sentence(api: Api) -> None:
    """Which says what finds out more."""
    async with api.seen.db.begin() as conn:
        await conn.execute(text("DROP TRIGGER audit_no_update"))
        await conn.execute(text("UPDATE audit SET body = x'00' WHERE id = 1"))
    found = await api.http.get("/api/v1/audit/1")
    assert found.status_code == 500 and "flagship audit verify" in found.json()["detail"]


async def test_what_a_person_orders_elsewhere_stands_in_the_log_too(api: Api) -> None:
    """Groups and tokens here; each with its actor, and its event's words."""
    await enrol(api, "a")
    await api.http.post("/api/v1/groups", json={"name": "ward", "devices": ["a"]})
    await api.http.post("/api/v1/tokens", json={"name": "bob"})
    items = (await api.http.get("/api/v1/audit")).json()["items"]
    orders = [(item["actor"], item["cause"]) for item in items if item["kind"] == "order"]
    assert [actor for actor, _ in orders] == ["admin"] * len(orders)
    words = " ".join(cause for _, cause in orders)
    assert "ward" in words and "bob" in words and "a" in words
