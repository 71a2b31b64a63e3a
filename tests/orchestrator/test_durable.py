"""Replacing files: whole, with the mode that was asked for, and nothing left beside them."""

from pathlib import Path

import pytest

from orchestrator.durable import replace_durably


@pytest.mark.parametrize("mode", [0o600, 0o644])
def test_a_file_is_replaced_whole(tmp_path: Path, mode: int) -> None:
    """A new one and an old one alike; what a run that was cut off left beside it is no obstacle, and not its mode."""
    path = tmp_path / "file.json"
    for data in (b"one", b"two, longer", b""):
        leftover = tmp_path / ".file.json.new"
        leftover.write_bytes(b"cut o")
        leftover.chmod(0o666)
        replace_durably(path, data, mode)
        assert path.read_bytes() == data
        assert path.stat().st_mode & 0o777 == mode
        assert list(tmp_path.iterdir()) == [path]


def test_what_cannot_be_written_leaves_the_former(tmp_path: Path) -> None:
    """A folder in its place: OSError, the folder stays, nothing is left beside it."""
    path = tmp_path / "file.json"
    path.mkdir()
    (path / "kept").touch()
    with pytest.raises(IsADirectoryError):
        replace_durably(path, b"data")
    assert [entry.name for entry in tmp_path.iterdir()] == ["file.json"]
    with pytest.raises(FileNotFoundError):
        replace_durably(tmp_path / "nowhere" / "file.json", b"data")
