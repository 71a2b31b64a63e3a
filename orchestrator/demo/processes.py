"""Runs the commands that a person would run, and the servers that stay. Everything is stopped by its own process id."""

import asyncio
import contextlib
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from orchestrator.errors import OperationError

COMMAND_TIMEOUT_S = 120.0
STOP_TIMEOUT_S = 15.0
TAIL_BYTES = 2000


def program(name: str) -> str:
    """The console script beside this interpreter.

    Raises:
        OperationError: It is not installed.
    """
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.is_file() else shutil.which(name)
    if found is None:
        raise OperationError(f"{name}: the command is not installed beside {sys.executable}; install flagship[dev]")
    return found


def _environment(env: dict[str, str] | None) -> dict[str, str]:
    """Ours without the token of another fleet."""
    ours = {name: value for name, value in os.environ.items() if name not in {"FLAGSHIP_TOKEN", "FLAGSHIP_TOKEN_FILE"}}
    return {**ours, **(env or {})}


async def command(*words: str | Path, env: dict[str, str] | None = None) -> str:
    """Run one command to its end and return what it printed.

    Raises:
        OperationError: It failed, with its own sentence, or did not end in time.
    """
    argv = [program(str(words[0])), *map(str, words[1:])]
    process = await asyncio.create_subprocess_exec(
        *argv,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=_environment(env),
    )
    try:
        async with asyncio.timeout(COMMAND_TIMEOUT_S):
            out, err = await process.communicate()
    except TimeoutError:
        process.kill()
        raise OperationError(f"{' '.join(map(str, words[:3]))}: no end within {COMMAND_TIMEOUT_S:.0f} s") from None
    if process.returncode:
        said = err.decode(errors="replace").strip()[-TAIL_BYTES:]
        raise OperationError(f"{' '.join(map(str, words[:3]))} ended with {process.returncode}: {said}")
    return out.decode(errors="replace")


class Server:
    """A process that stays until it is stopped or killed."""

    def __init__(self, log: Path, words: Sequence[str | Path], env: dict[str, str] | None = None) -> None:
        self._log = log
        self._words = words
        self._env = env
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Start it; its output goes to the log."""
        argv = [program(str(self._words[0])), *map(str, self._words[1:])]
        with self._log.open("ab") as out:
            self._process = await asyncio.create_subprocess_exec(
                *argv,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                env=_environment(self._env),
            )

    @property
    def pid(self) -> int:
        """Its process id; 0 while it does not run."""
        return self._process.pid if self._process and self._process.returncode is None else 0

    def check(self) -> None:
        """Notice a process that ended by itself.

        Raises:
            OperationError: With the end of its log.
        """
        if self._process and self._process.returncode is not None:
            tail = self._log.read_bytes()[-TAIL_BYTES:].decode(errors="replace").strip()
            raise OperationError(f"{self._words[0]} ended with {self._process.returncode}; its log ends: {tail}")

    async def kill(self) -> None:
        """SIGKILL: no goodbye, no cleaning up."""
        if self._process and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()
        self._process = None

    async def stop(self) -> None:
        """SIGTERM, and SIGKILL when it takes too long."""
        process, self._process = self._process, None
        if process is None or process.returncode is not None:
            return
        process.terminate()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STOP_TIMEOUT_S):
                await process.wait()
        if process.returncode is None:
            process.kill()
            await process.wait()
