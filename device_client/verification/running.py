"""Does the running version work? A program of the owner's says so with its exit code."""

import asyncio
import contextlib
import os
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

LOG_BYTES = 10_240
_READ_BYTES = 65_536
_DRAIN_S = 1.0
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True, slots=True)
class HealthResult:
    """What the check said.

    Attributes:
        ok: Whether it ended with 0 in time.
        detail: Why not, in one clause.
        log: The end of what it wrote, at most 10 KiB, without control characters.
    """

    ok: bool
    detail: str
    log: str


async def run_health(
    argv: Sequence[str], timeout_s: float, env: Mapping[str, str], cwd: Path | None = None
) -> HealthResult:
    """Run a health check; whatever it started is killed when it ends, and when it does not end in time.

    Args:
        argv: Program and arguments; empty means that nothing is checked.
        timeout_s: How long it may take.
        env: Its environment, besides a plain PATH: nothing of the agent's own is passed on.
        cwd: Where it runs.
    """
    if not argv:
        return HealthResult(True, "no check is configured", "")
    # A pipe of our own: with asyncio's, wait() would also wait for every child that the check leaves behind.
    read_end, write_end = os.pipe()
    try:
        process = await asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=write_end,
            stderr=asyncio.subprocess.STDOUT,
            env={"PATH": _PATH, "LANG": "C.UTF-8", **env},
            cwd=cwd,
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        os.close(read_end)
        why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        return HealthResult(False, f"health check {argv[0]} cannot be run: {why}", "")
    finally:
        os.close(write_end)
    tail = bytearray()
    reading = asyncio.create_task(_read_tail(read_end, tail))
    try:
        async with asyncio.timeout(timeout_s):
            code = await process.wait()
        detail = "" if code == 0 else f"health check {argv[0]} ended with {_ending(code)}"
    except TimeoutError:
        code, detail = -1, f"health check {argv[0]} did not end within {timeout_s:g} s"
    finally:
        # The whole group: a check may have left a child behind that keeps the pipe, or the device, busy.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(reading, _DRAIN_S)
    return HealthResult(code == 0, detail, clean(bytes(tail)))


def clean(raw: bytes) -> str:
    """The last 10 KiB as text in which no character moves a cursor."""
    text = raw[-LOG_BYTES:].decode(errors="replace")
    kept = "".join(c if c.isprintable() or c in "\n\t" else "?" for c in text.replace("\r\n", "\n"))
    return kept[-LOG_BYTES:]


async def _read_tail(descriptor: int, tail: bytearray) -> None:
    reader = asyncio.StreamReader()
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(descriptor, "rb", buffering=0)
    )
    try:
        while block := await reader.read(_READ_BYTES):
            tail += block
            del tail[:-LOG_BYTES]
    finally:
        transport.close()


def _ending(code: int) -> str:
    return f"code {code}" if code >= 0 else f"signal {-code}"
