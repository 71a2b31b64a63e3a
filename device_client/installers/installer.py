"""What every installer can do. The agent's machine knows only this.

    install -> activate -> commit            each is safe to repeat, and safe to be cut off at any instant
                        -> rollback

Some systems change over only by a reboot: then ``activate`` or ``rollback`` answers ``REBOOT``, the device is rebooted,
and the same method is called again after it. All methods block; call them in a thread.
"""

from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Protocol

from device_client.installed_stream import InstalledStream
from protocol.errors import ContentError, ErrorCode
from protocol.manifest import Artifact


class InstallError(ContentError):
    """What an installer's program failed with.

    Attributes:
        log: The end of what it wrote; goes with the report.
    """

    def __init__(self, detail: str, log: str = "", code: ErrorCode = ErrorCode.INSTALL) -> None:
        super().__init__(code, detail)
        self.log = log


class Next(Enum):
    """What must happen after a change."""

    NOTHING = "nothing"
    REBOOT = "reboot"


@dataclass(frozen=True, slots=True)
class Running:
    """A version in place.

    Attributes:
        digest: sha256 hex of the release's sealed manifest, or of the tree where the factory installed it.
        path: The directory or file; None where it is no place in this file system.
    """

    version: str
    digest: str
    path: Path | None


@dataclass(frozen=True, slots=True)
class Status:
    """What the installer knows; derived from the disk, so that it is right after a power cut.

    Attributes:
        running: What ``current`` points at.
        installed: In place, and not activated yet.
        pending: Activated and neither committed nor rolled back: the one on trial.
        former: Where a rollback leads while one is pending; else the version before the running one, if it is kept.
    """

    running: Running | None
    installed: Running | None
    pending: Running | None
    former: Running | None


class Installer(Protocol):
    """Puts one component's artifact in place."""

    def install_factory(self, source: Path, version: str) -> Running:
        """Take what the device left the factory with as the version that runs.

        Raises:
            NotFoundError: ``source`` does not exist.
            ConflictError: Another version runs already.
            StorageError: It cannot be read or noted.
        """
        ...

    def install(self, stream: Path, artifact: Artifact, version: str, digest: str) -> Path | None:
        """Write the release beside the running one; durable when it returns.

        Returns:
            Where it lies, for verification; None where no file system shows it, and ``fault`` verifies it.

        Raises:
            ContentError: E_SPACE or E_INSTALL; ``InstallError`` with what a program wrote.
        """
        ...

    def fault(self) -> str:
        """How what was put in place last differs from what was written, in one clause; empty where it does not.

        That is what runs, or is on trial; before its activation what was installed.
        """
        ...

    def activate(self) -> Next:
        """Make what was installed last the running version."""
        ...

    def commit(self) -> None:
        """Keep the running version; older ones than the former are removed."""
        ...

    def rollback(self) -> Next:
        """Return to the version before the activation and drop what was installed."""
        ...

    def running(self) -> Running | None:
        """What runs; None where nothing was ever installed."""
        ...

    def status(self) -> Status:
        """What is where."""
        ...

    def streams(self) -> tuple[InstalledStream, ...]:
        """What a download can copy from and apply deltas to: the running version first."""
        ...

    def way_back(self) -> bool:
        """Whether the version that a rollback returns to is present and intact.

        While one is pending that is the former; otherwise the running one, which the next activation leaves behind.
        """
        ...
