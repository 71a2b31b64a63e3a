"""What may be released, and what is refused before anything is signed."""

import hashlib
import os
from pathlib import Path

import pytest

from orchestrator.errors import NotFoundError, OperationError
from orchestrator.publisher.sources import Source, SourceStream, scan


def read(source: Source, block: int = 7) -> tuple[bytes, SourceStream]:
    """The whole stream, in small steps."""
    stream = SourceStream(source)
    buffer = bytearray(block)
    parts = []
    while count := stream.readinto(memoryview(buffer)):
        parts.append(bytes(buffer[:count]))
    return b"".join(parts), stream


def test_files_are_one_stream_in_order_of_their_paths(tmp_path: Path) -> None:
    """Contents follow one another sorted by whole path; entries have offset, length, mode and hash."""
    (tmp_path / "b").mkdir()
    for name, content in {"b/x": b"one", "b.txt": b"two!", "a": b"", "c": b"end"}.items():
        (tmp_path / name).write_bytes(content)
        (tmp_path / name).chmod(0o640)
    (tmp_path / "c").chmod(0o755)
    data, stream = read(scan(tmp_path))
    assert data == b"two!oneend"
    assert stream.sha256 == hashlib.sha256(data).hexdigest()
    assert [(e["path"], e["offset"], e["length"], e["mode"]) for e in stream.entries] == [
        ("a", 0, 0, 0o640),
        ("b.txt", 0, 4, 0o640),
        ("b/x", 4, 3, 0o640),
        ("c", 7, 3, 0o755),
    ]
    assert stream.entries[2]["sha256"] == hashlib.sha256(b"one").hexdigest()


def test_links_inside_the_tree_are_entries(tmp_path: Path) -> None:
    """A relative link is carried as it is, not followed."""
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "a").write_bytes(b"x")
    (tmp_path / "lib" / "up").symlink_to("../lib/a")
    (tmp_path / "folder").symlink_to("lib")
    source = scan(tmp_path)
    assert [(link.path, link.target) for link in source.links] == [("folder", "lib"), ("lib/up", "../lib/a")]
    assert len(source.files) == 1


@pytest.mark.parametrize("target", ["/etc/passwd", "../outside", "a/../../x"])
def test_a_link_out_of_the_tree_is_refused(tmp_path: Path, target: str) -> None:
    """A link that climbs out, or is absolute, is named."""
    (tmp_path / "a").write_bytes(b"x")
    (tmp_path / "bad").symlink_to(target)
    with pytest.raises(OperationError, match=r"bad.*leaves the tree"):
        scan(tmp_path)


def test_a_pipe_is_refused(tmp_path: Path) -> None:
    """What is neither file, link nor directory is named, and does not block."""
    (tmp_path / "a").write_bytes(b"x")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OperationError, match=r"pipe.*neither"):
        scan(tmp_path)
    with pytest.raises(OperationError, match="expected a directory or a regular file"):
        scan(tmp_path / "pipe")


@pytest.mark.parametrize("name", [b"\xff\xfe", b"tab\there", b"line\nbreak", "\u202egnp".encode()])
def test_a_hostile_name_is_refused(tmp_path: Path, name: bytes) -> None:
    """A name that is not printable Unicode cannot be released."""
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name)).write_bytes(b"x")
    with pytest.raises(OperationError, match="rename it"):
        scan(tmp_path)


def test_setuid_is_refused(tmp_path: Path) -> None:
    """Bits that a manifest cannot carry are not dropped silently."""
    (tmp_path / "a").write_bytes(b"x")
    (tmp_path / "a").chmod(0o4755)
    with pytest.raises(OperationError, match="4755"):
        scan(tmp_path)


def test_nothing_to_release(tmp_path: Path) -> None:
    """An empty directory, one of empty files, and nothing at all are each one sentence."""
    with pytest.raises(OperationError, match="no file with content"):
        scan(tmp_path)
    (tmp_path / "a").touch()
    with pytest.raises(OperationError, match="no file with content"):
        scan(tmp_path)
    with pytest.raises(NotFoundError, match="no such file"):
        scan(tmp_path / "none")


def test_empty_folders_are_named(tmp_path: Path) -> None:
    """Folders that the release will not carry are listed, their used parents are not."""
    (tmp_path / "a" / "b" / "c").mkdir(parents=True)
    (tmp_path / "a" / "f").write_bytes(b"x")
    assert scan(tmp_path).empty_folders == ("a/b", "a/b/c")


@pytest.mark.parametrize("content", [b"longer than before", b"s", b""])
def test_a_file_that_changes_meanwhile_is_refused(tmp_path: Path, content: bytes) -> None:
    """A source that is written to while it is read is not released."""
    (tmp_path / "a").write_bytes(b"before")
    source = scan(tmp_path)
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(OperationError, match="changed while"):
        read(source)


def test_a_link_in_the_place_of_a_file_is_not_followed(tmp_path: Path) -> None:
    """A file that became a link between listing and reading is refused."""
    (tmp_path / "a").write_bytes(b"secret")
    source = scan(tmp_path)
    (tmp_path / "b").write_bytes(b"secret")
    (tmp_path / "a").unlink()
    (tmp_path / "a").symlink_to("b")
    with pytest.raises(OperationError, match="cannot be read"):
        read(source)
