"""Trust metadata over the API."""

from tests.orchestrator.web.conftest import Api


async def test_metadata_is_handed_on_as_it_came(api: Api) -> None:
    """Every file, and whether it is a theft or only a question."""
    answer = await api.http.post("/api/v1/trust", json={"files": {"2.root.json": "{}"}, "check_only": True})
    assert (answer.status_code, answer.json()) == (200, {"versions": {"root": 2}, "kept": False})
    answer = await api.http.post("/api/v1/trust", json={"files": {"2.root.json": "{}"}, "stolen": True})
    assert answer.json()["kept"] is True
    assert api.seen.trust == [({"2.root.json": b"{}"}, False, True), ({"2.root.json": b"{}"}, True, False)]


async def test_a_director_key_in_use_is_a_conflict_with_counts(api: Api) -> None:
    """409 with the sentence and the exit code."""
    answer = await api.http.post("/api/v1/trust/leaving", json={"keyids": ["ab" * 32]})
    assert answer.status_code == 409
    assert answer.json()["detail"].startswith("director key abababababab: 1 announcements and 2 offers")
    assert answer.json()["exit_code"] == 5


async def test_what_is_no_key_id_or_no_file_is_refused(api: Api) -> None:
    """Before anything is read."""
    assert (await api.http.post("/api/v1/trust/leaving", json={"keyids": ["../x"]})).status_code == 422
    assert (await api.http.post("/api/v1/trust", json={"files": {}})).status_code == 422
    assert not api.seen.trust
