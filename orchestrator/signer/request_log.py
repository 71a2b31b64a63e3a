"""What was asked of the signer: one line each, appended before the answer leaves, chained by hashes. No secret in it.

    {"n":7,"at":"...","kind":"offer","rollout":"r-1","device":"d1","release":"ab..","epoch":1,"seq":5,"digest":"..","h":".."}

``h`` is sha256 of the former line's ``h`` and of this line without it, so that a line which is changed, moved or left
out shows. ``epoch`` and ``seq`` never fall from line to line. Whoever may write the files can write all of them anew:
copy the last ``h`` elsewhere now and then. A power cut loses at most the last second, never a process that ends.
"""

import contextlib
import hashlib
import json
import os
import threading
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.errors import ConflictError, OperationError

FSYNC_S = 1.0
FIRST = "0" * 64
"""What the first line is chained to."""
MAX_LINE_BYTES = 4096
_TEXT_CHARS = 100
"""Of one field: a line stays below its limit whatever is written into it."""

_ENCODE = json.JSONEncoder(separators=(",", ":")).encode  # made once: json.dumps makes one per line

Entry = Mapping[str, str | int]


@dataclass(frozen=True, slots=True)
class LogHead:
    """The last line: its number, its hash, and the highest (epoch, seq) so far."""

    n: int = 0
    h: str = FIRST
    order: tuple[int, int] = (0, 0)


class RequestLog:
    """The log of one signer. Not safe from several threads: the signer holds its lock."""

    def __init__(self, path: Path, max_bytes: int, max_files: int) -> None:
        """Open it and find its last line; half a line, left by a power cut, is cut off.

        Raises:
            OperationError: It cannot be read or written, or its last line is no line of it.
        """
        self._path = path
        self._max_bytes = max_bytes
        self._max_files = max_files
        self._descriptor, self._size = -1, 0
        self._timer: threading.Timer | None = None
        with _explained(path):
            self.head = self._find_head()
            self._open()
        self._closing = weakref.finalize(self, _close, self._descriptor)

    def append(self, entries: Sequence[Entry], order: tuple[int, int]) -> None:
        """Add lines.

        Args:
            order: The highest (epoch, seq) that was signed, for the first line of a new log.

        Raises:
            OperationError: They are not there; nothing may be answered.
            ConflictError: Another process writes the log.
        """
        with _explained(self._path):
            if os.fstat(self._descriptor).st_size != self._size:
                raise ConflictError(f"{self._path}: another process writes it; stop one of the signers")
            if self._size >= self._max_bytes:
                self._rotate()
            head, lines = self.head, []
            for entry in entries:
                head, line = _chained(head, entry, order)
                lines.append(line)
            self._write(b"".join(lines))
            self.head = head
        if self._timer is None:
            self._timer = threading.Timer(FSYNC_S, self._fsync)
            self._timer.daemon = True
            self._timer.start()

    def close(self) -> None:
        """Make it durable; harmless when it is closed."""
        if self._closing.alive:
            self._fsync()
            self._closing()

    def _write(self, data: bytes) -> None:
        before = self._size
        try:
            view = memoryview(data)
            while view:
                written = os.write(self._descriptor, view)
                self._size += written
                view = view[written:]
        except OSError:
            with contextlib.suppress(OSError):  # half a batch is no batch
                os.ftruncate(self._descriptor, before)
                self._size = before
            raise

    def _fsync(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()
        with contextlib.suppress(OSError):  # the next write says it
            os.fsync(self._descriptor)

    def _rotate(self) -> None:
        self._fsync()
        for number in range(self._max_files - 1, 0, -1):
            older = _numbered(self._path, number - 1)
            if older.exists():
                older.replace(_numbered(self._path, number))
        if self._max_files == 1:
            self._path.unlink(missing_ok=True)
        self._closing()
        self._open()
        self._closing = weakref.finalize(self, _close, self._descriptor)

    def _open(self) -> None:
        self._descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._size = os.fstat(self._descriptor).st_size

    def _find_head(self) -> LogHead:
        """The last whole line of the newest file that has one."""
        for number in range(self._max_files):
            path = _numbered(self._path, number)
            if not path.exists():
                continue
            tail = _tail(path, cut=number == 0)
            if tail:
                found = _read_line(tail)
                if found is None:
                    raise OperationError(f"{path}: its last line is none of this log; restore it or move it away")
                return LogHead(found["n"], found["h"], (found["epoch"], found["seq"]))
        return LogHead()


def check_log(path: Path) -> tuple[int, LogHead]:
    """Read the whole log, the oldest file first; returns how many lines it has, and the last one.

    The first line's predecessor may have been rotated away: it begins the chain.

    Raises:
        OperationError: A line is not chained to the one before it; names file and line.
    """
    head: LogHead | None = None
    lines = 0
    numbers = [0, *_older(path)]
    for number in reversed(numbers):
        file = _numbered(path, number)
        with _explained(file):
            for place, line in enumerate(_lines(file), 1):
                found = _read_line(line)
                if found is None or (head is not None and not _follows(head, line, found)):
                    raise OperationError(
                        f"{file}: line {place} does not follow the one before it: the log was changed; "
                        "compare it with a copy"
                    )
                head = LogHead(found["n"], found["h"], (found["epoch"], found["seq"]))
                lines += 1
    return lines, head or LogHead()


def _chained(head: LogHead, entry: Entry, order: tuple[int, int]) -> tuple[LogHead, bytes]:
    fields: dict[str, Any] = {"n": head.n + 1}
    fields |= {key: value[:_TEXT_CHARS] if isinstance(value, str) else value for key, value in entry.items()}
    if "seq" not in fields:
        fields["epoch"], fields["seq"] = head.order if head.n else order
    body = _ENCODE(fields)[:-1]
    h = hashlib.sha256((head.h + body).encode()).hexdigest()
    return LogHead(head.n + 1, h, (fields["epoch"], fields["seq"])), f'{body},"h":"{h}"}}\n'.encode()


def _follows(head: LogHead, line: bytes, found: Mapping[str, Any]) -> bool:
    body = line.decode()[: -len(f',"h":"{found["h"]}"}}')]
    expected = hashlib.sha256((head.h + body).encode()).hexdigest()
    return bool(found["n"] == head.n + 1 and found["h"] == expected)


def _read_line(line: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    numbers = isinstance(found, dict) and all(isinstance(found.get(key), int) for key in ("n", "epoch", "seq"))
    return found if numbers and isinstance(found.get("h"), str) and len(found["h"]) == 64 else None


def _tail(path: Path, *, cut: bool) -> bytes:
    """The last whole line; what stands behind it is cut off where ``cut``."""
    size = path.stat().st_size
    with path.open("r+b" if cut else "rb") as file:
        file.seek(max(0, size - 2 * MAX_LINE_BYTES))
        end = file.read()
        whole = end[: end.rfind(b"\n") + 1]
        if cut and len(whole) < len(end):
            file.truncate(size - len(end) + len(whole))
    return whole.rstrip(b"\n").rpartition(b"\n")[2]


def _lines(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while line := file.readline(MAX_LINE_BYTES + 1):
            yield line.rstrip(b"\n")


def _older(path: Path) -> Iterable[int]:
    numbers = (file.name.removeprefix(f"{path.name}.") for file in path.parent.glob(f"{path.name}.*"))
    return sorted(int(number) for number in numbers if number.isdecimal())


def _numbered(path: Path, number: int) -> Path:
    return path.with_name(f"{path.name}.{number}") if number else path


def _close(descriptor: int) -> None:
    os.close(descriptor)


@contextlib.contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OperationError(f"{path}: {error.strerror}; nothing is signed until it can be written") from error
