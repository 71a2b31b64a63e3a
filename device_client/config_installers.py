"""The sections of ``device.toml`` that say how a release is put in place."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from device_client.config_network import Seconds, Section
from device_client.programs import PATH

ModuleName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]{0,63}$")]
HeaderText = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._+-]{1,64}$")]


class MenderSection(Section):
    """Which of Mender's update modules puts a release in place; ``[installer.mender]``.

    Attributes:
        module: Its file name in ``modules``.
        modules: The folder that modules lie in; it and they belong to root or to the agent's user.
        timeout_s: How long the module may take for one state.
        artifact_name: What the module is told as the artifact's name, before ``-VERSION``; none: the version alone.
        device_type: What the module is told as the device's type; none: the device's hardware.
        search_path: Its ``PATH``.
    """

    module: ModuleName
    modules: Path = Path("/usr/share/mender/modules/v3")
    timeout_s: Annotated[Seconds, Field(le=86_400)] = 14_400
    artifact_name: HeaderText | None = None
    device_type: HeaderText | None = None
    search_path: Annotated[str, StringConstraints(pattern=r"^(/[^:\x00]*)(:/[^:\x00]*)*$", max_length=1024)] = PATH


Argument = Annotated[str, StringConstraints(max_length=4096)]
Program = Annotated[tuple[Argument, ...], Field(min_length=1, max_length=64)]
Selection = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]{1,64},[A-Za-z0-9_.-]{1,64}$")]


class RaucSection(Section):
    """``[installer.rauc]``.

    Attributes:
        bus: Where RAUC's service is: ``system``, or an address such as ``unix:path=/run/rauc/bus``.
        timeout_s: The longest that one installation may take.
        compare: Types of slots whose device is hashed and compared with the image; of others the content may differ.
    """

    bus: Annotated[str, StringConstraints(pattern=r"^(system|unix:.{1,200})$")] = "system"
    timeout_s: Seconds = 3600
    compare: Annotated[tuple[Annotated[str, StringConstraints(max_length=32)], ...], Field(max_length=16)] = ("raw",)


class SwupdateSection(Section):
    """``[installer.swupdate]``.

    Attributes:
        key: Certificate that images are signed under.
        hardware: Board and revision, as ``board:1.0``.
        selections: Software set and mode that write copy 1 and copy 2, as ``stable,copy1``.
        active: Program that prints 1 or 2: the copy that runs.
        activate: Program that is given the number of a copy, and makes the boot loader start it next.
        keep: Program that is given the number of the running copy at a commit; the boot loader then stays with it.
        extra: More arguments for ``swupdate``.
        timeout_s: The longest that one installation may take.
    """

    key: Path
    hardware: Annotated[str, StringConstraints(pattern=r"^[^:\s]{1,64}:[^:\s]{1,64}$")]
    selections: tuple[Selection, Selection]
    active: Program
    activate: Program
    keep: Annotated[tuple[Argument, ...], Field(max_length=64)] = ()
    extra: Annotated[tuple[Argument, ...], Field(max_length=64)] = ()
    timeout_s: Seconds = 3600


class InstallerSection(Section):
    """How a release is put in place and proven.

    Attributes:
        health: Program and arguments that end with 0 when the new version works; empty: no check.
        check_interval_s: How often what runs is compared with what was written; 0: never.
        min_interval_s: Least seconds between two updates.
        reboot: Program and arguments that reboot the device, for installers whose changes need it.
        reboot_timeout_s: How long the device may take to go down after that.
        mender: The update module, for the kind ``mender``.
    """

    kind: Literal["directory", "file", "mender", "rauc", "swupdate"] = "directory"
    health: list[str] = []
    health_timeout_s: Seconds = 60
    check_interval_s: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 86_400
    min_interval_s: Annotated[int, Field(ge=0)] = 0
    reboot: Annotated[list[str], Field(min_length=1)] = ["systemctl", "reboot"]
    reboot_timeout_s: Seconds = 300
    mender: MenderSection | None = None
    rauc: RaucSection = RaucSection()
    swupdate: SwupdateSection | None = None

    @model_validator(mode="after")
    def _has_its_table(self) -> Self:
        if self.kind == "mender" and self.mender is None:
            raise ValueError("kind 'mender' needs a table [installer.mender] that names a module")
        if self.kind == "swupdate" and self.swupdate is None:
            raise ValueError('kind = "swupdate" needs a table [installer.swupdate]')
        return self
