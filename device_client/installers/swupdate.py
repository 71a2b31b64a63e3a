"""SWUpdate: an image is streamed to the program, which writes the copy that does not run.

Which copy that is, and how the boot loader is told, is the maker's: three small programs, named in ``device.toml``.
"""

import asyncio
import contextlib
import fcntl
import os
import re
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import structlog

from device_client.config_installers import SwupdateSection
from device_client.durable import explained
from device_client.errors import DeviceError
from device_client.installers.copies import Copies, CopiesInstaller
from device_client.installers.copies_state import Trial
from device_client.installers.installer import InstallError
from device_client.installers.swupdate_progress import ProgressReader
from device_client.programs import Ended, clean, run_program

log = structlog.get_logger(__name__)

COPIES = ("1", "2")
PROGRAM_S = 60.0
"""How long the maker's programs may take."""
BEGIN_S = 2.0
MAX_SOCKET_PATH = 107
_LONGEST_SOCKET = "sockinstctrl"
_FOLDER = "swu-"
_LOCK_RETRY_S = 0.1
_BLOCK_BYTES = 2**20
_ERROR_LINE = re.compile(r"^\[ERROR *\] : (?:SWUPDATE failed \[\d+\] )?(?:ERROR ?[^:]*: )?(?P<why>.+)$", re.MULTILINE)


class SwupdateInstaller(CopiesInstaller):
    """Copies 1 and 2."""

    def __init__(self, settings: SwupdateSection, state: Path, work: Path, boot_id: Callable[[], str]) -> None:
        """Let SWUpdate keep its sockets and temporary files below ``work``."""
        super().__init__(state, boot_id)
        self._settings = settings
        self._work = work
        self._lock = state.with_name("swupdate.lock")

    def _look(self) -> Copies:
        ended = self._run(self._settings.active, "active")
        said = ended.out.strip()
        if said not in COPIES:
            raise InstallError(f"{self._settings.active[0]}: expected 1 or 2, the copy that runs, found {said[:40]!r}")
        return Copies(said, COPIES[1 - COPIES.index(said)])

    def _write(self, bundle: Path, trial: Trial, *, repeated: bool) -> None:
        """From the start each time: SWUpdate tells nobody afterwards whether it ended."""
        del repeated
        until = time.monotonic() + self._settings.timeout_s
        with self._alone(until) as lock, self._folder() as folder, ProgressReader(folder) as progress:
            with _streamed(bundle, progress.connected) as stream:
                ended = _ended(self._install(trial.copy_name, folder, stream.read_end, lock, until))
            text = clean(f"{progress.text}\n{ended.log}".encode())
        if not ended.ok:
            # SWUpdate says the reason first, and then what follows from it.
            why = _ERROR_LINE.search(ended.log)
            raise InstallError(
                f"swupdate: {why['why'][:400]}" if why and ended.code is not None else ended.detail, text
            )
        if stream.error is not None:
            raise InstallError(f"{bundle}: cannot be read: {stream.error}", text)
        os.sync()  # handlers that write files do not all wait for the disk
        log.info("swupdate ended well", copy=trial.copy_name)

    def _settle(self) -> None:
        with self._alone(time.monotonic() + self._settings.timeout_s):
            pass

    def _start_next(self, copy: str) -> None:
        self._run((*self._settings.activate, copy), "activate")
        os.sync()

    def _keep(self, copy: str) -> None:
        if self._settings.keep:
            self._run((*self._settings.keep, copy), "keep")
            os.sync()

    def _give_up(self, _copy: str) -> None:
        """Nothing: ``activate`` with the other copy said it already."""

    def _mark(self, _copy: str) -> str:
        """Nothing: SWUpdate does not count."""
        return ""

    def _can_start(self, _copy: str) -> bool:
        """Yes: no program says otherwise."""
        return True

    def _fault(self, _copy: str) -> str:
        """Nothing can be compared: what an image writes, and where, only its own description says.

        SWUpdate compares each part with its signed hash while it writes it, and fails where one differs.
        """
        return ""

    async def _install(self, copy: str, folder: Path, stdin: int, lock: int, until: float) -> Ended:
        settings = self._settings
        argv = (
            *("swupdate", "-l", "3", "-k", str(settings.key), "-H", settings.hardware),
            *("-e", settings.selections[COPIES.index(copy)], *settings.extra, "-i", "/dev/stdin"),
        )
        left_s = max(until - time.monotonic(), 0.1)
        # The lock lives as long as any process of it: one that outlives this agent is waited for by the next.
        return await run_program(
            argv, left_s, {"TMPDIR": str(folder)}, folder, what="program", stdin=stdin, inherited=(lock,)
        )

    def _run(self, argv: Sequence[str], what: str) -> Ended:
        ended = _ended(run_program(argv, PROGRAM_S, {}, what=f"[installer.swupdate] {what}", apart=True))
        if not ended.ok:
            raise InstallError(ended.detail, ended.log)
        return ended

    @contextlib.contextmanager
    def _alone(self, until: float) -> Iterator[int]:
        with _as_install_error(self._lock, "locked"):
            lock = os.open(self._lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            while True:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError as error:
                    if time.monotonic() > until:
                        raise InstallError("swupdate of an earlier run has not ended; reboot the device") from error
                time.sleep(_LOCK_RETRY_S)
            yield lock
        finally:
            os.close(lock)

    @contextlib.contextmanager
    def _folder(self) -> Iterator[Path]:
        """Its own each time, for the sockets have fixed names; what an earlier run left is removed."""
        with _as_install_error(self._work, "used"):
            for left in self._work.glob(f"{_FOLDER}*"):
                shutil.rmtree(left, ignore_errors=True)
            folder = Path(tempfile.mkdtemp(prefix=_FOLDER, dir=self._work))
        try:
            if len(os.fsencode(folder / _LONGEST_SOCKET)) > MAX_SOCKET_PATH:
                raise InstallError(f"{folder}: too long for a socket in it, at most {MAX_SOCKET_PATH} B; move the home")
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _ended(work: Coroutine[None, None, Ended]) -> Ended:
    """From any thread, also from one with an event loop: what runs is asked for there, once in a boot."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, work).result()


class _Stream:
    """A file that goes into a pipe. Not the file itself: with this agent the pipe ends, and SWUpdate with it."""

    def __init__(self, file: int, begin: threading.Event) -> None:
        """Stream once ``begin`` is set, or after a moment: it only serves to see the progress from its beginning."""
        self._file = file
        self._begin = begin
        self.read_end, self._write_end = os.pipe()
        self.error: OSError | None = None
        self._thread = threading.Thread(target=self._feed, name="swupdate-stream", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End; a thread that still writes is told so by the closed pipe."""
        self._begin.set()
        os.close(self.read_end)
        self._thread.join()

    def _feed(self) -> None:
        try:
            self._begin.wait(BEGIN_S)
            while block := os.read(self._file, _BLOCK_BYTES):
                view = memoryview(block)
                while view:
                    view = view[os.write(self._write_end, view) :]
        except BrokenPipeError:
            pass  # it has read what it wanted, or failed and said why
        except OSError as error:
            self.error = error
        finally:
            os.close(self._write_end)


@contextlib.contextmanager
def _streamed(bundle: Path, begin: threading.Event) -> Iterator[_Stream]:
    with _as_install_error(bundle, "read"):
        file = os.open(bundle, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        stream = _Stream(file, begin)
        try:
            yield stream
        finally:
            stream.close()
    finally:
        os.close(file)


@contextlib.contextmanager
def _as_install_error(path: Path, verb: str) -> Iterator[None]:
    try:
        with explained(path, verb):
            yield
    except DeviceError as error:
        raise InstallError(str(error)) from error
