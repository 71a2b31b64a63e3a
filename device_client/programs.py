"""Running a program of the owner's or the maker's: a health check, a gate's hook, an update module.

It gets a plain environment and nothing of the agent's own. Whatever it started is killed when it ends, and when it does
not end in time.
"""

import asyncio
import contextlib
import os
import signal
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

LOG_BYTES = 10_240
MAX_OUT_BYTES = 65_536
MAX_INPUT_BYTES = 16_384
"""Fits in a pipe: it is there before the program is."""
_READ_BYTES = 65_536
_DRAIN_S = 1.0
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True, slots=True)
class Ended:
    """How a program ended.

    Attributes:
        code: Its exit code, a signal's number below 0; None where it could not be run or did not end in time.
        detail: Why it did not end well, in one clause; empty after 0.
        log: The end of what it wrote, at most 10 KiB, without control characters; without ``out`` where that was asked.
        out: What it wrote to its standard output, where that was asked for apart; at most 64 KiB.
    """

    code: int | None
    detail: str
    log: str
    out: str = ""

    @property
    def ok(self) -> bool:
        """Whether it ended with 0 in time."""
        return self.code == 0


async def run_program(
    argv: Sequence[str],
    timeout_s: float,
    env: Mapping[str, str],
    cwd: Path | None = None,
    *,
    what: str = "program",
    given: bytes = b"",
    apart: bool = False,
    stdin: int | None = None,
    inherited: Collection[int] = (),
) -> Ended:
    """Run a program to its end, or to its deadline; cancelled, it is killed.

    Args:
        argv: Program and arguments.
        timeout_s: How long it may take.
        env: Its environment, besides a plain PATH.
        cwd: Where it runs.
        what: What to call it in ``detail``.
        given: Its standard input, at most 16 KiB.
        apart: Whether its standard output is wanted by itself, as ``out``.
        stdin: A descriptor to read from instead of ``given``; stays open here.
        inherited: Descriptors that it has too, under the same numbers.
    """
    if len(given) > MAX_INPUT_BYTES:
        raise ValueError(f"{what}: at most {MAX_INPUT_BYTES} B of input, found {len(given)}")
    # Pipes of our own: with asyncio's, wait() would also wait for every child that the program leaves behind.
    async with contextlib.AsyncExitStack() as stack:
        log, out = _Pipe(), _Pipe()
        stack.push_async_callback(log.end)
        stack.push_async_callback(out.end)
        try:
            process = await asyncio.create_subprocess_exec(
                *argv,
                stdin=stack.enter_context(_input(given)) if stdin is None else stdin,
                stdout=(out if apart else log).write_end,
                stderr=log.write_end,
                env={"PATH": PATH, "LANG": "C.UTF-8", **env},
                cwd=cwd,
                start_new_session=True,
                pass_fds=tuple(inherited),
            )
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            return Ended(None, f"{what} {argv[0]} cannot be run: {why}", "")
        code = await _wait(process, timeout_s, (log, out))
    detail = f"did not end within {timeout_s:g} s" if code is None else f"ended with {_ending(code)}"
    text = bytes(out.head).decode(errors="replace")
    return Ended(code, "" if code == 0 else f"{what} {argv[0]} {detail}", clean(bytes(log.tail)), text)


def clean(raw: bytes) -> str:
    """The last 10 KiB as text in which no character moves a cursor."""
    text = raw[-LOG_BYTES:].decode(errors="replace")
    kept = "".join(c if c.isprintable() or c in "\n\t" else "?" for c in text.replace("\r\n", "\n"))
    return kept[-LOG_BYTES:]


class _Pipe:
    """What a program writes: its beginning and its end, both bounded."""

    def __init__(self) -> None:
        self.read_end, self.write_end = os.pipe()
        self.head, self.tail = bytearray(), bytearray()
        self._reading: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """Read; the writing end is the program's alone from here on."""
        os.close(self.write_end)
        self.write_end = -1
        self._reading = asyncio.create_task(self._read())

    async def end(self) -> None:
        """Take what is still there, without waiting for children that were left behind."""
        if self._reading is None:
            os.close(self.read_end)
            os.close(self.write_end)
            return
        try:
            # Not wait_for: in Python 3.11 it forgets that it was cancelled when what it waits for ends just then.
            await asyncio.wait([self._reading], timeout=_DRAIN_S)
        finally:
            self._reading.cancel()

    async def _read(self) -> None:
        reader = asyncio.StreamReader()
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(self.read_end, "rb", buffering=0)
        )
        try:
            while block := await reader.read(_READ_BYTES):
                self.head += block[: MAX_OUT_BYTES - len(self.head)]
                self.tail += block
                del self.tail[:-LOG_BYTES]
        finally:
            transport.close()


async def _wait(process: asyncio.subprocess.Process, timeout_s: float, pipes: Sequence[_Pipe]) -> int | None:
    for pipe in pipes:
        pipe.begin()
    try:
        async with asyncio.timeout(timeout_s):
            return await process.wait()
    except TimeoutError:
        return None
    finally:
        # The whole group: it may have left a child behind that keeps the pipe, or the device, busy.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


@contextlib.contextmanager
def _input(given: bytes) -> Iterator[int]:
    if not given:
        yield asyncio.subprocess.DEVNULL
        return
    read_end, write_end = os.pipe()
    try:
        os.write(write_end, given)
        os.close(write_end)
        yield read_end
    finally:
        os.close(read_end)


def _ending(code: int) -> str:
    return f"code {code}" if code >= 0 else f"signal {-code}"
