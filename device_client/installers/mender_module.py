"""Running one of Mender's update modules, version 3, unchanged: ``MODULE STATE TREE``, in the tree.

What a module may be is checked before each run: it acts with all rights that the agent has.
"""

import asyncio
import contextlib
import os
import pwd
import signal
import stat
import time
from collections.abc import Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from device_client.config_installers import MenderSection
from device_client.installers.installer import InstallError
from device_client.installers.mender_state import ModuleState
from device_client.installers.mender_streams import NEXT, STREAMS, Feeder, Taken
from device_client.installers.mender_tree import Payload
from device_client.programs import Ended, run_program

T = TypeVar("T")

MARK = "OTA_CONTRACT"
_GONE_S = 5.0
_OTHERS_MAY_WRITE = stat.S_IWGRP | stat.S_IWOTH


class Module:
    """The module that ``device.toml`` names."""

    def __init__(self, settings: MenderSection) -> None:
        self.name = settings.module
        self._settings = settings

    def run(self, state: ModuleState, tree: Path, env: Mapping[str, str]) -> None:
        """Run it for one state, to its end. Blocks.

        Args:
            env: What is added to PATH, LANG, TZ and HOME.

        Raises:
            InstallError: It may not be run, failed, or did not end in time.
        """
        self._check(state, _to_its_end(self._start(state, tree, env)))

    def ask(self, query: ModuleState, tree: Path, env: Mapping[str, str]) -> str:
        """What it answers; empty where it does not know the query. Blocks; raises as ``run``."""
        ended = _to_its_end(self._start(query, tree, env, apart=True))
        self._check(query, ended)
        return ended.out.strip()

    def download(
        self, tree: Path, env: Mapping[str, str], source: int, payloads: tuple[Payload, ...], *, with_sizes: bool
    ) -> bool:
        """Offer it the payloads as streams; whether it took them. Blocks.

        Args:
            source: The release's stream, an open file.

        Raises:
            InstallError: As ``run``; or it ended well without having taken all that it began with.
            OSError: A pipe cannot be made, or the stream cannot be read.
        """
        feeder = Feeder(tree, source, payloads, with_sizes=with_sizes)
        return _to_its_end(self._download(tree, env, feeder, with_sizes))

    async def _download(self, tree: Path, env: Mapping[str, str], feeder: Feeder, with_sizes: bool) -> bool:
        state = ModuleState.DOWNLOAD_WITH_SIZES if with_sizes else ModuleState.DOWNLOAD
        feeder.prepare()
        running = asyncio.create_task(self._start(state, tree, env))
        try:
            taken = await feeder.feed(running)
            ended = await running
        finally:
            running.cancel()
            await asyncio.wait({running})
        self._check(state, ended)
        if taken is Taken.SOME:
            raise InstallError(f"module {self.name}: {state}: ended well and had not read all payloads", ended.log)
        return taken is Taken.ALL

    async def _start(self, state: ModuleState, tree: Path, env: Mapping[str, str], *, apart: bool = False) -> Ended:
        own = {"PATH": self._settings.search_path, "HOME": _home()}
        if zone := os.environ.get("TZ"):
            own["TZ"] = zone
        argv = [str(self._file()), state.value, str(tree)]
        return await run_program(argv, self._settings.timeout_s, {**own, **env}, tree, what="module", apart=apart)

    def _check(self, state: ModuleState, ended: Ended) -> None:
        if not ended.ok:
            raise InstallError(f"module {self.name}: {state}: {ended.detail}", ended.log)

    def _file(self) -> Path:
        """The module by its name, so that it finds itself under it; what others could change is not run."""
        folder, what = self._settings.modules, f"module {self.name}"
        try:
            root = folder.resolve(strict=True)
            file = (folder / self.name).resolve(strict=True)
            chain = [file, *(parent for parent in file.parents if parent == root or root in parent.parents)]
            found = [(path, path.stat()) for path in chain]
        except (OSError, RuntimeError) as error:  # a loop of links is a RuntimeError
            raise InstallError(f"{what}: not found in {folder}; install it there") from error
        if root not in file.parents:
            raise InstallError(f"{what}: leads out of {folder}; put the file itself there")
        if not stat.S_ISREG(found[0][1].st_mode) or not os.access(file, os.X_OK):
            raise InstallError(f"{what}: expected an executable file in {folder}")
        for path, at in found:
            if at.st_uid not in (0, os.geteuid()) or at.st_mode & _OTHERS_MAY_WRITE:
                raise InstallError(f"{what}: others than root and the agent may change {path}; mend its owner and mode")
        return root / self.name


def end_leftovers(tree: Path) -> None:
    """Kill what an earlier run left behind: the agent was killed while the module ran, and the module was not.

    Raises:
        InstallError: It does not go away.
    """
    deadline = time.monotonic() + _GONE_S
    while left := _runs_in(tree):
        if time.monotonic() > deadline:
            raise InstallError(f"process {left[0]}: an earlier run of the update module cannot be ended")
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                group = os.getpgid(pid)
                if group != os.getpgrp():
                    os.killpg(group, signal.SIGKILL)
        time.sleep(0.01)


def drop_pipes(tree: Path) -> None:
    """Remove what ``download`` made for the module to read from."""
    (tree / NEXT).unlink(missing_ok=True)
    with contextlib.suppress(FileNotFoundError):
        for pipe in (tree / STREAMS).iterdir():
            pipe.unlink()
        (tree / STREAMS).rmdir()


def _to_its_end(work: Coroutine[Any, Any, T]) -> T:
    """In a thread of its own: an event loop may be running in this one."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, work).result()


def _runs_in(tree: Path) -> list[int]:
    """Modules and what they started, by their environment: a person's shell in that folder is left alone."""
    mark, place, found = f"{MARK}=".encode(), str(tree), []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if os.readlink(process / "cwd") != place:  # noqa: PTH115 - compared as the kernel says it
                continue
            if any(entry.startswith(mark) for entry in (process / "environ").read_bytes().split(b"\0")):
                found.append(int(process.name))
    return found


def _home() -> str:
    try:
        return os.environ.get("HOME") or pwd.getpwuid(os.geteuid()).pw_dir
    except KeyError:
        return "/"
