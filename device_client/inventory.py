"""What this device is, as the orchestrator is told: once per session and on change. Pure."""

from collections.abc import Sequence
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version

from device_client.config import DeviceSettings
from protocol.reports import Inventory, Refusal

UNKNOWN_VERSION = "0"


def describe(
    settings: DeviceSettings,
    *,
    fleet: str,
    running_version: str | None,
    session: int,
    seq: int,
    issued: datetime,
    instance: str,
    boot: str,
    stale_since: datetime | None = None,
    refusals: Sequence[Refusal] = (),
) -> Inventory:
    """The inventory report.

    Args:
        settings: The device's own.
        fleet: The fleet it is enrolled in.
        running_version: Of the component that the installer updates; None where nothing is installed.
        session, seq: The report's place in the order of this device's reports.
        issued: Now.
        stale_since: When its trust ran out; None while it is fresh.
        refusals: What it refused, newest per code.
        instance, boot: Which start of the agent this is, on which boot of the machine.
    """
    device = settings.device
    return Inventory(
        fleet=fleet,
        device=device.id,
        issued=issued,
        session=session,
        seq=seq,
        product=device.product,
        hardware=device.hardware,
        components={device.component: running_version} if running_version else {},
        labels=device.labels,
        capabilities=[f"installer-{settings.installer.kind}", "chunks-mqtt"],
        agent=agent_version(),
        stale_since=stale_since,
        refusals=list(refusals) or None,
        instance=instance,
        boot=boot,
    )


def agent_version() -> str:
    """The version of this program as it was installed."""
    try:
        return version("flagship")
    except PackageNotFoundError:
        return UNKNOWN_VERSION
