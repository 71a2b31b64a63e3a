"""The signer as a process of its own: frames in, the room's answers out, on a Unix socket for its own user.

The socket is 0600, and who connects is asked of the kernel as well. A frame is looked at only when its length is
allowed, and must come whole within the deadline; requests are carried out one after the other in a thread.
"""

import asyncio
import contextlib
import os
import socket
import stat
import struct
from collections.abc import AsyncIterator
from pathlib import Path

import structlog

from orchestrator.errors import ConflictError, OperationError, SignerNewError
from orchestrator.signer import wire
from orchestrator.signer.client import check_path
from orchestrator.signer.seam import SigningRoom
from protocol.errors import FlagshipError

log = structlog.get_logger(__name__)

MAX_CONNECTIONS = 16
_PEER = struct.Struct("3i")


class SignerServer:
    """Serves one room on one socket."""

    def __init__(self, room: SigningRoom, path: Path, deadline_s: float, uid: int | None = None) -> None:
        """Nothing listens yet.

        Args:
            uid: Whose processes may ask; this process' user by default.

        Raises:
            UsageError: The path is too long.
        """
        self._room = room
        self._path = check_path(path)
        self._deadline_s = deadline_s
        self._uid = os.geteuid() if uid is None else uid
        self._writers: set[asyncio.StreamWriter] = set()
        self._left = asyncio.Event()
        self._begun = False  # until somebody has shown that the marks are no old copy, nothing is signed

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        """Answer for the length of the block; the caller holds the signer's lock, so a socket that is there is stale.

        Raises:
            ConflictError: Something that is no socket is in the way.
            OperationError: The socket cannot be made.
        """
        listener = _listen(self._path)
        server = await asyncio.start_unix_server(self._serve, sock=listener, limit=2**16)
        try:
            yield
        finally:
            server.close()
            for writer in self._writers:
                writer.close()  # its reader then comes to an end by itself
            async with asyncio.timeout(self._deadline_s):
                while self._writers:
                    await self._left.wait()
                    self._left.clear()
            with contextlib.suppress(OSError):
                self._path.unlink()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            refusal = self._refusal(writer)
            if refusal is not None:
                log.warning("peer refused", why=str(refusal))
                await self._write(writer, wire.write_error(refusal))
                return
            while (asked := await self._read(reader)) is not None:
                content, blob = await asyncio.to_thread(self._carry_out, *asked)
                await self._write(writer, content, blob)
        except wire.WireError as error:  # where the next frame begins is not known
            log.warning("connection closed", why=str(error))
            with contextlib.suppress(OSError, TimeoutError):
                await self._write(writer, wire.write_error(error))
        except (OSError, TimeoutError, asyncio.IncompleteReadError) as error:
            log.info("connection ended", why=str(error)[:200])
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
            self._writers.discard(writer)
            self._left.set()

    def _refusal(self, writer: asyncio.StreamWriter) -> OperationError | None:
        peer = writer.get_extra_info("socket")
        raw = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size)
        uid = _PEER.unpack(raw)[1]
        if uid != self._uid:
            return OperationError(f"peer: user {uid}, expected {self._uid}; run serve as the signer's user")
        if len(self._writers) > MAX_CONNECTIONS:
            return OperationError(f"peer: more than {MAX_CONNECTIONS} connections")
        return None

    async def _read(self, reader: asyncio.StreamReader) -> tuple[bytes, bytes] | None:
        """The next frame; None when the peer has gone. The first byte may take its time, the rest may not."""
        first = await reader.read(1)
        if not first:
            return None
        async with asyncio.timeout(self._deadline_s):
            lengths = wire.HEADER.unpack(first + await reader.readexactly(wire.HEADER.size - 1))
            wire.check_lengths(*lengths)
            return await reader.readexactly(lengths[0]), await reader.readexactly(lengths[1])

    async def _write(self, writer: asyncio.StreamWriter, content: bytes, blob: bytes = b"") -> None:
        writer.write(wire.frame(content, blob))
        async with asyncio.timeout(self._deadline_s):
            await writer.drain()

    def _carry_out(self, content: bytes, blob: bytes) -> tuple[bytes, bytes]:
        """One request. What the room refuses is an answer; so is what is no request."""
        try:
            return self._answer(wire.read_asked(content), blob)
        except (FlagshipError, ValueError) as error:
            log.warning("request refused", why=str(error)[:300])
            known = error if isinstance(error, FlagshipError) else OperationError(str(error)[:300])
            return wire.write_error(known), b""
        except Exception:
            log.exception("request failed")
            return wire.write_error(OperationError("a mistake inside the signer; its log says where")), b""

    def _answer(self, asked: wire.Asked, blob: bytes) -> tuple[bytes, bytes]:
        room = self._room
        if isinstance(asked, wire.Sign | wire.Bump) and not self._begun:
            raise SignerNewError(f"signer {self._path}: was started anew; numbers must be compared first")
        match asked:
            case wire.Begin():
                begun = room.begin(asked.stored, asked.timestamp)
                self._begun = True
                return wire.write_begun(begun), b""
            case wire.Sign():
                return wire.write_signed(room.sign(wire.requests_of(asked))), b""
            case wire.Bump():
                data = room.bump_timestamp(asked.snapshot, asked.listed)
                return wire.write_ok(room.highest_timestamp()), data
            case wire.Director():
                return wire.write_ok(room.use_director(asked.listed, switch=asked.switch)), b""
            case wire.Highest():
                return wire.write_ok(room.highest_timestamp()), b""
            case wire.Unseal():
                return wire.write_ok(), room.unseal(wire.from_base64(asked.sealed_key), blob)
            case wire.SignHead():
                return wire.write_ok(), room.sign_head(asked.entry, asked.digest)
            case wire.Revoke():
                room.revoke(asked.devices, asked.reason)
            case wire.Lift():
                room.lift(asked.rollout, asked.reason)
        return wire.write_ok(), b""


def _listen(path: Path) -> socket.socket:
    try:
        if path.is_socket():
            path.unlink()  # of a signer that was killed: its lock is ours
        elif path.exists():
            raise ConflictError(f"{path}: expected a socket or nothing, found a file; move it away")
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            before = os.umask(0o177)  # 0600 from the first moment on
            try:
                listener.bind(str(path))
            finally:
                os.umask(before)
            assert not stat.S_IMODE(path.stat().st_mode) & 0o077
            listener.listen(MAX_CONNECTIONS)
        except BaseException:
            listener.close()
            raise
    except OSError as error:
        raise OperationError(f"{path}: cannot be listened on: {error.strerror}; make its folder") from error
    return listener
