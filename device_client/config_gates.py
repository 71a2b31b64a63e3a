"""The section of ``device.toml`` that says what must hold before the device acts."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from device_client.config_network import Seconds, Section
from device_client.config_windows import WindowSection

Percent = Annotated[float, Field(gt=0, le=100)]


class GatesSection(Section):
    """What this device's owner demands before it acts; an announcement can only ask for more.

    Attributes:
        unknown: What a figure that cannot be read means: ``ignore``: nothing; ``wait``: its gate is shut.
        min_memory_bytes: Memory that must be available; 0 means that none is asked for.
        max_memory_pressure_percent: Share of the last minute in which some task waited for memory; so for io and cpu.
        max_load_per_core: Of the load of the last minute.
        max_celsius: Of the hottest thermal zone.
        hooks: Folder of hook scripts, in one folder for each phase; none there means none are asked.
        hook_timeout_s: How long one hook may take.
        upower: Ask UPower where ``power_supply_root`` shows no supply.
        logind: Wait for logind's inhibitors and people's sessions, and inhibit a shutdown while software is changed.
        bus: The D-Bus on which UPower, logind and NetworkManager are: ``system``, or an address.
        proc: The kernel's view of load and memory.
        deadline_s: How long gates of this device may keep an update waiting in one phase; 0 means for ever.
        on_deadline: What then: ``expire``: the update ends; ``ask``: ``notify`` is run; ``force``: gates that only
            spare people are passed by.
        allow_force: Without it ``force`` may not be set.
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
    unknown: Literal["ignore", "wait"] = "ignore"
    min_memory_bytes: Annotated[int, Field(ge=0, le=2**50)] = 0
    max_memory_pressure_percent: Percent | None = None
    max_io_pressure_percent: Percent | None = None
    max_cpu_pressure_percent: Percent | None = None
    max_load_per_core: Annotated[float, Field(gt=0, le=1000)] | None = None
    max_celsius: Annotated[float, Field(ge=-50, le=200)] | None = None
    thermal_root: Path = Path("/sys/class/thermal")
    proc: Path = Path("/proc")
    hooks: Path = Path("/etc/flagship/gates.d")
    hook_timeout_s: Annotated[Seconds, Field(le=300)] = 30
    upower: bool = False
    logind: bool = False
    bus: Annotated[str, Field(min_length=1, max_length=200)] = "system"
    deadline_s: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0
    on_deadline: Literal["expire", "ask", "force"] = "expire"
    allow_force: bool = False
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

    @model_validator(mode="after")
    def _is_allowed(self) -> Self:
        if self.on_deadline == "force" and not self.allow_force:
            raise ValueError('on_deadline = "force" needs allow_force = true')
        if self.on_deadline == "ask" and not self.notify:
            raise ValueError('on_deadline = "ask" needs a program in notify')
        return self
