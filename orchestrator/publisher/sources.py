"""What is to be released, as it lies on the publisher's disk: a tree without surprises, read once as one stream.

Regular files sorted by path, contents one after another; links inside the tree are entries. What a device could not
put back exactly (a device node, a setuid bit, a link that leaves the tree) is refused here, before anything is signed.
"""

import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from orchestrator.errors import NotFoundError, OperationError
from protocol.manifest import MAX_FILES, LinkEntry, check_link

MAX_PATH = 1024
"""Characters of a path inside a release; what ``check_member`` accepts."""


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A regular file: its path inside the release, where it lies, permission bits, bytes."""

    path: str
    real: str
    mode: int
    length: int


@dataclass(frozen=True, slots=True)
class Source:
    """A checked tree, or one file.

    Attributes:
        files: Sorted by path; the order of the stream.
        links: Sorted by path.
        empty_folders: Folders without a file below: a release does not carry them.
    """

    kind: Literal["directory", "file"]
    files: tuple[SourceFile, ...]
    links: tuple[LinkEntry, ...]
    empty_folders: tuple[str, ...]

    @property
    def length(self) -> int:
        """Bytes of the stream."""
        return sum(file.length for file in self.files)


def scan(path: Path) -> Source:
    """List what is to be released. Reads no content.

    Raises:
        NotFoundError: There is nothing at ``path``.
        OperationError: It is empty, or has something that a release cannot carry; names it.
    """
    with _explained(path):
        found = path.stat()
    if stat.S_ISREG(found.st_mode):
        file = SourceFile(_member(path, path.name), str(path), _mode(path, found), found.st_size)
        source = Source("file", (file,), (), ())
    elif stat.S_ISDIR(found.st_mode):
        source = _scan_tree(path)
    else:
        raise OperationError(f"{path}: expected a directory or a regular file; name one")
    if source.length == 0:
        raise OperationError(f"{path}: expected something to release, found no file with content")
    return source


def _scan_tree(root: Path) -> Source:
    files: list[SourceFile] = []
    links: list[LinkEntry] = []
    folders: list[str] = []
    pending = [""]
    while pending:
        folder = pending.pop()
        with _explained(root / folder), os.scandir(root / folder) as entries:
            for entry in entries:
                path = _member(root, f"{folder}/{entry.name}" if folder else entry.name)
                if entry.is_symlink():
                    links.append(_link(root, path, str(Path(entry.path).readlink())))
                elif entry.is_dir(follow_symlinks=False):
                    folders.append(path)
                    pending.append(path)
                elif entry.is_file(follow_symlinks=False):
                    found = entry.stat(follow_symlinks=False)
                    files.append(SourceFile(path, entry.path, _mode(entry.path, found), found.st_size))
                else:
                    raise OperationError(
                        f"{root / path}: a release carries files and links, this is neither; remove it"
                    )
        if len(files) + len(links) > MAX_FILES:
            raise OperationError(f"{root}: expected at most {MAX_FILES} files and links; split the release")
    files.sort(key=lambda file: file.path)
    links.sort(key=lambda link: link.path)
    return Source("directory", tuple(files), tuple(links), _without_files(folders, files, links))


def _without_files(folders: list[str], files: list[SourceFile], links: list[LinkEntry]) -> tuple[str, ...]:
    used: set[str] = set()
    for path in (*(file.path for file in files), *(link.path for link in links)):
        parent = path.rpartition("/")[0]
        while parent and parent not in used:
            used.add(parent)
            parent = parent.rpartition("/")[0]
    return tuple(sorted(set(folders) - used))


def _member(root: Path, path: str) -> str:
    # The rest of what a manifest demands of a path holds by construction. A surrogate, which is what Python makes of
    # a name that is not UTF-8, is not printable.
    if not path.isprintable() or len(path) > MAX_PATH:
        raise OperationError(
            f"{root}: the name {path[-120:]!r} is not printable Unicode of at most {MAX_PATH} characters; rename it"
        )
    return path


def _link(root: Path, path: str, target: str) -> LinkEntry:
    try:
        target.encode()
        return LinkEntry(path=path, target=check_link(path, target))
    except ValueError as error:
        raise OperationError(
            f"{root / path}: the link's target {target[:120]!r} leaves the tree; make it relative or remove it"
        ) from error


def _mode(path: Path | str, found: os.stat_result) -> int:
    mode = stat.S_IMODE(found.st_mode)
    if mode & ~0o777:
        raise OperationError(
            f"{path}: mode {mode:04o} has setuid, setgid or sticky bits, which a release does not carry; "
            "clear them with chmod"
        )
    return mode


class SourceStream:
    """The stream of a source, read once; hashes each file and the whole on its way.

    ``entries`` (fields of ``FileEntry``) and ``sha256`` hold when the stream has ended.
    """

    def __init__(self, source: Source) -> None:
        self.entries: list[dict[str, str | int]] = []
        self._files = iter(source.files)
        self._whole = hashlib.sha256()
        self._offset = 0
        self._descriptor = -1
        self._file: SourceFile | None = None
        self._part = hashlib.sha256()
        self._left = 0

    @property
    def sha256(self) -> str:
        """Of the whole stream, hex."""
        return self._whole.hexdigest()

    def readinto(self, view: memoryview) -> int:
        """Fill ``view`` as far as the stream goes; 0 at its end.

        Raises:
            OperationError: A file cannot be read, or changed since it was listed.
        """
        filled = 0
        room = len(view)
        while filled < room:
            if self._left == 0 and not self._advance():
                break
            if self._left == 0:
                continue
            count = os.readv(self._descriptor, [view[filled : filled + min(room - filled, self._left)]])
            if count == 0:
                raise self._changed()
            self._part.update(view[filled : filled + count])
            filled += count
            self._left -= count
        # Once per buffer rather than once per file: small files would pay for every call.
        self._whole.update(view[:filled])
        return filled

    def close(self) -> None:
        """Close the file that is open."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _advance(self) -> bool:
        self._finish()
        file = next(self._files, None)
        if file is None:
            return False
        try:
            # O_NONBLOCK: should a pipe have taken the file's place, opening it must not wait.
            self._descriptor = os.open(file.real, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            raise _unreadable(Path(file.real), error) from error
        self._file, self._left, self._part = file, file.length, hashlib.sha256()
        found = os.fstat(self._descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_size != file.length:
            raise self._changed()
        return True

    def _finish(self) -> None:
        file = self._file
        if file is None:
            return
        if os.read(self._descriptor, 1):
            raise self._changed()
        self.close()
        self._file = None
        self.entries.append(
            {
                "path": file.path,
                "mode": file.mode,
                "offset": self._offset,
                "length": file.length,
                "sha256": self._part.hexdigest(),
            }
        )
        self._offset += file.length

    def _changed(self) -> OperationError:
        name = self._file.real if self._file else "source"
        return OperationError(f"{name}: changed while it was being read; release a copy that nobody writes to")


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: OSError) -> OperationError:
    if isinstance(error, FileNotFoundError):
        return NotFoundError(f"{path}: no such file or directory; name what is to be released")
    return OperationError(f"{path}: cannot be read: {error.strerror or error}")
