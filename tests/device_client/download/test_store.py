"""What was fetched so far: which leftovers are cleared, and a store that is closed under a late thread."""

from pathlib import Path

import pytest

from device_client.download.staging import Stage
from device_client.download.store import clear_staging


def test_clear_staging_keeps_what_is_named(tmp_path: Path) -> None:
    """Files whose digest is named stay, all others go."""
    for name in ("aa.stream", "bb.stream", "bb.sealed", "cc.sealed"):
        (tmp_path / name).write_bytes(b"")
    clear_staging(tmp_path, frozenset({"bb"}))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bb.sealed", "bb.stream"]
    clear_staging(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_stage_has_the_length_it_should(tmp_path: Path) -> None:
    """A file of another length is cut or filled up; what it holds within is kept."""
    (tmp_path / "long").write_bytes(b"abcdef")
    stage = Stage(tmp_path / "long", 3)
    assert stage.read(0, 9) == b"abc"
    stage.write(1, b"X")
    stage.sync()
    stage.close()
    assert (tmp_path / "long").read_bytes() == b"aXc"
    stage = Stage(tmp_path / "long", 5)
    assert stage.read(0, 9) == b"aXc\0\0"
    assert not stage.is_new
    stage.close()


def test_a_late_thread_cannot_write_to_a_closed_stage(tmp_path: Path) -> None:
    """After close the descriptor may be someone else's: it is never used again."""
    stage = Stage(tmp_path / "file", 3)
    stage.close()
    with pytest.raises(ValueError, match="is closed"):
        stage.write(0, b"abc")
    stage.close()


def test_a_stage_does_not_follow_links(tmp_path: Path) -> None:
    """A link in the staging directory is not written through."""
    (tmp_path / "victim").write_bytes(b"mine")
    (tmp_path / "stage").symlink_to("victim")
    with pytest.raises(Exception, match="E_SPACE"):
        Stage(tmp_path / "stage", 4)
    assert (tmp_path / "victim").read_bytes() == b"mine"
