"""``SigningRoom`` in another process: asked over a Unix socket, each request with a deadline.

A connection that breaks is made anew and the request is sent once more: what is signed twice costs a number, nothing
else. A signer that was started anew meanwhile is shown the highest numbers that came from it, so that it cannot go on
from old marks. When it does not answer, SignerAwayError says so, and the caller asks again later.
"""

import contextlib
import socket
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import structlog

from orchestrator.errors import OperationError, SignerAwayError, SignerNewError, UsageError
from orchestrator.signer import wire
from orchestrator.signer.seam import MAX_REVOKED_AT_ONCE, Begun, Order, Refusal, Request, Signed
from protocol.envelopes import b64

log = structlog.get_logger(__name__)

MAX_PATH_BYTES = 107
"""Of a Unix socket's path (Linux, unix(7): 108 with its end)."""
TRIES = 2


def check_path(path: Path) -> Path:
    """A path that fits a socket's address.

    Raises:
        UsageError: It is too long.
    """
    length = len(bytes(path))
    if length > MAX_PATH_BYTES:
        raise UsageError(
            f"{path}: {length} B are too long for a socket's path, at most {MAX_PATH_BYTES}; "
            "name a shorter one as signer.socket in config.toml"
        )
    return path


class SignerClient:
    """Asks a ``flagship signer``. Safe from several threads: one request at a time."""

    def __init__(self, path: Path, deadline_s: float) -> None:
        """Nothing is connected yet.

        Raises:
            UsageError: The path is too long.
        """
        self._path = check_path(path)
        self._deadline_s = deadline_s
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._known: tuple[Order, int] | None = None  # since ``begin``: the highest order and timestamp that came

    def begin(self, stored: Order, timestamp: int) -> Begun:
        """See ``SigningRoom``."""
        begun = wire.read_begun(self._ask(wire.Begin(stored=stored, timestamp=timestamp))[0])
        self._known = begun.order, timestamp
        return begun

    def sign(self, requests: Sequence[Request]) -> list[Signed | Refusal]:
        """See ``SigningRoom``; one round trip."""
        if not requests:
            return []
        answers = wire.read_signed(self._begun_exchange(wire.ask_sign(requests))[0])
        self._saw(max(((a.epoch, a.seq) for a in answers if isinstance(a, Signed)), default=(0, 0)), 0)
        return answers

    def use_director(self, listed: Sequence[str], *, switch: bool = True) -> str:
        """See ``SigningRoom``."""
        return str(self._ask(wire.Director(listed=list(listed), switch=switch))[0])

    def bump_timestamp(self, snapshot_version: int, listed: Sequence[str] = ()) -> bytes:
        """See ``SigningRoom``."""
        asked = wire.Bump(snapshot=snapshot_version, listed=list(listed)).model_dump_json().encode()
        version, data = self._begun_exchange(asked)
        self._saw((0, 0), int(version))
        return data

    def highest_timestamp(self) -> int:
        """See ``SigningRoom``."""
        return int(self._ask(wire.Highest())[0])

    def unseal(self, sealed_key: bytes, sealed: bytes) -> bytes:
        """See ``SigningRoom``."""
        return self._ask(wire.Unseal(sealed_key=b64(sealed_key)), sealed)[1]

    def revoke(self, devices: Sequence[str], reason: str) -> None:
        """See ``SigningRoom``."""
        if len(devices) > MAX_REVOKED_AT_ONCE:
            raise ValueError(f"at most {MAX_REVOKED_AT_ONCE} devices at once, found {len(devices)}")
        self._ask(wire.Revoke(devices=list(devices), reason=reason[:500]))

    def sign_head(self, entry: int, digest: str) -> bytes:
        """See ``SigningRoom``."""
        return self._ask(wire.SignHead(entry=entry, digest=digest))[1]

    def lift(self, rollout: str, reason: str) -> None:
        """See ``SigningRoom``."""
        self._ask(wire.Lift(rollout=rollout, reason=reason[:500]))

    def close(self) -> None:
        """Close the connection; the next request makes another."""
        with self._lock:
            self._drop()

    def _saw(self, order: Order, timestamp: int) -> None:
        if self._known is not None:
            self._known = max(self._known[0], order), max(self._known[1], timestamp)

    def _begun_exchange(self, content: bytes) -> tuple[Any, bytes]:
        """As ``_exchange``, with a signer that was started since ``begin``, too."""
        try:
            return self._exchange(content)
        except SignerNewError:
            if self._known is None:
                raise
            begun = self.begin(*self._known)
            log.info("signer was started anew", order=begun.order, raised=begun.raised)
            return self._exchange(content)

    def _ask(self, asked: wire.Asked, blob: bytes = b"") -> tuple[Any, bytes]:
        return self._exchange(asked.model_dump_json().encode(), blob)

    def _exchange(self, content: bytes, blob: bytes = b"") -> tuple[Any, bytes]:
        """Send a request and read its answer; returns its value and its blob."""
        try:
            sent = wire.frame(content, blob)
        except wire.WireError as error:
            raise OperationError(f"signer {self._path}: {error}; nothing was signed") from error
        until = time.monotonic() + self._deadline_s
        with self._lock:
            for attempt in range(1, TRIES + 1):
                try:
                    raw, answered = self._once(sent, until)
                    return wire.read_answer(raw), answered
                except (OSError, wire.WireError) as error:
                    self._drop()
                    if attempt == TRIES or isinstance(error, TimeoutError | FileNotFoundError | ConnectionRefusedError):
                        raise SignerAwayError(
                            f"signer {self._path}: {_why(error)}; start 'flagship signer' on its home, "
                            "nothing is signed until it answers"
                        ) from error
        raise AssertionError("the last try returns or raises")

    def _once(self, sent: bytes, until: float) -> tuple[bytes, bytes]:
        if self._socket is None:
            self._socket = self._connect(until)
        self._socket.settimeout(_left(until))
        self._socket.sendall(sent)
        lengths = wire.HEADER.unpack(self._read(wire.HEADER.size, until))
        wire.check_lengths(*lengths)
        return self._read(lengths[0], until), self._read(lengths[1], until)

    def _connect(self, until: float) -> socket.socket:
        made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            made.settimeout(_left(until))
            made.connect(str(self._path))
        except OSError:
            made.close()
            raise
        return made

    def _read(self, length: int, until: float) -> bytes:
        assert self._socket is not None
        data = bytearray(length)
        view = memoryview(data)
        while view:
            self._socket.settimeout(_left(until))
            count = self._socket.recv_into(view)
            if not count:
                raise ConnectionResetError("the connection ended")
            view = view[count:]
        return bytes(data)

    def _drop(self) -> None:
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.close()
            self._socket = None


def _left(until: float) -> float:
    left = until - time.monotonic()
    if left <= 0:
        raise TimeoutError("it took too long")
    return left


def _why(error: Exception) -> str:
    match error:
        case FileNotFoundError() | ConnectionRefusedError():
            return "nobody listens there"
        case TimeoutError():
            return "no answer in time"
        case OSError():
            return str(error.strerror or error)
        case _:
            return str(error)
