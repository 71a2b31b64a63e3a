"""Where an update module stands, on the disk: what was begun, how it ended, what the module answered.

Saved before a module is run and after it, so that a run that was cut off is known as such.
"""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from device_client.durable import read_capped, write_durably
from device_client.errors import NotFoundError, StorageError
from protocol.identifiers import DigestText, VersionText

MAX_PAYLOADS = 128
"""Each has its hash in the module's environment, and in this file."""
MAX_STATE_BYTES = 32_768


class ModuleState(StrEnum):
    """What a module is run for (Mender, update modules v3): states in the order of an update, and queries."""

    PAYLOAD_SIZES = "ProvidePayloadFileSizes"
    DOWNLOAD = "Download"
    DOWNLOAD_WITH_SIZES = "DownloadWithFileSizes"
    SUPPORTS_ROLLBACK = "SupportsRollback"
    INSTALL = "ArtifactInstall"
    NEEDS_REBOOT = "NeedsArtifactReboot"
    REBOOT = "ArtifactReboot"
    VERIFY_REBOOT = "ArtifactVerifyReboot"
    COMMIT = "ArtifactCommit"
    ROLLBACK = "ArtifactRollback"
    ROLLBACK_REBOOT = "ArtifactRollbackReboot"
    VERIFY_ROLLBACK_REBOOT = "ArtifactVerifyRollbackReboot"
    FAILURE = "ArtifactFailure"
    CLEANUP = "Cleanup"


class Reboot(StrEnum):
    """What a module answers to ``NeedsArtifactReboot``."""

    NO = "No"
    YES = "Yes"
    """It reboots what it updates itself, when it is asked for ``ArtifactReboot``."""
    AUTOMATIC = "Automatic"
    """The device is rebooted, as it is for other installers."""


class _Saved(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class Version(_Saved):
    """A version by name and by the digest of its sealed manifest; of its tree, where the factory installed it."""

    version: VersionText
    digest: DigestText


class ModuleUpdate(Version):
    """One release on its way through a module.

    Attributes:
        payloads: sha256 hex of each, in their order.
        at: The state that was begun last.
        ended: How it ended; empty while it runs, and where it was cut off.
        runs: How often each state was begun.
        can_roll_back: What was answered to ``SupportsRollback``; None before it was asked.
        is_touched: ``ArtifactInstall`` was begun: the device may hold some of the release.
        installed_in: The boot in which that was.
        reboot: What was answered to ``NeedsArtifactReboot``, after installing; None before that.
        is_activated: Its activation was begun.
        activated_in: The boot in which that was.
        proven_in: The boot for which ``ArtifactVerifyReboot`` ended well.
        proven_root: The device number of the root file system then.
        fallen_in: The boot for which it did not, after it had for another.
        is_committed: Nothing but ``Cleanup`` is left to do.
        is_rolled_back: ``ArtifactRollback`` ended well.
        must_reboot_back: Whether what was rolled back only runs after a reboot.
        back_asked_in: The boot in which that reboot was asked for.
        stuck: Why it can neither go on nor back, in one clause; empty while it can.
    """

    payloads: Annotated[list[DigestText], Field(max_length=MAX_PAYLOADS)] = []
    at: ModuleState = ModuleState.DOWNLOAD
    ended: Literal["", "ok", "failed"] = ""
    runs: dict[ModuleState, int] = {}
    can_roll_back: bool | None = None
    is_touched: bool = False
    installed_in: str = ""
    reboot: Reboot | None = None
    is_activated: bool = False
    activated_in: str = ""
    proven_in: str = ""
    proven_root: int = 0
    fallen_in: str = ""
    is_committed: bool = False
    is_rolled_back: bool = False
    must_reboot_back: bool = False
    back_asked_in: str = ""
    stuck: str = ""

    def was_cut_off_in(self, state: ModuleState) -> bool:
        """Whether that was begun last, and how it ended is not known."""
        return self.at is state and not self.ended

    @property
    def goes_back(self) -> bool:
        """Whether a rollback was begun."""
        return ModuleState.ROLLBACK in self.runs or bool(self.stuck)

    @property
    def is_on_trial(self) -> bool:
        """Whether it was activated to the end, and nothing was decided yet."""
        is_active = self.is_activated and (self.reboot is Reboot.NO or bool(self.proven_in))
        return is_active and not self.goes_back and not self.is_committed


class MenderState(_Saved):
    """``state/installer.json`` of the kind ``mender``.

    Attributes:
        running: What was committed last, or came from the factory.
        update: What is open; None where nothing is.
    """

    running: Version | None = None
    update: ModuleUpdate | None = None


def load(path: Path) -> MenderState:
    """What was saved last; nothing runs and nothing is open where nothing was ever saved.

    Raises:
        StorageError: The file is damaged.
    """
    try:
        return MenderState.model_validate_json(read_capped(path, MAX_STATE_BYTES))
    except NotFoundError:
        return MenderState()
    except ValidationError as error:
        raise StorageError(f"{path}: damaged; the installer cannot tell what the update module was doing") from error


def save(path: Path, state: MenderState) -> None:
    """Durable when it returns."""
    write_durably(path, state.model_dump_json(exclude_defaults=True).encode())
