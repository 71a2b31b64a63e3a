"""The orchestrator's own sessions: client ids that no device and no viewer can have."""

import os
from pathlib import Path

import pytest

from orchestrator.config import Home, Settings
from orchestrator.config_brokers import BrokerSettings
from orchestrator.delivery.broker_access import client_id, service_connection, service_host
from orchestrator.errors import NotFoundError
from protocol.identifiers import check_id


def test_a_services_client_id_is_no_device_id(tmp_path: Path) -> None:
    """The dots in it fit no certificate of a device, so no device takes the session over."""
    key = tmp_path / "key"
    key.write_bytes(b"secret")
    with pytest.raises(ValueError, match="expected 1 to 64"):
        check_id(client_id("orch-delivery", key))


def test_a_client_id_is_fixed_and_only_its_keys_holder_knows_it(tmp_path: Path) -> None:
    """The same after a restart, another for another key, name or purpose; the key does not show in it."""
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_bytes(b"secret one")
    two.write_bytes(b"secret two")
    assert client_id("orch-ingest", one) == client_id("orch-ingest", one)
    different = {client_id("orch-ingest", one), client_id("orch-ingest", two), client_id("orch-delivery", one),
                 client_id("orch-ingest", one, "probe")}  # fmt: skip
    assert len(different) == 4
    assert all("secret" not in name for name in different)


def test_a_missing_key_is_named(tmp_path: Path) -> None:
    """Not shown: nothing but its path."""
    with pytest.raises(NotFoundError, match=r"orch-ingest\.key: .*restore it"):
        service_connection(Home(tmp_path), Settings(), "orch-ingest")


@pytest.mark.parametrize(("managed", "host"), [(True, "127.0.0.1"), (False, "broker.example")])
def test_a_managed_brokers_services_meet_on_loopback(managed: bool, host: str) -> None:
    """Whatever address devices use."""
    assert service_host(Settings(broker=BrokerSettings(managed=managed, host="broker.example"))) == host


def test_a_connection_names_its_files(tmp_path: Path) -> None:
    """Certificate and key of the service, and the devices' CA, which issues the broker's certificate."""
    home = Home(tmp_path)
    certificate, key = home.certificate("orch-ingest")
    certificate.parent.mkdir()
    key.write_bytes(os.urandom(16))
    found = service_connection(home, Settings(), "orch-ingest", max_queued=7)
    assert (found.certificate, found.key, found.ca, found.max_queued_incoming) == (certificate, key, home.devices_ca, 7)
