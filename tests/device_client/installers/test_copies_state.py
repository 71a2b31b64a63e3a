"""What is kept of two copies."""

from pathlib import Path

import pytest

from device_client.errors import StorageError
from device_client.installers import copies_state
from device_client.installers.copies_state import CopiesState, Note, Stage, Trial

TRIAL = Trial(copy_name="2", came_from="1", version="2.0.0", digest="d")


def test_saved_and_loaded(tmp_path: Path) -> None:
    """What was saved comes back; before that nothing is known."""
    file = tmp_path / "installer.json"
    assert copies_state.load(file) == CopiesState()
    state = CopiesState(notes={"1": Note(version="1.0.0", digest="e", mark="7 ff")}, trial=TRIAL)
    copies_state.save(file, state)
    assert copies_state.load(file) == state
    assert copies_state.load(file).with_note("1", None) == {}


def test_damaged(tmp_path: Path) -> None:
    """A file that cannot be read is an error: guessing could start the wrong copy."""
    file = tmp_path / "installer.json"
    file.write_text('{"trial": {"copy_name": "2"}}')
    with pytest.raises(StorageError, match=r"installer\.json: damaged"):
        copies_state.load(file)


@pytest.mark.parametrize("stage", list(Stage))
def test_activated(stage: Stage) -> None:
    """From the moment at which the boot loader may have been told."""
    early = stage in (Stage.WRITING, Stage.WRITTEN)
    assert TRIAL.model_copy(update={"stage": stage}).activated is not early
