"""Where passwords and PINs come from: a file, a file descriptor, or the terminal.

Never from a word of the command line or a variable: those stand in process lists and shell histories.
"""

import getpass
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from orchestrator.errors import UsageError
from orchestrator.publisher.key_uris import Ask, CannotAskError, read_private_file

MAX_SECRET_BYTES = 1024

PasswordFile = Annotated[
    Path | None, typer.Option("--password-file", help="file (0600) whose first line is the key's password or PIN")
]
PasswordFd = Annotated[
    int | None, typer.Option("--password-fd", min=0, help="file descriptor that the password or PIN is read from")
]


def ask_from(file: Path | None, descriptor: int | None) -> Ask:
    """A way to ask: each source is read once, and answers every question of this command.

    Raises:
        UsageError: Both are named.
        NotAllowedError: Others may read the file.
    """
    if file is not None and descriptor is not None:
        raise UsageError("--password-file and --password-fd: name one of them")
    given: dict[str, str] = {}

    def ask(what: str) -> str:
        source = "" if file is not None or descriptor is not None else what
        if source not in given:
            given[source] = _read(what, file, descriptor)
        return given[source]

    return ask


def ask_new(what: str, file: Path | None, descriptor: int | None) -> str:
    """A new password; typed twice at a terminal.

    Raises:
        UsageError: It is empty, or the two differ.
    """
    password = ask_from(file, descriptor)(what)
    if file is None and descriptor is None and getpass.getpass(f"{what}, again: ") != password:
        raise UsageError(f"{what}: the two are not the same; nothing was written")
    return password


def _read(what: str, file: Path | None, descriptor: int | None) -> str:
    if file is not None:
        text = read_private_file(file).decode("utf-8", "replace")
    elif descriptor is not None:
        try:
            text = os.read(descriptor, MAX_SECRET_BYTES + 1).decode("utf-8", "replace")
        except OSError as error:
            raise UsageError(f"--password-fd {descriptor}: cannot be read: {error.strerror}") from error
    elif sys.stdin.isatty():
        text = getpass.getpass(f"{what}: ")
    else:
        raise CannotAskError(f"{what}: is needed, and there is no terminal; name --password-file or --password-fd")
    lines = text.splitlines()
    if not lines or not lines[0] or len(text) > MAX_SECRET_BYTES:
        raise UsageError(f"{what}: expected one line of at most {MAX_SECRET_BYTES} characters, found none")
    return lines[0]
