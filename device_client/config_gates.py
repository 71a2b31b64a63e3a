"""The section of ``device.toml`` that says what must hold before the device acts."""

from pathlib import Path
from typing import Annotated

from pydantic import Field

from device_client.config_network import Section
from device_client.config_windows import WindowSection


class GatesSection(Section):
    """What this device's owner demands before it acts; an announcement can only ask for more.

    Attributes:
        approve_activation: Where an approval is demanded, activating needs one of its own.
        notify: Program and arguments, run once for each rollout and phase that waits for a person; empty: none.
        max_deferrals: How often a person may put off one release of one rollout.
        max_deferral_s: How long after the first time the last one may end.
        allow_offline: Orders on a medium may let this device install, activate and commit without being asked.
        windows: Installing and activating wait for one of them; none means at any time. Those that a release or a
            rollout names are waited for as well.
    """

    power_supply_root: Path = Path("/sys/class/power_supply")
    min_battery_percent: Annotated[int, Field(ge=0, le=100)] = 40
    require_approval: bool = False
    approve_activation: bool = False
    notify: Annotated[list[str], Field(max_length=64)] = []
    max_deferrals: Annotated[int, Field(ge=0, le=32)] = 3
    max_deferral_s: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 604_800
    allow_in_use: bool = False
    require_way_back: bool = False
    allow_offline: bool = False
    disk_reserve_bytes: Annotated[int, Field(ge=0)] = 16 * 2**20
    windows: Annotated[tuple[WindowSection, ...], Field(max_length=32)] = ()
