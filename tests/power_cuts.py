"""Deaths at any instant: a process that is gone before its n-th change of the disk."""

import os
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

_CHANGING = frozenset({"os.rename", "os.remove", "os.symlink", "os.mkdir", "os.rmdir", "os.chmod", "os.truncate"})
_CUT = 77


def dies_at(number: int, below: Path, work: Callable[[], object]) -> bool:
    """Run work in a process of its own that is gone before its n-th change of the disk; whether it was cut."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # fork with threads: this child starts none
        pid = os.fork()
    if pid == 0:
        code = 1
        try:
            _count_changes(number, str(below))
            work()
            code = 0
        finally:
            os._exit(code)
    _, status = os.waitpid(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    assert code in (0, _CUT), f"the child failed before change {number}"
    return code == _CUT


def _count_changes(number: int, below: str) -> None:
    left = number
    fsync = os.fsync

    def count() -> None:
        nonlocal left
        if left == 0:
            os._exit(_CUT)
        left -= 1

    def hook(event: str, args: tuple[Any, ...]) -> None:
        if event in _CHANGING or (
            event == "open" and args[2] & (os.O_WRONLY | os.O_RDWR) and str(args[0]).startswith(below)
        ):
            count()

    def counted(descriptor: int) -> None:
        count()
        fsync(descriptor)

    os.fsync = counted  # type: ignore[assignment]
    sys.addaudithook(hook)
