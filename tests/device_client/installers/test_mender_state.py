"""What an update module's installer notes: it is read as it was written, and damage is not taken for nothing."""

from pathlib import Path

import pytest

from device_client.errors import StorageError
from device_client.installers.mender_state import (
    MAX_PAYLOADS,
    MenderState,
    ModuleState,
    ModuleUpdate,
    Reboot,
    load,
    save,
)


def test_as_written(tmp_path: Path) -> None:
    """The largest one that there may be, too."""
    update = ModuleUpdate(
        version="1." + "0" * 62,
        digest="ab" * 32,
        payloads=["cd" * 32] * MAX_PAYLOADS,
        at=ModuleState.COMMIT,
        ended="failed",
        runs=dict.fromkeys(ModuleState, 99_999),
        reboot=Reboot.AUTOMATIC,
        stuck="\N{SNOWMAN}" * 500,
    )
    state = MenderState(update=update)
    save(tmp_path / "state", state)
    assert load(tmp_path / "state") == state
    assert load(tmp_path / "none") == MenderState()


@pytest.mark.parametrize("content", ["", "[]", '{"running": {"version": "1"}}', '{"update": {"at": "Elsewhere"}}'])
def test_damage(tmp_path: Path, content: str) -> None:
    """It is said, since a rollback may be due."""
    (tmp_path / "state").write_text(content)
    with pytest.raises(StorageError, match="damaged"):
        load(tmp_path / "state")
