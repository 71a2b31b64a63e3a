"""The tree that an update module works in: file by file what Mender's client 3.4 writes, for its owner's eyes only."""

import json
import stat
from pathlib import Path

from device_client.installers.mender_tree import Header, drop_tree, make_tree

HEADER = Header("single-file", "cam-2.0", "cam-1.0", "mk2")


def test_content(tmp_path: Path) -> None:
    """No value ends with a newline; without a group, without metadata the files are empty."""
    tree = tmp_path / "mender" / "tree"
    make_tree(tree, HEADER)
    found = {str(path.relative_to(tree)): path.read_text() for path in tree.rglob("*") if path.is_file()}
    assert json.loads(found.pop("header/header-info")) == {
        "payloads": [{"type": "single-file"}],
        "artifact_provides": {"artifact_name": "cam-2.0"},
        "artifact_depends": {"device_type": ["mk2"]},
    }
    assert json.loads(found.pop("header/type-info")) == {
        "type": "single-file",
        "artifact_provides": {"rootfs-image.single-file.version": "cam-2.0"},
        "clears_artifact_provides": ["rootfs-image.single-file.*"],
    }
    assert found == {
        "version": "3",
        "current_artifact_name": "cam-1.0",
        "current_artifact_group": "",
        "current_device_type": "mk2",
        "header/artifact_name": "cam-2.0",
        "header/artifact_group": "",
        "header/payload_type": "single-file",
        "header/meta-data": "",
    }
    assert (tree / "tmp").is_dir()


def test_modes(tmp_path: Path) -> None:
    """0700 and 0600, whatever the umask."""
    make_tree(tmp_path / "mender" / "tree", HEADER)
    for path in (tmp_path / "mender").rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600)


def test_afresh(tmp_path: Path) -> None:
    """Nothing of an earlier one is left, nor of one whose removal was cut off."""
    tree = tmp_path / "tree"
    make_tree(tree, HEADER)
    (tree / "tmp" / "old").touch()
    tree.rename(tmp_path / "tree.gone")
    make_tree(tree, HEADER)
    (tree / "tmp" / "old").touch()
    make_tree(tree, HEADER)
    assert list((tree / "tmp").iterdir()) == []
    drop_tree(tree)
    drop_tree(tree)
    assert list(tmp_path.iterdir()) == []
