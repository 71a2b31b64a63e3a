"""A disk whose power can be cut before any system call: ext4 in a file, and a shim that counts what changes it.

Needs root (loop mounts), gcc and mkfs.ext4; ``why_not`` says what is missing.
"""

import contextlib
import os
import shutil
import struct
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

SHIM = Path(__file__).with_name("shim.c")
SIZE_BYTES = 32 * 2**20
MOUNTED_S, RUN_S = 30.0, 120.0


class Cut(IntEnum):
    """What is gone after the cut: ``EXT4_IOC_SHUTDOWN``'s flags."""

    PROCESSES = 0
    DATA = 1
    UNSYNCED = 2


@dataclass(frozen=True, slots=True)
class Ran:
    """How a run ended: its exit code, the changes that were counted, what it said."""

    code: int
    changes: int
    output: str


def why_not() -> str:
    """What keeps power from being cut here; empty where nothing does."""
    if os.geteuid() != 0:
        return "power cuts need root: they mount a file system"
    missing = [name for name in ("gcc", "mkfs.ext4", "mount", "umount") if shutil.which(name) is None]
    if missing or not Path("/dev/loop-control").exists():
        return f"power cuts need {', '.join(missing) or '/dev/loop-control'}"
    return ""


class Disk:
    """One file system, below a folder of its own."""

    def __init__(self, place: Path) -> None:
        self._image, self.root = place / "disk.img", place / "disk"
        self._count, self._shim = place / "count", place / "shim.so"
        self.root.mkdir()
        _call(["gcc", "-O2", "-shared", "-fPIC", "-o", str(self._shim), str(SHIM), "-ldl"])

    @contextlib.contextmanager
    def fresh(self, template: Path) -> Iterator[None]:
        """Mounted, with a copy of a folder on it, all of it durable; unmounted afterwards."""
        with self._image.open("wb") as file:
            file.truncate(SIZE_BYTES)
        _call(["mkfs.ext4", "-q", "-F", str(self._image)])
        self.mount()
        try:
            shutil.copytree(template, self.root / "home", symlinks=True)
            os.sync()
            yield
        finally:
            self.unmount()

    def mount(self) -> None:
        """As it is found after power came back: the journal is replayed."""
        _call(["mount", "-o", "loop", str(self._image), str(self.root)])

    def unmount(self) -> None:
        """Nobody may be at work on it."""
        _call(["umount", str(self.root)])

    def run(self, argv: Sequence[str], *, at: int = 0, cut: Cut = Cut.UNSYNCED, drop_syncs: bool = False) -> Ran:
        """Run a program whose power is cut before its ``at``-th change of the disk; 0 cuts none, and counts."""
        self._count.write_bytes(bytes(8))
        env = {
            **os.environ,
            "LD_PRELOAD": str(self._shim),
            "POWER_ROOT": str(self.root),
            "POWER_COUNT": str(self._count),
            "POWER_AT": str(at),
            "POWER_MODE": str(int(cut)),
            **({"POWER_DROP": "1"} if drop_syncs else {}),
        }
        done = subprocess.run(
            argv,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=RUN_S,
            check=False,
            start_new_session=True,
        )
        (changes,) = struct.unpack("Q", self._count.read_bytes())
        return Ran(done.returncode, changes, done.stdout.decode(errors="replace")[-4000:])

    def power_again(self) -> None:
        """After a cut: what was in memory only is gone."""
        self.unmount()
        self.mount()


def _call(argv: Sequence[str]) -> None:
    subprocess.run(argv, check=True, timeout=MOUNTED_S, stdin=subprocess.DEVNULL)
