"""The configuration's text, and that the files in ``broker-config/`` are what is generated."""

from pathlib import Path, PurePosixPath

from orchestrator.delivery.broker_config import MAX_PACKET_BYTES, BrokerPlan, broker_files
from orchestrator.delivery.sample_config import main, sample_files
from protocol.topics import TOPICS

ROOT = Path(__file__).parents[3]


def test_broker_config_holds_what_is_generated() -> None:
    """A change of the topic table or of the generator must be written into the files."""
    for name, text in sample_files().items():
        assert (ROOT / "broker-config" / name).read_text() == text, f"write {name} anew"


def test_files_are_written_for_a_fleet(tmp_path: Path) -> None:
    """The command writes the same files under another fleet's root."""
    main(["north", str(tmp_path)])
    assert "pattern read ota/v1/north/trust/bundle\n" in (tmp_path / "device.acl").read_text()


def test_each_listener_has_its_own_ca_and_access_list() -> None:
    """Devices and services are told apart by CA, port and access list; only a device's id is forced on it."""
    here = PurePosixPath("/here")
    plan = BrokerPlan(
        fleet="fleet",
        directory=here,
        devices_ca=here / "d.pem",
        devices_crl=here / "d.crl",
        services_ca=here / "s.pem",
        services_crl=here / "s.crl",
        certificate=here / "b.pem",
        key=here / "b.key",
        device_port=1,
        service_port=2,
    )
    text = broker_files(plan)["mosquitto.conf"]
    devices, services = text.split("listener 1 127.0.0.1\n")[1].split("listener 2 127.0.0.1\n")
    assert "cafile /here/d.pem\n" in devices and "acl_file /here/device.acl\n" in devices
    assert "cafile /here/s.pem\n" in services and "acl_file /here/service.acl\n" in services
    assert "crlfile /here/d.crl\n" in devices and "crlfile /here/s.crl\n" in services
    assert "use_username_as_clientid true" in devices and "use_username_as_clientid" not in services
    for listener in (devices, services):
        assert "require_certificate true" in listener and "allow_anonymous false" in listener


def test_every_topic_fits_into_a_packet() -> None:
    """The largest payload with its topic and headers stays below ``max_packet_size``."""
    assert max(rule.max_bytes for rule in TOPICS) + 1024 < MAX_PACKET_BYTES
