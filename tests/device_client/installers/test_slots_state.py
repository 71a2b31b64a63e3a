"""What is pending, across restarts: kept whole, absent on a new device, and never guessed when damaged."""

from pathlib import Path

import pytest

from device_client.errors import DeviceError, StorageError
from device_client.installers import slots_state
from device_client.installers.slots_state import MAX_STATE_BYTES, SlotsState


def test_it_is_found_as_it_was_saved(tmp_path: Path) -> None:
    """A new device has nothing; what is saved is found; fields of a newer agent are passed over."""
    path = tmp_path / "installer.json"
    assert slots_state.load(path) == SlotsState()
    state = SlotsState(pending="1.1.0-abc", pending_from="1.0.0-def")
    slots_state.save(path, state)
    assert slots_state.load(path) == state
    path.write_text('{"former": "1.0.0-def", "color": "red"}')
    assert slots_state.load(path) == SlotsState(former="1.0.0-def")


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"pending": 7}', b" " * (MAX_STATE_BYTES + 1)])
def test_damage_is_one_sentence(tmp_path: Path, content: bytes) -> None:
    """A damaged file is never taken for "nothing is pending": a trial would be committed by silence."""
    path = tmp_path / "installer.json"
    path.write_bytes(content)
    with pytest.raises(DeviceError, match=r"installer\.json") as error:
        slots_state.load(path)
    assert isinstance(error.value, StorageError)
