"""Warnings of a running home: gauges, log lines, and the doctor's lines and exit codes."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from orchestrator.cli.init import HomePlan, initialise
from orchestrator.cli.main import main
from orchestrator.config import Home
from orchestrator.errors import OperationError
from orchestrator.expiries import expiring_in
from orchestrator.expiry_watch import ExpiryWatch
from orchestrator.metrics import Metrics
from orchestrator.web.routes_metrics import is_loopback
from protocol.clock import ManualClock
from tests.orchestrator.publisher.workshop import make_publisher


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """A new home."""
    return initialise(tmp_path_factory.mktemp("expiring") / "home", HomePlan("harbour", ("gateway",)))


def test_everything_that_runs_out_is_known(home: Home) -> None:
    """Each role with metadata, both authorities, every certificate of a service; what ends first, first."""
    found = expiring_in(home)
    assert found[0].name == "timestamp"
    assert {thing.name for thing in found} == {
        *("root", "targets", "snapshot", "timestamp", "releases-gateway"),
        *("devices-ca", "services-ca", "claims-ca", "broker", "orch-delivery", "orch-ingest", "viewer"),
    }


async def test_a_line_once_per_threshold_and_day_and_gauges_always(home: Home) -> None:
    """Snapshot and releases reach 30 days first; a second look that day is silent, the next day is not."""
    clock, metrics = ManualClock(datetime.now(UTC)), Metrics()
    watch = ExpiryWatch(home, metrics, clock)

    async def said() -> list[tuple[str, str]]:
        with capture_logs() as logs:
            await watch.look()
        return sorted((line["what"], line["threshold"]) for line in logs if line["event"] == "expiry is near")

    assert await said() == []
    clock.advance(62 * 86_400)
    near = [("releases-gateway", "30 days"), ("snapshot", "30 days"), ("timestamp", "expired")]
    assert await said() == near
    assert await said() == []
    clock.advance(86_400)
    assert await said() == near
    text = metrics.render().decode()
    assert 'flagship_expiry_level{kind="role",name="snapshot"} 1.0' in text
    assert 'flagship_expiry_level{kind="role",name="timestamp"} 4.0' in text
    assert 'flagship_expires_timestamp_seconds{kind="certificate",name="broker"}' in text


def test_the_doctor_of_a_new_home(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    """All is well: exit code 0, a line for each thing."""
    assert main(["doctor", "--home", str(home.path)]) == 0
    assert capsys.readouterr().out.count("ok ") == 12


@pytest.mark.parametrize(("age", "code", "state"), [(65, 1, "warn"), (200, 1, "FAIL")])
def test_the_doctor_of_an_old_home(
    home: Home, tmp_path: Path, capsys: pytest.CaptureFixture[str], age: int, code: int, state: str
) -> None:
    """Metadata that nobody renewed: the timestamp has expired, the rest follows."""
    place = tmp_path / "old"
    make_publisher(place, start=datetime.now(UTC) - timedelta(days=age))
    for name in ("config.toml", "ca", "tls"):
        (place / name).symlink_to(home.path / name)
    assert main(["doctor", "--home", str(place), "-o", "json"]) == code
    rows = {row["check"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["role snapshot"]["state"] == state
    assert rows["role timestamp"]["state"] == "FAIL"
    assert rows["certificate broker"]["state"] == "ok"


def test_the_doctor_of_something_soon_due(home: Home, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing has expired, something will: 7, a person must act."""
    place = tmp_path / "soon"
    make_publisher(place, start=datetime.now(UTC) - timedelta(days=6, hours=1))
    for name in ("config.toml", "ca", "tls"):
        (place / name).symlink_to(home.path / name)
    assert main(["doctor", "--home", str(place)]) == 7
    assert "warn  role timestamp expires" in capsys.readouterr().out


@pytest.mark.parametrize("harm", ["1.root.json", "timestamp.json"])
def test_a_damaged_home_is_broken(home: Home, tmp_path: Path, capsys: pytest.CaptureFixture[str], harm: str) -> None:
    """Which file, and what to do."""
    place = tmp_path / "damaged"
    make_publisher(place, start=datetime.now(UTC))
    (place / "config.toml").symlink_to(home.path / "config.toml")
    (place / "trust" / harm).write_text("{}")
    with pytest.raises(OperationError, match=f"{harm}: expected TUF metadata; restore it"):
        expiring_in(Home(place))
    assert main(["doctor", "--home", str(place)]) == 1
    assert f"FAIL  {place}/trust/{harm}" in capsys.readouterr().out


def test_what_is_loopback() -> None:
    """There /metrics needs no token; anywhere else it does."""
    assert [is_loopback(host) for host in ("127.0.0.1", "::1", "localhost", "0.0.0.0", "10.0.0.1", "example.org")] == [
        *(True, True, True, False, False, False)
    ]
