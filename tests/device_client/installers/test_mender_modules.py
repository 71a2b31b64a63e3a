"""Mender's update modules, unchanged, from Debian's package: there and back; and an A/B system that is booted."""

import io
import os
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

from device_client.installers.installer import InstallError, Next
from device_client.programs import PATH
from protocol.manifest import Artifact
from tests.device_client.installers.mender_bench import Bench, MakeArtifact

BOTH_ENDS = pytest.mark.parametrize("end", ["commit", "rollback"])


class Device(Bench):
    """One with a module of Mender's."""

    def __init__(self, path: Path, modules: Path, module: str, make: MakeArtifact) -> None:
        super().__init__(path)
        self._make_artifact = make
        (self.home / "state").mkdir(parents=True)
        self.place = path / "place"
        self.settings = self.settings.model_copy(update={"module": module, "modules": modules})
        (path / "factory").write_bytes(b"factory")
        self.installer.install_factory(path / "factory", "1.0.0")

    def put(self, **payloads: bytes) -> None:
        """Install and activate a release of these payloads; two underscores stand for a dot."""
        files = {name.replace("__", "."): (0o644, content) for name, content in payloads.items()}
        self.install(self._make_artifact(files, {}))
        assert self.installer.activate() is Next.NOTHING
        assert self.version == "1.1.0"

    def end(self, end: str) -> None:
        """Commit or roll back; then nothing is open."""
        getattr(self.installer, end)()
        assert self.state.update is None
        assert self.version == ("1.1.0" if end == "commit" else "1.0.0")


@BOTH_ENDS
def test_single_file(tmp_path: Path, mender_modules: Path, directory_artifact: MakeArtifact, end: str) -> None:
    """The file is replaced, with its mode, or the old one is there again."""
    device = Device(tmp_path, mender_modules, "single-file", directory_artifact)
    device.place.mkdir()
    (device.place / "app.conf").write_bytes(b"old")
    assert device.installer.way_back()
    payloads = {"dest_dir": str(device.place).encode(), "filename": b"app.conf", "permissions": b"640"}
    device.put(**payloads, app__conf=b"new")
    assert (device.place / "app.conf").read_bytes() == b"new"
    assert (device.place / "app.conf").stat().st_mode & 0o777 == 0o640
    device.end(end)
    assert (device.place / "app.conf").read_bytes() == (b"new" if end == "commit" else b"old")


@BOTH_ENDS
def test_directory(tmp_path: Path, mender_modules: Path, directory_artifact: MakeArtifact, end: str) -> None:
    """The tree is replaced, or the old one is there again, file by file."""
    device = Device(tmp_path, mender_modules, "directory", directory_artifact)
    (device.place / "sub").mkdir(parents=True)
    (device.place / "sub" / "old").write_bytes(b"old")
    device.put(dest_dir=str(device.place).encode(), update__tar=_tar({"sub/new": b"new"}))
    assert _files(device.place) == {"sub/new": b"new"}
    device.end(end)
    assert _files(device.place) == ({"sub/new": b"new"} if end == "commit" else {"sub/old": b"old"})


def test_script(tmp_path: Path, mender_modules: Path, directory_artifact: MakeArtifact) -> None:
    """It runs, and there is no way back from it."""
    device = Device(tmp_path, mender_modules, "script", directory_artifact)
    assert not device.installer.way_back()
    device.put(**{"10__sh": f"#!/bin/sh\necho ran >> {tmp_path}/ran\n".encode()})
    assert (tmp_path / "ran").read_text() == "ran\n"
    with pytest.raises(InstallError, match="module script cannot go back"):
        device.installer.rollback()
    assert device.version is None


def test_script_that_fails(tmp_path: Path, mender_modules: Path, directory_artifact: MakeArtifact) -> None:
    """What it wrote is in the error."""
    device = Device(tmp_path, mender_modules, "script", directory_artifact)
    with pytest.raises(InstallError, match=r"ArtifactInstall: .* code 7") as failed:
        device.put(**{"10__sh": b"#!/bin/sh\necho no room >&2\nexit 7\n"})
    assert failed.value.log == "no room\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="dpkg gives files to root, which only root may do")
def test_deb(
    tmp_path: Path, mender_modules: Path, directory_artifact: MakeArtifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A real package is installed by the real dpkg, whose own settings in HOME lead it below another root."""
    root = tmp_path / "root"
    database = root / "var" / "lib" / "dpkg"
    for folder in (database / "info", database / "updates", database / "triggers"):
        folder.mkdir(parents=True)
    (database / "status").touch()
    home = tmp_path / "dpkg-home"
    home.mkdir()
    (home / ".dpkg.cfg").write_text(f"root={root}\nlog={tmp_path}/dpkg.log\n")
    monkeypatch.setenv("HOME", str(home))
    device = Device(tmp_path, mender_modules, "deb", directory_artifact)
    device.put(pkg__deb=_package(tmp_path / "package"))
    assert (root / "srv" / "flagship-tried").read_text() == "yes\n"
    assert "Package: flagship-tried\nStatus: install ok installed" in (database / "status").read_text()
    assert not Path("/srv/flagship-tried").exists()
    device.end("commit")
    assert not device.installer.way_back()


# An A/B system as Mender's rootfs-image module makes one, over an environment that a boot loader shares.
SYSTEMS = r"""#!/bin/sh
set -eu
here="${0%/*}"
get() { value="$(fw_printenv "$1")"; echo "${value#"$1="}"; }
part="$(get boot_part)" trial="$(get upgrade_available)"
other=$((5 - part))
case "$1" in
    ProvidePayloadFileSizes) echo Yes ;;
    DownloadWithFileSizes)
        line="$(cat stream-next)"
        cat "${line%% *}" > "$here/device/part$other"
        [ "$(wc -c < "$here/device/part$other")" = "${line##* }" ]
        [ -z "$(cat stream-next)" ]
        ;;
    SupportsRollback) echo Yes ;;
    NeedsArtifactReboot) echo Automatic ;;
    ArtifactInstall) fw_setenv boot_part "$other"; fw_setenv upgrade_available 1 ;;
    ArtifactVerifyReboot) [ "$trial" = 1 ] && [ "$(cat "$here/device/booted")" = "$part" ] ;;
    ArtifactVerifyRollbackReboot) [ "$trial" = 0 ] && [ "$(cat "$here/device/booted")" = "$part" ] ;;
    ArtifactCommit) [ "$trial" = 1 ]; fw_setenv upgrade_available 0 ;;
    ArtifactRollback) [ "$trial" = 0 ] || { fw_setenv boot_part "$other"; fw_setenv upgrade_available 0; } ;;
esac
"""


class TwoSystems(Bench):
    """A device with two systems, a boot loader, and its environment in a file."""

    def make(self, module: str = SYSTEMS) -> "TwoSystems":
        super().make(module)
        _boot_environment(self.device, self.modules / "tools", {"boot_part": "2", "upgrade_available": "0"})
        self.settings = self.settings.model_copy(update={"search_path": f"{self.modules}/tools:{PATH}"})
        (self.device / "part2").write_bytes(b"old system")
        self.reboot()
        return self

    def value(self, name: str) -> str:
        """A value of the boot loader's environment."""
        return (self.device / "env" / name).read_text().strip()

    def reboot(self, software: str | None = None) -> None:
        """Boot what the environment names; a second boot on trial goes back, as the boot loader's counter has it."""
        self.boot += "+"
        if self.value("upgrade_available") == "1" and (self.device / "tried").exists():
            (self.device / "env" / "boot_part").write_text(str(5 - int(self.value("boot_part"))))
            (self.device / "env" / "upgrade_available").write_text("0")
        if self.value("upgrade_available") == "1":
            (self.device / "tried").touch()
        (self.device / "booted").write_text(self.value("boot_part"))


@BOTH_ENDS
def test_two_systems(tmp_path: Path, file_artifact: object, end: str) -> None:
    """The image goes straight to the other system, which is booted on trial, and stays or is left again."""
    bench = TwoSystems(tmp_path).make()
    image = os.urandom(200_000)
    artifact: tuple[Artifact, bytes] = file_artifact(image, None)  # type: ignore[operator]
    bench.install(artifact)
    assert not (bench.tree / "files").exists()
    assert bench.installer.activate() is Next.REBOOT
    bench.reboot()
    assert bench.installer.activate() is Next.NOTHING
    assert (bench.booted, (bench.device / "part3").read_bytes() == image) == ("3", True)
    if end == "commit":
        bench.installer.commit()
    else:
        bench.go_back()
    bench.reboot()
    assert (bench.value("upgrade_available"), bench.booted) == ("0", "3" if end == "commit" else "2")
    assert bench.version == ("1.1.0" if end == "commit" else "1.0.0")


def test_boot_loader_counts(tmp_path: Path, file_artifact: object) -> None:
    """A reboot before the commit: the boot loader went back by itself, and that is what is said."""
    bench = TwoSystems(tmp_path).make()
    bench.install(file_artifact(b"new system", None))  # type: ignore[operator]
    bench.installer.activate()
    bench.reboot()
    bench.installer.activate()
    bench.reboot()
    assert (bench.booted, bench.version) == ("2", "1.0.0")
    with pytest.raises(InstallError, match="not what was booted"):
        bench.installer.commit()
    bench.go_back()
    assert (bench.booted, bench.value("boot_part"), bench.version) == ("2", "2", "1.0.0")


@pytest.mark.slow
@BOTH_ENDS
def test_rootfs_image(tmp_path: Path, mender_modules: Path, file_artifact: object, end: str) -> None:
    """Mender's own module for that. Debian's 3.4 has none: name a folder that holds it in FLAGSHIP_MENDER_MODULES."""
    modules = Path(os.environ.get("FLAGSHIP_MENDER_MODULES", mender_modules))
    if not (modules / "rootfs-image").is_file():
        pytest.skip("MENDER'S rootfs-image IS NOT TRIED: name a folder that holds it in FLAGSHIP_MENDER_MODULES")
    if os.geteuid() != 0 or os.path.lexists("/etc/mender"):
        pytest.skip("MENDER'S rootfs-image IS NOT TRIED: it reads /etc/mender, which root makes for it where none is")
    bench = TwoSystems(tmp_path).make()
    device, tools = bench.device, bench.modules / "tools"
    values = {"mender_boot_part": "2", "mender_boot_part_hex": "2", "upgrade_available": "0", "bootcount": "0"}
    shutil.rmtree(tools)
    shutil.rmtree(device / "env")
    _boot_environment(device, tools, {**values, "mender_check_saveenv_canary": "0"})
    # It compares a partition's device number with the root's: here a file's number and the one that was booted.
    _tool(tools / "stat", f'case "$4" in /) cat "{device}/booted" ;; *) echo "${{4##*part}}" ;; esac')
    bench.settings = bench.settings.model_copy(update={"module": "rootfs-image", "modules": modules})
    image = os.urandom(200_000)
    Path("/etc/mender").mkdir()
    try:
        Path("/etc/mender/mender.conf").write_text(
            f'{{\n "RootfsPartA": "{device}/part2",\n "RootfsPartB": "{device}/part3"\n}}\n'
        )
        bench.install(file_artifact(image, None))  # type: ignore[operator]
        assert (device / "part3").read_bytes() == image
        assert (bench.value("mender_boot_part"), bench.value("upgrade_available")) == ("3", "1")
        assert bench.installer.activate() is Next.REBOOT
        _boot_mender(bench)
        assert bench.installer.activate() is Next.NOTHING
        if end == "commit":
            bench.installer.commit()
        else:
            assert bench.installer.rollback() is Next.REBOOT
            _boot_mender(bench)
            assert bench.installer.rollback() is Next.NOTHING
        assert (bench.value("mender_boot_part"), bench.value("upgrade_available")) == (
            "3" if end == "commit" else "2",
            "0",
        )
        assert bench.version == ("1.1.0" if end == "commit" else "1.0.0")
    finally:
        shutil.rmtree("/etc/mender")


def _boot_mender(bench: Bench) -> None:
    bench.boot += "+"
    (bench.device / "booted").write_text((bench.device / "env" / "mender_boot_part").read_text())


def _boot_environment(device: Path, tools: Path, values: dict[str, str]) -> None:
    """``fw_printenv`` and ``fw_setenv`` over a folder with a file per value."""
    (device / "env").mkdir()
    tools.mkdir()
    for name, value in values.items():
        (device / "env" / name).write_text(value)
    _tool(tools / "fw_printenv", f'read -r value < "{device}/env/$1" || [ -n "$value" ]; echo "$1=$value"')
    script = f'while IFS="=" read -r name value; do echo "$value" > "{device}/env/$name"; done'
    _tool(tools / "fw_setenv", f'if [ "$1" = -s ]; then {script}; else echo "$2" > "{device}/env/$1"; fi')


def _tool(path: Path, body: str) -> None:
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)


def _package(place: Path) -> bytes:
    (place / "DEBIAN").mkdir(parents=True)
    (place / "srv").mkdir()
    (place / "srv" / "flagship-tried").write_text("yes\n")
    (place / "DEBIAN" / "control").write_text(
        "Package: flagship-tried\nVersion: 1\nArchitecture: all\nMaintainer: nobody <nobody@example>\n"
        "Description: tries the deb module\n"
    )
    made = place.with_suffix(".deb")
    subprocess.run(["dpkg-deb", "--root-owner-group", "-b", place, made], check=True, capture_output=True, timeout=60)
    return made.read_bytes()


def _tar(files: dict[str, bytes]) -> bytes:
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return written.getvalue()


def _files(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}
