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


async def test_metrics_say_how_each_broker_stands(api: Api) -> None:
    """Reached or not, and what it does not have yet."""
    for connected, value in ((True, "1.0"), (False, "0.0")):
        api.seen.connected = connected
        text = (await api.http.get("/metrics")).text
        assert f'flagship_broker_connected{{broker="main"}} {value}' in text
    assert 'flagship_broker_behind{broker="main",what="topics"} 3.0' in text
    assert 'flagship_broker_behind{broker="main",what="releases"} 1.0' in text
