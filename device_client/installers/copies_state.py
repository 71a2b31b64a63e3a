"""What is known of a system's two copies, on the disk: which version each holds, and the one that is being tried."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from device_client.durable import read_capped, write_durably
from device_client.errors import NotFoundError, StorageError
from protocol.identifiers import VersionText

MAX_STATE_BYTES = 8192
Text = Annotated[str, Field(max_length=256)]


class Stage(StrEnum):
    """How far a trial has come; saved before the act that it names, and after it."""

    WRITING = "writing"
    WRITTEN = "written"
    ACTIVATING = "activating"
    ACTIVATED = "activated"
    RETURNING = "returning"
    RETURNED = "returned"


class Note(BaseModel):
    """What a copy holds.

    Attributes:
        mark: What the program said of the copy then: another mark means that others have written it since.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    version: VersionText
    digest: Text
    mark: Text = ""


class Trial(BaseModel):
    """A release on its way into a copy, and to be the one that runs.

    Attributes:
        copy_name: Where it is written; ``came_from`` is the copy that ran then.
        before: The mark of that copy before it was written.
        boot: In which boot the boot loader was last told to start another copy.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    copy_name: Text
    came_from: Text
    version: VersionText
    digest: Text
    before: Text = ""
    stage: Stage = Stage.WRITING
    boot: Text = ""

    @property
    def activated(self) -> bool:
        """Whether the boot loader may start it already."""
        return self.stage not in (Stage.WRITING, Stage.WRITTEN)


class CopiesState(BaseModel):
    """``state/installer.json`` of an installer with two copies.

    Attributes:
        notes: By the copy's name; none for a copy whose content is unknown or not whole.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    notes: Annotated[dict[Text, Note], Field(max_length=8)] = {}
    trial: Trial | None = None

    def with_note(self, name: str, note: Note | None) -> dict[str, Note]:
        """The notes with this one instead of the former; None takes it away."""
        others = {copy: kept for copy, kept in self.notes.items() if copy != name}
        return others if note is None else {**others, name: note}


def load(path: Path) -> CopiesState:
    """What was saved last; nothing is known where nothing was ever saved.

    Raises:
        StorageError: The file is damaged.
    """
    try:
        return CopiesState.model_validate_json(read_capped(path, MAX_STATE_BYTES))
    except NotFoundError:
        return CopiesState()
    except ValidationError as error:
        raise StorageError(f"{path}: damaged; the installer cannot tell what was pending") from error


def save(path: Path, state: CopiesState) -> None:
    """Durable when it returns."""
    write_durably(path, state.model_dump_json().encode())
