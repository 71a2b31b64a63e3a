"""Handing payloads to an update module through named pipes, one at a time.

The module reads ``streams/NAME`` from the pipe ``stream-next``, then that pipe to its end, then ``stream-next`` again;
reading nothing from it means that there is no more. A module that never opens ``stream-next`` declines.
"""

import asyncio
import errno
import os
from collections.abc import Callable
from enum import Enum
from pathlib import Path

from device_client.installers.installer import InstallError
from device_client.installers.mender_tree import FILE_MODE, FOLDER_MODE, Payload
from device_client.programs import Ended

_FIRST_LOOK_S = 0.002
_LONGEST_LOOK_S = 0.05
_BLOCK_BYTES = 2**20
NEXT = "stream-next"
STREAMS = "streams"
Run = asyncio.Task[Ended]


class Taken(Enum):
    """What a module took of the payloads."""

    ALL = "all"
    SOME = "some"
    NONE = "none"


class _GoneError(Exception):
    """The module does not read any more."""


class Feeder:
    """Feeds one run of a module; ``prepare`` before it is started, ``feed`` while it runs."""

    def __init__(self, tree: Path, source: int, payloads: tuple[Payload, ...], *, with_sizes: bool) -> None:
        """``source`` is the release's stream, an open file; ``with_sizes``: as for ``DownloadWithFileSizes``."""
        self._tree, self._source, self._payloads = tree, source, payloads
        self._with_sizes = with_sizes

    def prepare(self) -> None:
        """Make the pipe that the module looks for first."""
        (self._tree / STREAMS).mkdir(mode=FOLDER_MODE)
        os.mkfifo(self._tree / NEXT, FILE_MODE)

    async def feed(self, over: Run) -> Taken:
        """Hand over one payload after the other, until all are taken or ``over``, the module's run, is done.

        Raises:
            InstallError: The stream ends too early.
            OSError: It cannot be read.
        """
        taken = Taken.NONE
        try:
            for payload in self._payloads:
                line = f"{STREAMS}/{payload.name}" + (f" {payload.length}" if self._with_sizes else "")
                pipe = self._tree / STREAMS / payload.name

                # Before stream-next is closed: the module must not look for a pipe that is not there yet.
                def make(pipe: Path = pipe) -> None:
                    os.mkfifo(pipe, FILE_MODE)

                await self._hand_over(NEXT, f"{line}\n".encode(), over, make)
                taken = Taken.SOME
                await self._pour(payload, over)
            taken = Taken.ALL
            await self._hand_over(NEXT, b"", over)
        except _GoneError:
            pass
        return taken

    async def _hand_over(self, name: str, data: bytes, over: Run, then: Callable[[], None] | None = None) -> None:
        descriptor = await self._open(name, over)
        try:
            if then is not None:
                then()
            await _write(descriptor, data, over)
        finally:
            os.close(descriptor)

    async def _pour(self, payload: Payload, over: Run) -> None:
        descriptor = await self._open(f"{STREAMS}/{payload.name}", over)
        try:
            offset, end = payload.offset, payload.offset + payload.length
            while offset < end:
                block = os.pread(self._source, min(_BLOCK_BYTES, end - offset), offset)
                if not block:
                    raise InstallError(f"file {payload.name!r}: the stream ends {end - offset} B too early")
                await _write(descriptor, block, over)
                offset += len(block)
        finally:
            os.close(descriptor)

    async def _open(self, name: str, over: Run) -> int:
        look_s = _FIRST_LOOK_S
        while True:
            try:
                return os.open(self._tree / name, os.O_WRONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
            except FileNotFoundError as error:
                raise _GoneError from error
            except OSError as error:
                if error.errno != errno.ENXIO:  # nobody reads it yet
                    raise
            if over.done():
                raise _GoneError
            # Not a notice: opening a pipe for reading tells nobody. Longer after a while: a module may take minutes.
            await asyncio.wait({over}, timeout=look_s)
            look_s = min(look_s * 1.1, _LONGEST_LOOK_S)


async def _write(descriptor: int, data: bytes, over: Run) -> None:
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(descriptor, view) :]
        except BlockingIOError:
            if over.done():
                raise _GoneError from None
            await _until_writable(descriptor, over)
        except BrokenPipeError as error:
            raise _GoneError from error


async def _until_writable(descriptor: int, over: Run) -> None:
    loop, ready = asyncio.get_running_loop(), asyncio.Event()
    loop.add_writer(descriptor, ready.set)
    waiting = asyncio.create_task(ready.wait())
    try:
        await asyncio.wait({waiting, over}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        loop.remove_writer(descriptor)
        waiting.cancel()
