"""A device whose software a small update module of ours puts in place: it does what a folder of files tells it to."""

import os
import warnings
from collections.abc import Callable
from pathlib import Path

from device_client.config import DeviceSection
from device_client.config_installers import MenderSection
from device_client.installers import mender_state
from device_client.installers.installer import Next
from device_client.installers.mender import MenderInstaller
from device_client.installers.mender_state import MenderState
from protocol.manifest import Artifact

MakeArtifact = Callable[[dict[str, tuple[int, bytes]], dict[str, str]], tuple[Artifact, bytes]]
DIGEST = "ab" * 32

MODULE = r"""#!/bin/sh
# Beside this file lie: says/STATE, what to answer; fail/STATE and its-parent/STATE, when to fail or to kill the agent,
# `before` or `after` the work; device/, the device; trace, what was asked for.
set -eu
here="${0%/*}" state="$1" tree="$2"
device="$here/device"
echo "$state" >> "$here/trace"
asked() { [ -e "$here/$1/$state" ] && read -r when < "$here/$1/$state" && [ "$when" = "$2" ]; }
disturbed() {
    if asked its-parent "$1"; then rm "$here/its-parent/$state"; kill -9 $PPID; fi
    if asked fail "$1"; then echo "broke in $state" >&2; exit 3; fi
}
disturbed before
if [ -e "$here/says/$state" ]; then read -r answer < "$here/says/$state"; echo "$answer"; fi
case "$state" in
    ArtifactInstall)
        [ ! -e "$tree/tmp/old" ] || { echo "installs over its own remains" >&2; exit 4; }
        cp "$device/software" "$tree/tmp/old"
        printf torn > "$device/software"
        cat "$tree/files/"* > "$device/software"
        ;;
    ArtifactRollback)
        [ ! -e "$tree/tmp/old" ] || cp "$tree/tmp/old" "$device/software"
        ;;
    ArtifactReboot|ArtifactRollbackReboot) cp "$device/software" "$device/booted" ;;
    ArtifactVerifyReboot|ArtifactVerifyRollbackReboot) cmp -s "$device/software" "$device/booted" ;;
esac
disturbed after
exit 0
"""


class Bench:
    """One device; ``installer`` is a new one each time, as after a restart."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.modules, self.home, self.device = path / "modules", path / "home", path / "modules" / "device"
        self.boot, self.root = "first", Path("/")
        self.synced: list[str] = []
        self.settings = MenderSection(module="ours", modules=self.modules, timeout_s=20)

    def make(self, module: str = MODULE) -> "Bench":
        """A device that runs ``old``, from the factory."""
        for folder in (
            self.home / "state",
            self.device,
            *(self.modules / name for name in ("says", "fail", "its-parent")),
        ):
            folder.mkdir(parents=True)
            folder.chmod(0o755)
        self.modules.chmod(0o755)
        self.write_module(module)
        self.say("SupportsRollback", "Yes")
        (self.device / "software").write_bytes(b"old")
        (self.device / "booted").write_bytes(b"old")
        self.installer.install_factory(self.device / "software", "1.0.0")
        return self

    def write_module(self, text: str, name: str = "ours") -> None:
        """Put a module in place."""
        (self.modules / name).write_text(text)
        (self.modules / name).chmod(0o755)

    @property
    def installer(self) -> MenderInstaller:
        """It knows nothing but what is on the disk."""
        device = DeviceSection(id="cam-7", product="cam", hardware="mk2")
        return MenderInstaller(
            self.home / "mender",
            self.state_file,
            self.settings,
            device,
            lambda: self.boot,
            sync=self._note_sync,
            root=self.root,
        )

    @property
    def state_file(self) -> Path:
        """Where the installer notes where it stands."""
        return self.home / "state" / "installer.json"

    @property
    def state(self) -> MenderState:
        """What it noted."""
        return mender_state.load(self.state_file)

    @property
    def tree(self) -> Path:
        """What the module is given."""
        return self.home / "mender" / "tree"

    @property
    def trace(self) -> list[str]:
        """What the module was run for, so far."""
        trace = self.modules / "trace"
        return trace.read_text().split() if trace.exists() else []

    @property
    def software(self) -> str:
        """What is in place."""
        return (self.device / "software").read_text()

    def say(self, state: str, answer: str) -> None:
        """Let the module answer that."""
        (self.modules / "says" / state).write_text(f"{answer}\n")

    def disturb(self, state: str, how: str, when: str) -> None:
        """Let the module ``fail``, or kill ``its-parent``, before or after its work."""
        (self.modules / how / state).write_text(f"{when}\n")

    def mend(self) -> None:
        """Let nothing fail any more."""
        for file in (self.modules / "fail").iterdir():
            file.unlink()

    def reboot(self, software: str | None = None) -> None:
        """Boot what is in place, or what the boot loader went back to."""
        self.boot += "+"
        (self.device / "booted").write_text(self.software if software is None else software)

    @property
    def booted(self) -> str:
        """What runs."""
        return (self.device / "booted").read_text()

    def install(self, made: tuple[Artifact, bytes], version: str = "1.1.0", digest: str = DIGEST) -> None:
        """As the agent does it."""
        self.write_stream(made)
        self.installer.install(self.path / "stream", made[0], version, digest)

    def write_stream(self, made: tuple[Artifact, bytes]) -> None:
        """What a download leaves."""
        (self.path / "stream").write_bytes(made[1])

    def go_back(self) -> None:
        """As the agent does it, with the reboots that are asked for."""
        for _ in range(5):
            if self.installer.rollback() is Next.NOTHING:
                return
            self.reboot()
        raise AssertionError("asked for reboots without end")

    @property
    def version(self) -> str | None:
        """What the installer says that runs."""
        running = self.installer.running()
        return running.version if running else None

    def _note_sync(self) -> None:
        update = self.state.update
        self.synced.append(update.at.value if update else "")


def in_another_process(work: Callable[[], object]) -> int:
    """Do it in a process of its own, which may be killed; its exit code, a signal's number below 0."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # fork with threads: this child starts none of them
        pid = os.fork()
    if pid == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status)
