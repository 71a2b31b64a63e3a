"""The sections of ``device.toml`` that say how a release is put in place."""

from typing import Annotated, Literal

from pydantic import Field

from device_client.config_network import Seconds, Section


class InstallerSection(Section):
    """How a release is put in place and proven.

    Attributes:
        health: Program and arguments that end with 0 when the new version works; empty: no check.
        check_interval_s: How often what runs is compared with what was written; 0: never.
        min_interval_s: Least seconds between two updates.
        reboot: Program and arguments that reboot the device, for installers whose changes need it.
        reboot_timeout_s: How long the device may take to go down after that.
    """

    kind: Literal["directory", "file"] = "directory"
    health: list[str] = []
    health_timeout_s: Seconds = 60
    check_interval_s: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 86_400
    min_interval_s: Annotated[int, Field(ge=0)] = 0
    reboot: Annotated[list[str], Field(min_length=1)] = ["systemctl", "reboot"]
    reboot_timeout_s: Seconds = 300
