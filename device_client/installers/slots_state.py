"""Which version is what, on the disk: installed, on trial, and where each leads back to."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from device_client.durable import read_capped, write_durably
from device_client.errors import NotFoundError, StorageError

MAX_STATE_BYTES = 4096


class SlotsState(BaseModel):
    """``state/installer.json``: names below ``releases/``.

    Attributes:
        installed: In place, waiting to be activated.
        pending: Activated, on trial; ``pending_from`` is what ran before it.
        former: What ran before the last commit.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    installed: str | None = None
    pending: str | None = None
    pending_from: str | None = None
    former: str | None = None


def load(path: Path) -> SlotsState:
    """What was saved last; nothing is installed or pending where nothing was ever saved.

    Raises:
        StorageError: The file is damaged.
    """
    try:
        return SlotsState.model_validate_json(read_capped(path, MAX_STATE_BYTES))
    except NotFoundError:
        return SlotsState()
    except ValidationError as error:
        raise StorageError(f"{path}: damaged; the installer cannot tell what was pending") from error


def save(path: Path, state: SlotsState) -> None:
    """Durable when it returns."""
    write_durably(path, state.model_dump_json(exclude_none=True).encode())
