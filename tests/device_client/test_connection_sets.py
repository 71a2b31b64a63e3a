"""Ways to the fleet: the present one holds until the next one connected, whatever happens in between."""

from collections.abc import Callable
from pathlib import Path

import pytest

from device_client import connection_sets
from device_client.config import DeviceHome
from device_client.errors import StorageError
from device_client.identity_files import IdentityFiles
from protocol.enrolment import BrokerAddress, ConnectionTarget, MirrorAddress
from tests.device_client.identities import BROKERS, TestCa, enrolled

DiesAt = Callable[[int, Path, Callable[[], object]], bool]
CA, NEW_CA = TestCa(), TestCa("new")


@pytest.fixture
def home(tmp_path: Path) -> DeviceHome:
    """An enrolled device."""
    return enrolled(tmp_path / "home", CA)


def target(version: int = 1, host: str = "new.example") -> ConnectionTarget:
    """A signed way."""
    return ConnectionTarget(
        fleet="north", version=version, ca=NEW_CA.pem, brokers=[BrokerAddress(host=host, port=8883)]
    )


def test_a_way_on_trial_and_then_in_use(home: DeviceHome) -> None:
    """Both are there until the new one connected; then the old CA counts no more."""
    present = connection_sets.present(home)
    assert (present.brokers, present.ca) == (BROKERS, IdentityFiles(home).ca)
    assert connection_sets.on_trial(home) is None
    name = connection_sets.offer(home, target())
    assert name and not connection_sets.offer(home, target())
    on_trial = connection_sets.on_trial(home)
    assert on_trial is not None and on_trial.ca.read_text() == NEW_CA.pem
    assert connection_sets.present(home) == present
    connection_sets.adopt(home, name)
    assert connection_sets.present(home) == on_trial
    assert connection_sets.on_trial(home) is None
    assert not connection_sets.offer(home, target())


def test_a_later_way_takes_the_place_of_one_on_trial(home: DeviceHome) -> None:
    """The one that never connected is gone when the later one did."""
    first = connection_sets.offer(home, target(1, "nowhere.example"))
    second = connection_sets.offer(home, target(2))
    connection_sets.adopt(home, first)  # too late: it is not on trial any more
    assert connection_sets.present(home).name == ""
    connection_sets.adopt(home, second)
    assert sorted(path.name for path in home.connections.iterdir()) == sorted([second, "current"])


def test_mirrors_come_with_the_way(home: DeviceHome) -> None:
    """None with this enrolment; those that were signed count with the way that they were signed with."""
    assert list(connection_sets.present(home).mirrors) == []
    mirrors = [MirrorAddress(url="https://m.example", ca="system")]
    connection_sets.adopt(home, connection_sets.offer(home, target().model_copy(update={"mirrors": mirrors})))
    assert list(connection_sets.present(home).mirrors) == mirrors


def test_a_move_cut_off_anywhere(tmp_path: Path, dies_at: DiesAt) -> None:
    """There is always a present way with its CA, and the move goes on from there."""
    for number in range(200):
        home = enrolled(tmp_path / str(number), CA)

        def move(home: DeviceHome = home) -> None:
            name = connection_sets.offer(home, target())
            on_trial = connection_sets.on_trial(home)
            if on_trial is not None:
                connection_sets.adopt(home, name or on_trial.name)

        cut = dies_at(number, home.path, move)
        assert connection_sets.present(home).ca.read_text() in (CA.pem, NEW_CA.pem)
        move()
        assert connection_sets.present(home).ca.read_text() == NEW_CA.pem
        assert connection_sets.on_trial(home) is None
        if not cut:
            assert number > 8
            return
    pytest.fail("the move never ended")


def test_a_damaged_way(home: DeviceHome) -> None:
    """One sentence that says what to remove."""
    name = connection_sets.offer(home, target())
    (home.connections / name / "connection.json").write_text("{")
    with pytest.raises(StorageError, match="remove it and its links"):
        connection_sets.on_trial(home)
