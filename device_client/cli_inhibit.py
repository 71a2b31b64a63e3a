"""``flagship-device inhibit``: say that the device is in use, by a file, or for as long as a program runs."""

import argparse
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from device_client import inhibitors
from device_client.config import load
from device_client.errors import DeviceError, NotFoundError, UsageError
from device_client.inhibit_socket import hold
from protocol.identifiers import check_id

RETRY_S = 1.0
_NOT_FOUND = 127
_SIGNALLED = 128


def add_to(verbs: "argparse._SubParsersAction[Any]", add_home: Callable[..., None]) -> None:
    """Make this command part of ``flagship-device``."""
    inhibit = verbs.add_parser(
        "inhibit",
        help="say that the device is in use: nothing is installed meanwhile",
        usage="%(prog)s [--home DIR] [--why TEXT] [--seconds S] [--release] WHO\n"
        "       %(prog)s [--home DIR] [--why TEXT] [--who WHO] --while -- PROGRAM [ARGUMENT ...]",
    )
    add_home(inhibit)
    inhibit.add_argument(
        "words", nargs="*", metavar="WHO", help="a name for who says so: letters, digits, '_' and '-'; or the program"
    )
    inhibit.add_argument("--who", help="with --while: a name for the program, if not its own")
    inhibit.add_argument("--why", default="in use")
    inhibit.add_argument("--seconds", type=float, help="until it ends by itself")
    inhibit.add_argument("--release", action="store_true", help="no longer in use")
    inhibit.add_argument("--while", action="store_true", dest="is_held", help="in use while a program runs")
    inhibit.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Carry it out.

    Raises:
        UsageError: The words do not fit together.
        NotFoundError: ``--release`` of what nobody said.
        SystemExit: With the program's exit code, after ``--while``.
    """
    home, _ = load(options.home)
    if options.is_held:
        sys.exit(_run_held(home.inhibit_socket, options))
    if len(options.words) != 1 or options.who:
        raise UsageError("inhibit: expected one name for who says so, or --while -- PROGRAM")
    (who,) = options.words
    if options.release:
        if not inhibitors.release(home.inhibitors, who):
            raise NotFoundError(f"inhibit: nobody named {who[:64]!r} says that the device is in use")
        print(f"{who}: no longer in use")
        return
    until = None
    if options.seconds is not None:
        if not 0 < options.seconds <= timedelta(days=365).total_seconds():
            raise UsageError("--seconds: expected more than 0 and at most a year")
        until = datetime.now(UTC) + timedelta(seconds=options.seconds)
    inhibitors.inhibit(home.inhibitors, who, options.why, until)
    print(f"{who}: in use; nothing is installed until 'flagship-device inhibit {who} --release'")


def _run_held(path: Path, options: argparse.Namespace) -> int:
    program: list[str] = options.words
    if not program or options.release or options.seconds is not None:
        raise UsageError("inhibit --while: expected '-- PROGRAM ARGUMENTS' and neither --release nor --seconds")
    if len(options.why) > inhibitors.MAX_WHY_CHARACTERS:
        raise UsageError(f"--why: at most {inhibitors.MAX_WHY_CHARACTERS} characters, found {len(options.why)}")
    who = options.who or re.sub(r"[^A-Za-z0-9_-]", "-", Path(program[0]).name)[:64].strip("-") or "program"
    try:
        check_id(who, "who")
    except ValueError as error:
        raise UsageError(str(error)) from error
    with _forwarding() as started, _Holder(path, who, options.why):
        return _run(program, started)


class _Holder:
    """Keeps the inhibitor up, also over a restart of the agent; the program runs whether it can be had or not."""

    def __init__(self, path: Path, who: str, why: str) -> None:
        self._path, self._who, self._why = path, who, why
        self._over = threading.Event()
        self._connection: socket.socket | None = None
        self._thread = threading.Thread(target=self._keep, daemon=True)

    def __enter__(self) -> None:
        self._hold()
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        if (connection := self._connection) is not None:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)  # wakes the thread, which alone closes
        self._thread.join(RETRY_S)

    def _hold(self) -> None:
        try:
            self._connection = hold(self._path, self._who, self._why)
        except DeviceError as error:
            if not self._over.is_set():
                print(f"flagship-device: not inhibited yet: {error}", file=sys.stderr)

    def _keep(self) -> None:
        while True:
            if (connection := self._connection) is not None:
                with connection, suppress(OSError):
                    while connection.recv(1):
                        pass  # nothing more is said there
            self._connection = None
            if self._over.wait(RETRY_S):
                return
            with suppress(DeviceError):
                self._connection = hold(self._path, self._who, self._why)


@contextmanager
def _forwarding() -> Iterator[Callable[[subprocess.Popen[bytes]], None]]:
    """Who ends this command ends its program; before there is one, the command alone."""
    children: list[subprocess.Popen[bytes]] = []

    def forward(number: int, _frame: object) -> None:
        if not children:
            sys.exit(_SIGNALLED + number)
        children[0].send_signal(number)

    former = {number: signal.signal(number, forward) for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)}
    try:
        yield children.append
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


def _run(program: list[str], started: Callable[[subprocess.Popen[bytes]], None]) -> int:
    """The program's exit code, and for a signal what a shell makes of it."""
    try:
        process = subprocess.Popen(program)
    except OSError as error:
        print(f"flagship-device: {program[0]}: {error.strerror}", file=sys.stderr)
        return _NOT_FOUND
    started(process)
    code = process.wait()
    return code if code >= 0 else _SIGNALLED - code
