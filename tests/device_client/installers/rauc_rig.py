"""A real RAUC with plain files as slots, a boot loader that is a shell script, and a bus of its own."""

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from device_client.config_installers import RaucSection
from device_client.installers.rauc import RaucInstaller
from protocol.manifest import Artifact

NEEDED = ("rauc", "dbus-daemon", "mksquashfs", "openssl")
PACKAGES = "apt-get install --no-install-recommends rauc rauc-service dbus squashfs-tools openssl (make backends)"
SLOT_BYTES = 64 * 1024
DEADLINE_S = 20.0

_BACKEND = """#!/bin/sh
S="${RAUC_STATE:?}"
get() { sed -n "s/^$1=//p" "$S"; }
put() { grep -v "^$1=" "$S" > "$S.new"; echo "$1=$2" >> "$S.new"; mv "$S.new" "$S"; }
case "$1" in
  get-state) get "STATE_$2" ;;
  set-state) echo "$2" >> "$S.set"; put "STATE_$2" "$3"
    n=0; while [ -e "$S.hold" ] && [ $n -lt 1000 ]; do sleep 0.02; n=$((n + 1)); done ;;
  get-primary) get PRIMARY ;;
  set-primary) put "STATE_$2" good; put PRIMARY "$2" ;;
  *) exit 1 ;;
esac
"""
_SYSTEM = """[system]
compatible=acme
bootloader=custom
mountprefix={root}/mnt
statusfile={root}/rauc.status
activate-installed={activate_installed}
bundle-formats=plain verity
[keyring]
path={ca}
[handlers]
bootloader-custom-backend={root}/backend.sh
"""


def missing() -> list[str]:
    """Programs, and what RAUC mounts a bundle with, that are not on this machine."""
    absent = [name for name in NEEDED if shutil.which(name) is None]
    if os.geteuid() != 0:
        absent.append("root's rights")
    if not Path("/dev/loop-control").exists():
        absent.append("/dev/loop-control")
    return absent


def make_key(folder: Path) -> None:
    """A key and a certificate that bundles are signed under, and verified by."""
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    command += ["-days", "30", "-subj", "/CN=test"]
    command += ["-keyout", f"{folder}/key.pem", "-out", f"{folder}/ca.pem"]
    command += ["-addext", "basicConstraints=critical,CA:TRUE"]
    subprocess.run(command, check=True, capture_output=True)


def make_bundle(folder: Path, version: str, compatible: str = "acme", *, root: bool = True) -> Path:
    """A bundle with an image for each class of slots, signed."""
    content = folder / f"content-{version}-{compatible}-{root}"
    content.mkdir()
    manifest = f"[update]\ncompatible={compatible}\nversion={version}\n[bundle]\nformat=plain\n"
    for slot_class in ("rootfs", "appfs") if root else ("appfs",):
        (content / f"{slot_class}.img").write_bytes(image(slot_class, version))
        manifest += f"[image.{slot_class}]\nfilename={slot_class}.img\n"
    (content / "manifest.raucm").write_text(manifest)
    bundle = folder / f"{content.name}.raucb"
    key = [f"--cert={folder}/ca.pem", f"--key={folder}/key.pem", f"--keyring={folder}/ca.pem"]
    subprocess.run(["rauc", "bundle", *key, content, bundle], check=True, capture_output=True)
    return bundle


def image(slot_class: str, version: str) -> bytes:
    """What an image holds."""
    return f"{slot_class} {version}\n".encode().ljust(SLOT_BYTES // 2, b".")


def artifact(kind: Literal["file", "directory"] = "file") -> Artifact:
    """What the manifest says of a bundle; the installer only asks for its kind."""
    return Artifact.model_construct(component="app", kind=kind, length=0, sha256="", chunks=[])


@contextmanager
def bus(folder: Path) -> Iterator[str]:
    """The address of a bus."""
    command = ["dbus-daemon", "--session", "--nofork", "--print-address", f"--address=unix:path={folder}/bus"]
    daemon = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert daemon.stdout is not None
        yield daemon.stdout.readline().strip()
    finally:
        daemon.kill()
        daemon.communicate()


class RaucDevice:
    """A device with slots A and B; A runs at first, with 1.0.0."""

    def __init__(self, root: Path, address: str, ca: Path, *, activate_installed: bool = False) -> None:
        self.root, self.address, self.boots = root, address, 0
        self.running = "A"
        self._service: subprocess.Popen[bytes] | None = None
        (root / "mnt").mkdir()
        (root / "state").write_text("STATE_A=good\nSTATE_B=bad\nPRIMARY=A\n")
        (root / "backend.sh").write_text(_BACKEND)
        (root / "backend.sh").chmod(0o755)
        text = _SYSTEM.format(root=root, ca=ca, activate_installed=str(activate_installed).lower())
        for number, name in enumerate("AB"):
            for slot_class, last in (("rootfs", f"bootname={name}"), ("appfs", f"parent=rootfs.{number}")):
                self.slot(slot_class, name).write_bytes(image(slot_class, "1.0.0").ljust(SLOT_BYTES, b"\0"))
                text += f"[slot.{slot_class}.{number}]\ndevice={self.slot(slot_class, name)}\ntype=raw\n{last}\n"
        (root / "system.conf").write_text(text)

    def installer(self, timeout_s: float = DEADLINE_S, compare: tuple[str, ...] = ("raw",)) -> RaucInstaller:
        """A new one each time, as after a start of the agent."""
        section = RaucSection(bus=self.address, timeout_s=timeout_s, compare=compare)
        return RaucInstaller(section, self.root / "installer.json", lambda: f"boot-{self.boots}")

    def slot(self, slot_class: str, name: str) -> Path:
        """The file that is a slot's device."""
        return self.root / f"{slot_class}-{name}"

    def boot_loader(self) -> dict[str, str]:
        """What the boot loader was told."""
        return dict(line.split("=") for line in (self.root / "state").read_text().split())

    def hold(self) -> None:
        """Let RAUC stand still where it marks the slot that it is about to write."""
        (self.root / "state.set").unlink(missing_ok=True)
        (self.root / "state.hold").touch()

    def until_held(self) -> None:
        """Wait until it stands there."""
        wait_for((self.root / "state.set").exists)

    def release(self) -> None:
        """Let it go on."""
        (self.root / "state.hold").unlink(missing_ok=True)

    def start(self) -> None:
        """Start the service."""
        env = {
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "RAUC_STATE": str(self.root / "state"),
            "DBUS_STARTER_BUS_TYPE": "session",
            "DBUS_SESSION_BUS_ADDRESS": self.address,
        }
        command = ["rauc", "--conf", f"{self.root}/system.conf", "service", f"--override-boot-slot={self.running}"]
        with (self.root / "service.log").open("ab") as log:
            self._service = subprocess.Popen(command, env=env, stdout=log, stderr=log)
        ask = ["dbus-send", f"--bus={self.address}", "--print-reply", "--dest=de.pengutronix.rauc", "/"]
        ask += ["org.freedesktop.DBus.Peer.Ping"]
        wait_for(lambda: subprocess.run(ask, capture_output=True).returncode == 0)

    def kill(self) -> None:
        """End the service at once."""
        if self._service is not None:
            self._service.kill()
            self._service.wait()
            self._service = None
        # One that is killed in mid-install leaves the bundle mounted.
        while (mount := self.root / "mnt" / "bundle").is_mount():
            subprocess.run(["umount", "-l", mount], check=True)

    def reboot(self, *, starts: bool = True) -> None:
        """Start the primary slot; one that does not start makes the boot loader take the other."""
        told = self.boot_loader()
        name = told["PRIMARY"]
        if not starts or told[f"STATE_{name}"] != "good":
            name = "B" if name == "A" else "A"
        self.kill()
        self.running, self.boots = name, self.boots + 1
        self.start()


def wait_for(ready: object) -> None:
    """Poll a condition, with a deadline."""
    assert callable(ready)
    until = time.monotonic() + DEADLINE_S
    while not ready():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.01)
