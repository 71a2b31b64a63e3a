"""Reading a tree: everything in it is named, hashed and told apart, and no link is followed."""

import hashlib
import os
from pathlib import Path

from device_client.trees import File, Link, read_tree


def test_all_kinds(tmp_path: Path) -> None:
    """Files with twelve mode bits, links as they are, folders, and the rest."""
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "file").write_bytes(b"content")
    (tmp_path / "a" / "b" / "file").chmod(0o4751)
    (tmp_path / "a" / "loop").symlink_to("../a")
    (tmp_path / "dangling").symlink_to("/nowhere")
    os.mkfifo(tmp_path / "pipe")
    tree = read_tree(tmp_path)
    assert tree.files == (File("a/b/file", 0o4751, 7, hashlib.sha256(b"content").hexdigest()),)
    assert tree.links == (Link("a/loop", "../a"), Link("dangling", "/nowhere"))
    assert tree.folders == ("a", "a/b")
    assert tree.others == ("pipe",)


def test_a_single_file(tmp_path: Path) -> None:
    """A file is a tree of one file without a path."""
    (tmp_path / "file").write_bytes(b"x")
    (file,) = read_tree(tmp_path / "file").files
    assert (file.path, file.length, file.sha256) == ("", 1, hashlib.sha256(b"x").hexdigest())


def test_order_does_not_depend_on_the_disk(tmp_path: Path) -> None:
    """Entries are sorted by path."""
    names = ["b", "a-b", "a", "c/x", "c-", "Z"]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    assert [file.path for file in read_tree(tmp_path).files] == sorted(names)
