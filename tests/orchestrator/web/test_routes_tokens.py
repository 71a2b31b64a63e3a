"""Tokens over HTTP: shown once, listed without a secret, made and revoked by the admin."""

import json

from structlog.testing import capture_logs

from orchestrator.fleet.tokens import digest
from tests.orchestrator.web.conftest import Api


async def test_a_token_is_shown_once(api: Api) -> None:
    """The answer is for no cache; neither a token nor its digest stands in lists, events or logs."""
    with capture_logs() as logs:
        answer = await api.http.post("/api/v1/tokens", json={"name": "anna"})
        made = answer.json()
        secret = made.pop("token")
        assert (answer.status_code, answer.headers["cache-control"]) == (201, "no-store")
        assert (made["name"], made["created_by"], made["revoked_at"]) == ("anna", "admin", None)
        headers = {"Authorization": f"Bearer {secret}"}
        said = [(await api.http.get(f"/api/v1/{path}", headers=headers)).text for path in ("tokens", "events")]
        again = await api.http.post("/api/v1/tokens", json={"name": "anna"})
        said += [again.text, (await api.http.post("/api/v1/tokens/anna/revoke")).text]
        said.append((await api.http.get("/api/v1/status", headers=headers)).text)
    assert (again.status_code, again.json()["exit_code"]) == (409, 5)
    assert json.loads(said[0])["items"] == [{**made, "last_used_at": made["created_at"]}]
    for hidden in (secret, digest(secret.encode())):
        assert hidden not in f"{said} {logs}"


async def test_tokens_are_listed_in_pages(api: Api) -> None:
    """By name, revoked ones too; whoever has a name may look."""
    headers = await api.make_token("b")
    await api.make_token("a")
    await api.make_token("c")
    await api.http.post("/api/v1/tokens/a/revoke")
    first = (await api.http.get("/api/v1/tokens", params={"limit": 2}, headers=headers)).json()
    assert [(item["name"], item["revoked_at"] is None) for item in first["items"]] == [("a", False), ("b", True)]
    rest = (await api.http.get("/api/v1/tokens", params={"cursor": first["next"]}, headers=headers)).json()
    assert ([item["name"] for item in rest["items"]], rest["next"]) == (["c"], "")


async def test_a_named_token_makes_and_revokes_none(api: Api) -> None:
    """403 with a sentence that says who may and who asked."""
    anna = await api.make_token("anna")
    for path, body in (("tokens", {"name": "second"}), ("tokens/anna/revoke", None)):
        answer = await api.http.post(f"/api/v1/{path}", json=body, headers=anna)
        assert (answer.status_code, answer.json()["exit_code"]) == (403, 4)
        assert "only the home's admin token" in answer.json()["detail"] and "anna" in answer.json()["detail"]
    assert (await api.http.get("/api/v1/tokens", headers=anna)).status_code == 200


async def test_a_revoked_token_is_refused_by_the_next_request(api: Api) -> None:
    """No moment passes, although the door knew it just now."""
    anna, ben = await api.make_token("anna"), await api.make_token("ben")
    for headers in (anna, ben):
        assert (await api.http.get("/api/v1/status", headers=headers)).status_code == 200
    assert (await api.http.post("/api/v1/tokens/anna/revoke")).json()["revoked_at"]
    assert (await api.http.get("/api/v1/status", headers=anna)).status_code == 401
    assert (await api.http.get("/api/v1/status", headers=ben)).status_code == 200


async def test_names_that_are_none(api: Api) -> None:
    """Reserved, not an id, or unknown: refused with the code of its kind."""
    for name, status in (("admin", 422), ("engine", 422), ("a b", 422), ("", 422), ("x" * 65, 422), ("flt_x", 422)):
        assert (await api.http.post("/api/v1/tokens", json={"name": name})).status_code == status
    assert (await api.http.post("/api/v1/tokens", json={"name": "a", "role": "admin"})).status_code == 422
    assert (await api.http.post("/api/v1/tokens/nobody/revoke")).status_code == 404
    assert (await api.http.get("/api/v1/tokens")).json()["items"] == []
