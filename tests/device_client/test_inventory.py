"""Inventory: what the settings say, as the orchestrator is told."""

from datetime import UTC, datetime

import pytest

from device_client.config import DeviceSection, DeviceSettings
from device_client.config_installers import InstallerSection
from device_client.inventory import agent_version, describe
from protocol.identifiers import check_version


@pytest.mark.parametrize("running", ["1.2.0", None])
def test_describe(running: str | None) -> None:
    """Product, hardware, labels, installer and the running version; no component where nothing is installed."""
    device = DeviceSection(id="d1", product="cam", hardware="rev-b", component="os", labels={"site": "Ulm"})
    report = describe(
        DeviceSettings(device=device, installer=InstallerSection(kind="file")),
        fleet="f", running_version=running, session=3, seq=4, issued=datetime(2026, 11, 23, tzinfo=UTC),
        instance="0123456789abcdef", boot="b",
    )  # fmt: skip
    assert (report.fleet, report.device, report.product, report.hardware) == ("f", "d1", "cam", "rev-b")
    assert report.components == ({"os": "1.2.0"} if running else {})
    assert report.labels == {"site": "Ulm"}
    assert "installer-file" in report.capabilities
    assert report.order == (3, 4)
    assert (report.instance, report.boot) == ("0123456789abcdef", "b")


def test_agent_version() -> None:
    """The agent's own version may stand in a report."""
    assert check_version(agent_version())
