"""What lies in a directory, no link followed: files with mode, length and hash, links, folders."""

import hashlib
import os
import stat
from dataclasses import dataclass, field
from pathlib import Path

from protocol.executables import HEAD_BYTES


@dataclass(frozen=True, slots=True)
class File:
    """A regular file. ``mode`` has all twelve bits, so that a setuid bit is a difference.

    ``head`` is its beginning, for whoever asks what kind of file it is; the hash says all of it, so it is not compared.
    """

    path: str
    mode: int
    length: int
    sha256: str
    head: bytes = field(default=b"", compare=False)


@dataclass(frozen=True, slots=True)
class Link:
    """A symbolic link and where it points, unresolved."""

    path: str
    target: str


@dataclass(frozen=True, slots=True)
class Tree:
    """A directory's content, sorted by path.

    Attributes:
        folders: Every directory below the root.
        others: Sockets, devices, pipes: never part of a release.
    """

    files: tuple[File, ...]
    links: tuple[Link, ...]
    folders: tuple[str, ...]
    others: tuple[str, ...]


def read_tree(root: Path) -> Tree:
    """Read and hash what lies below ``root``; a regular file is a tree of one file with the path ``""``.

    Raises:
        OSError: Something cannot be read.
    """
    files: list[File] = []
    links: list[Link] = []
    folders: list[str] = []
    others: list[str] = []
    if not stat.S_ISDIR(os.lstat(root).st_mode):
        return Tree((_read_file(root, ""),), (), (), ())
    pending = [""]
    while pending:
        folder = pending.pop()
        with os.scandir(root / folder) as entries:
            for entry in entries:
                path = f"{folder}/{entry.name}" if folder else entry.name
                if entry.is_symlink():
                    links.append(Link(path, os.readlink(entry.path)))  # noqa: PTH115 - unchanged: Path tidies it up
                elif entry.is_dir(follow_symlinks=False):
                    folders.append(path)
                    pending.append(path)
                elif entry.is_file(follow_symlinks=False):
                    files.append(_read_file(Path(entry.path), path))
                else:
                    others.append(path)
    return Tree(
        tuple(sorted(files, key=lambda file: file.path)),
        tuple(sorted(links, key=lambda link: link.path)),
        tuple(sorted(folders)),
        tuple(sorted(others)),
    )


def _read_file(path: Path, name: str) -> File:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    with os.fdopen(descriptor, "rb") as file:
        found = os.fstat(descriptor)
        head = file.read(HEAD_BYTES)
        file.seek(0)
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return File(name, stat.S_IMODE(found.st_mode), found.st_size, digest, head)
