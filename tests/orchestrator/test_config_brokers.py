"""The list of brokers in ``config.toml``, and what devices are told of it."""

from pathlib import Path

import pytest

from orchestrator.broker_rooms import check_files
from orchestrator.config import Home, Settings
from orchestrator.config_brokers import BrokerSettings
from orchestrator.delivery.broker_access import service_connection
from orchestrator.errors import NotFoundError, UsageError
from orchestrator.fleet.enrolment import device_addresses
from protocol.topics import DELIVERY

TWO = """
[broker]
device_port = 1001

[[brokers]]
name = "edge"
host = "10.0.0.2"
advertised_host = "edge.example"
device_port = 1002
service_port = 1003
"""
OWN = 'certificate = "their/us.pem"\nkey = "their/us.key"\nca = "their/ca.pem"\n'


def _load(place: Path, text: str) -> tuple[Home, Settings]:
    home = Home(place)
    home.config.write_text(text)
    return home, home.load()


def test_devices_are_told_of_every_broker_in_order(tmp_path: Path) -> None:
    """The first one stays ``[broker]``, so that a home with one goes on working."""
    _, settings = _load(tmp_path, TWO)
    addresses = [(address.host, address.port) for address in device_addresses(settings)]
    assert addresses == [("127.0.0.1", 1001), ("edge.example", 1002)]
    assert [broker.name for broker in settings.all_brokers] == ["main", "edge"]
    assert [broker.managed for broker in settings.all_brokers] == [True, False]
    _, settings = _load(tmp_path, "")
    assert settings.all_brokers == [BrokerSettings()]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('[[brokers]]\nname = "main"', "two brokers are named main"),
        ("[[brokers]]\nhost = '10.0.0.2'", "brokers.0.name"),
        ('[[brokers]]\nname = "b"\nmanaged = true', "brokers.0.managed"),
        ('[[brokers]]\nname = "b"\ncertificate = "x.pem"', "certificate and key belong together"),
    ],
)
def test_a_mistake_is_one_sentence(tmp_path: Path, text: str, why: str) -> None:
    """That names the place."""
    with pytest.raises(UsageError, match=why):
        _load(tmp_path, text)


def test_a_broker_of_another_ca_has_files_of_its_own(tmp_path: Path) -> None:
    """Relative to the home; ``serve`` does not start without them."""
    home, settings = _load(tmp_path, TWO + OWN)
    with pytest.raises(NotFoundError, match=r"broker edge: .*us\.pem is missing"):
        check_files(home, settings)
    (tmp_path / "their").mkdir()
    for name in ("us.pem", "us.key", "ca.pem"):
        (tmp_path / "their" / name).write_text("x")
    check_files(home, settings)
    target = service_connection(home, settings.for_broker(settings.brokers[0]), DELIVERY)
    assert (target.host, target.port) == ("10.0.0.2", 1003)
    assert [path.name for path in (target.certificate, target.key, target.ca)] == ["us.pem", "us.key", "ca.pem"]
