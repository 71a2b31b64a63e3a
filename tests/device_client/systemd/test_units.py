"""The units as systemd reads them, and how much they leave to a service that was taken over."""

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from device_client.cli import main

ROOT = Path(__file__).parents[3]
UNITS = ROOT / "device_client" / "systemd"
NAMES = sorted(path.name for path in UNITS.iterdir() if path.suffix in {".service", ".timer"})
MOST_EXPOSED = {"flagship-device.service": 2.0, "flagship-verify-watchdog.service": 1.2}

needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None,
    reason="UNITS NOT CHECKED: systemd-analyze is missing; install the package systemd",
)


def analyze(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["systemd-analyze", *words], capture_output=True, text=True, timeout=60)


@pytest.fixture
def units(tmp_path: Path) -> Path:
    """The shipped units, for a command that is installed here."""
    for name in NAMES:
        text = (UNITS / name).read_text().replace("/usr/bin/flagship-device", sys.executable)
        (tmp_path / name).write_text(text)
    return tmp_path


@needs_systemd
def test_systemd_understands_them(units: Path) -> None:
    """Every setting is known to this systemd, and nothing is missing; a misspelt one would be told."""
    done = analyze("verify", "--man=no", *(str(units / name) for name in NAMES))
    assert (done.returncode, done.stderr) == (0, "")
    service = units / "flagship-device.service"
    service.write_text(service.read_text().replace("WatchdogSec", "WachdogSec"))
    assert "WachdogSec" in analyze("verify", "--man=no", str(service)).stderr


@needs_systemd
@pytest.mark.parametrize("name", [name for name in NAMES if name.endswith(".service")])
def test_they_leave_little(units: Path, name: str) -> None:
    """By systemd's own measure, of at most 10; a service without walls has 9.6."""
    done = analyze("security", "--offline=true", f"--threshold={MOST_EXPOSED[name] * 10:.0f}", str(units / name))
    assert done.returncode == 0, done.stdout[-300:]


def test_they_are_in_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    """A wheel brings them along, and the commands that they run exist."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    patterns = project["tool"]["setuptools"]["package-data"]["*"]
    assert NAMES == ["flagship-device.service", "flagship-verify-watchdog.service", "flagship-verify-watchdog.timer"]
    assert all(f"*{Path(name).suffix}" in patterns for name in NAMES)
    for name in ("flagship-device.service", "flagship-verify-watchdog.service"):
        (command,) = re.findall(r"^ExecStart=/usr/bin/flagship-device (\S+)", (UNITS / name).read_text(), re.MULTILINE)
        with pytest.raises(SystemExit, match="0"):
            main([command, "--help"])
        assert "--config" in capsys.readouterr().out


def test_the_agents_walls() -> None:
    """What must hold whatever the measure says: its own user, no new privileges, one writable place, watched."""
    text = (UNITS / "flagship-device.service").read_text()
    for line in (
        "Type=notify", "WatchdogSec=60", "Restart=always", "User=flagship", "NoNewPrivileges=yes",
        "ProtectSystem=strict", "ReadWritePaths=/var/lib/flagship", "ProtectHome=yes", "PrivateTmp=yes",
        "CapabilityBoundingSet=", "SystemCallFilter=@system-service",
    ):  # fmt: skip
        assert f"\n{line}\n" in text
    assert "\nDynamicUser" not in text
