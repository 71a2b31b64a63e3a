"""What SWUpdate says of its progress, on the socket ``swupdateprog`` in its temporary directory.

Two forms, told apart by the first word of a message: 0 in versions up to 2023, which send the structure as it lies in
memory; an API version from 2024.05 on, which sends it packed, after an acknowledgement. Nothing is decided by it.
"""

import contextlib
import socket
import struct
import threading
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import structlog

log = structlog.get_logger(__name__)

SOCKET = "swupdateprog"
MAX_LINES = 200
API_MAJOR = 2
_IN_MEMORY = struct.Struct("@IiIQIII256s64siI2048s0Q")
_PACKED = struct.Struct("<IIIQIII256s64sII2048s")
_ACK_BYTES = 8
_STATUS = ("idle", "started", "running", "succeeded", "failed", "downloading", "done", "in a subprocess", "progress")
_RETRY_S = 0.02
_READ_S = 0.2


@dataclass(frozen=True, slots=True)
class Step:
    """One message, without what nobody reads."""

    status: str
    number: int
    of: int
    percent: int
    image: str
    handler: str

    def __str__(self) -> str:
        """As one line of a log."""
        if not self.image:
            return self.status
        return f"{self.number}/{self.of} {self.image} ({self.handler}) {self.percent:3d} %"


class StepParser:
    """Makes steps of bytes, however they are cut; of a form that it does not know it makes none."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._first = True
        self.lost = False

    def feed(self, data: bytes) -> list[Step]:
        """The steps that are complete with these bytes."""
        self._buffer += data
        steps: list[Step] = []
        while not self.lost and (form := self._form()) and len(self._buffer) >= form.size:
            steps.append(_step(form.unpack_from(self._buffer)))
            del self._buffer[: form.size]
        if self.lost:
            self._buffer.clear()
        return steps

    def _form(self) -> struct.Struct | None:
        if self._first and len(self._buffer) >= _ACK_BYTES:
            self._first = False
            if self._buffer[4:_ACK_BYTES] == b"ACK\0":
                del self._buffer[:_ACK_BYTES]
        if self._first or len(self._buffer) < 4:
            return None
        (word,) = struct.unpack_from("=I", self._buffer)
        if word == 0:
            return _IN_MEMORY
        if word >> 16 == API_MAJOR:
            return _PACKED
        self.lost = True
        return None


class ProgressReader:
    """Reads the socket in a thread of its own; a context manager around SWUpdate's run."""

    def __init__(self, folder: Path) -> None:
        """Read from the socket that SWUpdate will make in ``folder``."""
        self._path = str(folder / SOCKET)
        self.connected = threading.Event()
        self._over = threading.Event()
        self._lines: deque[str] = deque(maxlen=MAX_LINES)
        self._thread = threading.Thread(target=self._read, name="swupdate-progress", daemon=True)

    def __enter__(self) -> Self:
        """Begin."""
        self._thread.start()
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _at: TracebackType | None
    ) -> None:
        """End, with what has come by then."""
        self._over.set()
        self._thread.join()

    @property
    def text(self) -> str:
        """One line for each step, the last ones."""
        return "\n".join(self._lines)

    def _read(self) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as line, contextlib.suppress(OSError):
            line.settimeout(_READ_S)
            while not self._connected(line):
                if self._over.wait(_RETRY_S):
                    return
            self.connected.set()
            parser = StepParser()
            while not parser.lost:
                try:
                    data = line.recv(65_536)
                except TimeoutError:
                    if self._over.is_set():
                        return
                    continue
                if not data:
                    return
                for step in parser.feed(data):
                    self._note(step)
            log.warning("swupdate's progress is in an unknown form", expected=f"0 or {API_MAJOR}.x")

    def _connected(self, line: socket.socket) -> bool:
        try:
            line.connect(self._path)
        except (FileNotFoundError, ConnectionRefusedError):
            return False
        return True

    def _note(self, step: Step) -> None:
        text = str(step)
        if not self._lines or self._lines[-1] != text:
            self._lines.append(text)
            log.debug("swupdate went on", step=text)


def _step(values: tuple[Any, ...]) -> Step:
    _, status, _, _, of, number, percent, image, handler, *_ = values
    said = _STATUS[status] if 0 <= status < len(_STATUS) else f"status {status}"
    return Step(said, number, of, percent, _text(image), _text(handler))


def _text(raw: bytes) -> str:
    return raw.split(b"\0", 1)[0].decode(errors="replace")[:200]
