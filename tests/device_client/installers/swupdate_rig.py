"""A real SWUpdate with plain files as copies, and a boot loader that is three shell scripts."""

import hashlib
import shutil
import subprocess
from pathlib import Path

from device_client.config_installers import SwupdateSection
from device_client.installers.swupdate import SwupdateInstaller

NEEDED = ("swupdate", "openssl", "cpio")
PACKAGES = "apt-get install --no-install-recommends swupdate libubootenv-tool cpio openssl (make backends)"
COPY_BYTES = 512 * 1024
_DESCRIPTION = """software = {{
  version = "{version}";
  hardware-compatibility: [ "1.0" ];
  reboot = false;
  stable = {{ {copies} }};
}};
"""
_COPY = """copy{n}: {{
  images: ({{ filename = "rootfs.img"; device = "{device}"; type = "raw"; installed-directly = true;
    sha256 = "{image}"; }});
  scripts: ({{ filename = "hold.sh"; type = "shellscript"; sha256 = "{script}"; }});
}};
"""
_HOLD = """#!/bin/sh
[ "$1" = preinst ] || exit 0
echo "$$" >> {root}/started
n=0; while [ -e {root}/hold ] && [ $n -lt 1000 ]; do sleep 0.02; n=$((n + 1)); done
"""


def missing() -> list[str]:
    """Programs that are not on this machine."""
    return [name for name in NEEDED if shutil.which(name) is None]


def make_key(folder: Path) -> None:
    """A key and a certificate that images are signed under, and verified by."""
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    command += ["-days", "30", "-subj", "/CN=test", "-keyout", f"{folder}/key.pem", "-out", f"{folder}/key.crt"]
    command += ["-addext", "basicConstraints=critical,CA:TRUE"]
    command += ["-addext", "extendedKeyUsage=critical,emailProtection"]
    subprocess.run(command, check=True, capture_output=True)


def image(version: str) -> bytes:
    """What a copy holds."""
    return f"rootfs {version}\n".encode().ljust(COPY_BYTES, b".")


class SwupdateDevice:
    """A device with copies 1 and 2; copy 1 runs at first, with 1.0.0."""

    def __init__(self, root: Path, keys: Path) -> None:
        self.root, self.keys, self.boots = root, keys, 0
        (root / "work").mkdir()
        for number in "12":
            self.copy(number).write_bytes(image("1.0.0"))
        (root / "runs").write_text("1\n")
        (root / "next").write_text("1\n")
        for name, text in {"active": f"cat {root}/runs", "activate": f'echo "$1" > {root}/next'}.items():
            (root / name).write_text(f"#!/bin/sh\n{text}\n")
            (root / name).chmod(0o755)
        (root / "keep").write_text(f'#!/bin/sh\necho "$1" > {root}/kept\n')
        (root / "keep").chmod(0o755)

    def installer(
        self, hardware: str = "acme:1.0", timeout_s: float = 20.0, selections: tuple[str, str] = ("copy1", "copy2")
    ) -> SwupdateInstaller:
        """A new one each time, as after a start of the agent."""
        section = SwupdateSection(
            key=self.keys / "key.crt",
            hardware=hardware,
            selections=(f"stable,{selections[0]}", f"stable,{selections[1]}"),
            active=(str(self.root / "active"),),
            activate=(str(self.root / "activate"),),
            keep=(str(self.root / "keep"),),
            extra=("-B", "none"),
            timeout_s=timeout_s,
        )
        state = self.root / "installer.json"
        return SwupdateInstaller(section, state, self.root / "work", lambda: f"boot-{self.boots}")

    def copy(self, number: str) -> Path:
        """The file that is a copy's device."""
        return self.root / f"copy-{number}"

    def starts_next(self) -> str:
        """The copy that the boot loader was told to start."""
        return (self.root / "next").read_text().strip()

    def reboot(self, *, starts: bool = True) -> None:
        """Start that copy; one that does not start makes the boot loader take the other."""
        number = self.starts_next()
        (self.root / "runs").write_text(number if starts else {"1": "2", "2": "1"}[number])
        self.boots += 1

    def started(self) -> int:
        """How many runs of SWUpdate have come to writing."""
        file = self.root / "started"
        return len(file.read_text().split()) if file.exists() else 0

    def make_image(self, version: str, key: Path | None = None) -> Path:
        """An image for either copy, signed."""
        folder = self.root / f"content-{version}"
        folder.mkdir(exist_ok=True)
        parts = {"rootfs.img": image(version), "hold.sh": _HOLD.format(root=self.root).encode()}
        for name, data in parts.items():
            (folder / name).write_bytes(data)
        hashes = [hashlib.sha256(data).hexdigest() for data in parts.values()]
        copies = "".join(_COPY.format(n=n, device=self.copy(n), image=hashes[0], script=hashes[1]) for n in ("1", "2"))
        (folder / "sw-description").write_text(_DESCRIPTION.format(version=version, copies=copies))
        key = key or self.keys
        sign = ["openssl", "cms", "-sign", "-in", "sw-description", "-out", "sw-description.sig", "-outform", "DER"]
        sign += ["-signer", f"{key}/key.crt", "-inkey", f"{key}/key.pem", "-nosmimecap", "-binary"]
        subprocess.run(sign, cwd=folder, check=True, capture_output=True)
        # The hold comes first: scripts run before images that follow them in the archive are written.
        names = "sw-description\nsw-description.sig\nhold.sh\nrootfs.img\n"
        made = subprocess.run(
            ["cpio", "-o", "-H", "crc", "--quiet"], input=names.encode(), cwd=folder, check=True, capture_output=True
        )
        staged = self.root / f"staged-{version}"
        staged.write_bytes(made.stdout)
        return staged
