"""The gauges, and who may read them."""

from tests.orchestrator.web.conftest import Api


async def test_metrics_on_loopback_need_no_token(api: Api) -> None:
    """A scraper on this machine must not be given the power of the admin."""
    api.http.headers.pop("authorization", None)
    answer = await api.http.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=")
    assert "flagship_expiry_level" in answer.text
    assert (await api.http.get("/api/v1/status")).status_code == 401
