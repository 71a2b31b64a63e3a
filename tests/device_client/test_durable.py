"""Durable files: the old or the new content whatever is cut off, and one sentence for what cannot be."""

import os
import stat
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from device_client.durable import (
    make_directory,
    read_capped,
    switch_link,
    sync_each,
    sync_tree,
    write_all,
    write_durably,
)
from device_client.errors import DeviceError, NotAllowedError, NotFoundError, StorageError

DiesAt = Callable[[int, Path, Callable[[], object]], bool]


def test_write_replaces_and_sets_the_mode(tmp_path: Path) -> None:
    """The content and the mode are the new ones whatever the umask, and nothing else is left lying there."""
    former = os.umask(0o277)
    try:
        for data, mode in ((b"one", 0o600), (b"", 0o644), (b"x" * 3_000_000, 0o400)):
            write_durably(tmp_path / "file", data, mode)
            assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == mode
            assert (tmp_path / "file").stat().st_size == len(data)
    finally:
        os.umask(former)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("before", [None, b"old" * 1000])
def test_write_cut_off_anywhere(tmp_path: Path, dies_at: DiesAt, before: bytes | None) -> None:
    """A process that dies anywhere leaves the old content or the new, never a mixture; and it can be repeated."""
    new = b"new" * 5000
    for number in range(50):
        path = tmp_path / f"{number}" / "file"
        path.parent.mkdir()
        if before is not None:
            path.write_bytes(before)
        cut = dies_at(number, tmp_path, lambda path=path: write_durably(path, new))  # type: ignore[misc]
        found = path.read_bytes() if path.exists() else None
        assert found in (before, new)
        write_durably(path, new)
        assert path.read_bytes() == new
        assert [entry.name for entry in path.parent.iterdir()] == ["file"]
        if not cut:
            assert number >= 3
            return
    pytest.fail("the write never ended")


def test_write_does_not_follow_a_planted_link(tmp_path: Path) -> None:
    """A link in place of the file, or of the file beside it, is replaced and not written through."""
    victim = tmp_path / "victim"
    victim.write_bytes(b"mine")
    for planted in ("file", ".file.new"):
        (tmp_path / planted).unlink(missing_ok=True)
        (tmp_path / planted).symlink_to(victim)
        write_durably(tmp_path / "file", b"data")
        assert victim.read_bytes() == b"mine"
        assert not (tmp_path / "file").is_symlink()


def test_errors_are_one_sentence(tmp_path: Path) -> None:
    """A missing directory, a directory in the way and too much content each name the file."""
    with pytest.raises(NotFoundError, match="gone/file"):
        write_durably(tmp_path / "gone" / "file", b"")
    with pytest.raises(StorageError, match="cannot be written"):
        write_durably(tmp_path, b"")
    with pytest.raises(NotFoundError):
        read_capped(tmp_path / "absent", 10)
    with pytest.raises(StorageError, match="cannot be read"):
        read_capped(tmp_path, 10)
    (tmp_path / "long").write_bytes(b"12345")
    assert read_capped(tmp_path / "long", 5) == b"12345"
    with pytest.raises(StorageError, match="at most 4 B"):
        read_capped(tmp_path / "long", 4)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may do all")
def test_not_allowed(tmp_path: Path) -> None:
    """A file of someone else is said to be so."""
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "file").chmod(0)
    with pytest.raises(NotAllowedError, match="check its owner and mode"):
        read_capped(tmp_path / "file", 10)


def test_a_cap_makes_no_room_for_itself(tmp_path: Path) -> None:
    """A small file is read in a little memory, however much would be allowed."""
    (tmp_path / "file").write_bytes(b"small")
    tracemalloc.start()
    try:
        assert read_capped(tmp_path / "file", 2**28) == b"small"
        assert tracemalloc.get_traced_memory()[1] < 4 * 2**20
    finally:
        tracemalloc.stop()
    (tmp_path / "file").write_bytes(b"x" * 3_000_000)
    assert read_capped(tmp_path / "file", 3_000_000) == b"x" * 3_000_000
    with pytest.raises(StorageError):
        read_capped(tmp_path / "file", 2_999_999)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_full_disk_is_an_error() -> None:
    """What was not written is not reported as written."""
    descriptor = os.open("/dev/full", os.O_WRONLY)
    try:
        with pytest.raises(OSError, match="space"):
            write_all(descriptor, b"data")
    finally:
        os.close(descriptor)


def test_switch_link_cut_off_anywhere(tmp_path: Path, dies_at: DiesAt) -> None:
    """The link points at the old target or the new one; there is no instant without a link."""
    for number in range(20):
        link = tmp_path / f"{number}" / "current"
        link.parent.mkdir()
        link.symlink_to("old")
        cut = dies_at(number, tmp_path, lambda link=link: switch_link(link, "new"))  # type: ignore[misc]
        assert str(link.readlink()) in ("old", "new")
        switch_link(link, "new")
        assert str(link.readlink()) == "new"
        assert [entry.name for entry in link.parent.iterdir()] == ["current"]
        if not cut:
            return
    pytest.fail("the switch never ended")


def test_switch_link_refuses_a_directory(tmp_path: Path) -> None:
    """A directory in place of the link is not lost."""
    (tmp_path / "current").mkdir()
    with pytest.raises(DeviceError, match="cannot be switched"):
        switch_link(tmp_path / "current", "new")
    assert (tmp_path / "current").is_dir()


def test_make_directory(tmp_path: Path) -> None:
    """Made with its parents; an existing one keeps its mode; a file in the way is an error."""
    make_directory(tmp_path / "a" / "b", 0o700)
    assert stat.S_IMODE((tmp_path / "a" / "b").stat().st_mode) == 0o700
    make_directory(tmp_path / "a" / "b", 0o755)
    assert stat.S_IMODE((tmp_path / "a" / "b").stat().st_mode) == 0o700
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(DeviceError, match="cannot be made"):
        make_directory(tmp_path / "file" / "c")
    with pytest.raises(DeviceError, match="cannot be made"):
        make_directory(tmp_path / "file")


def test_syncing_trees(tmp_path: Path) -> None:
    """A tree with links that lead nowhere, and a single file, can be made durable both ways."""
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "file").write_bytes(b"")
    (tmp_path / "a" / "dangling").symlink_to("nowhere")
    for sync in (sync_tree, sync_each):
        sync(tmp_path)
        sync(tmp_path / "a" / "file")
