"""How the last update on this device ended, for whoever asks later. Survives a restart."""

from datetime import datetime
from pathlib import Path

from pydantic import AwareDatetime, BaseModel, ConfigDict, ValidationError

from device_client.agent.journal import Update
from device_client.durable import read_capped, write_durably
from device_client.errors import DeviceError
from protocol.errors import ErrorCode
from protocol.states import State

MAX_BYTES = 16_384
MAX_DETAIL_CHARACTERS = 2000


class Ending(BaseModel):
    """One outcome, and when it was reached."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    rollout: str
    attempt: int
    version: str
    from_version: str | None = None
    state: State
    code: ErrorCode | None = None
    detail: str = ""
    at: AwareDatetime


class LastOutcome:
    """A file with one ending. Blocking."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __call__(self) -> Ending | None:
        """The last ending; None before the first, or where the file is damaged."""
        try:
            return Ending.model_validate_json(read_capped(self._path, MAX_BYTES))
        except (DeviceError, ValidationError):
            return None

    def note(self, update: Update, at: datetime) -> None:
        """Keep how an update ended; noted again, it keeps the first time. Durable when it returns."""
        ending = Ending(
            rollout=update.offer.rollout,
            attempt=update.offer.attempt,
            version=update.version,
            from_version=update.from_version,
            state=update.state,
            code=update.code,
            detail=update.detail[:MAX_DETAIL_CHARACTERS],
            at=at,
        )
        kept = self()
        if kept is None or kept.model_copy(update={"at": at}) != ending:
            write_durably(self._path, ending.model_dump_json().encode())
