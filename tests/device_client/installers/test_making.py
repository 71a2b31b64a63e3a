"""The installer that device.toml names."""

from pathlib import Path
from typing import Any

import pytest

from device_client import config
from device_client.config import DeviceHome, DeviceSettings, settings_from
from device_client.errors import UsageError
from device_client.installers.directory import DirectoryInstaller
from device_client.installers.file import FileInstaller
from device_client.installers.making import make_installer
from device_client.installers.mender import MenderInstaller


def _settings(**installer: Any) -> DeviceSettings:
    device = {"id": "cam-7", "product": "cam", "hardware": "mk2"}
    return settings_from({"device": device, "installer": installer}, "device.toml")


@pytest.mark.parametrize(
    ("installer", "made"),
    [
        ({}, DirectoryInstaller),
        ({"kind": "file"}, FileInstaller),
        ({"kind": "mender", "mender": {"module": "single-file"}}, MenderInstaller),
    ],
)
def test_each_kind(tmp_path: Path, installer: dict[str, Any], made: type) -> None:
    """By its name, and nothing is touched."""
    assert isinstance(make_installer(DeviceHome(tmp_path), _settings(**installer), lambda: "boot"), made)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("table", "match"),
    [
        (None, "needs a table"),
        ({}, "module"),
        ({"module": "../sh"}, "module"),
        ({"module": "a/b"}, "module"),
        ({"module": "m\n"}, "module"),
        ({"module": "m", "timeout_s": 0}, "timeout_s"),
        ({"module": "m", "search_path": "bin"}, "search_path"),
        ({"module": "m", "search_path": "/bin:"}, "search_path"),
        ({"module": "m", "device_type": "a b"}, "device_type"),
        ({"module": "m", "other": 1}, "other"),
    ],
)
def test_mistakes(table: dict[str, Any] | None, match: str) -> None:
    """A table that cannot work is refused when it is read."""
    with pytest.raises(UsageError, match=match):
        _settings(kind="mender", **({} if table is None else {"mender": table}))


def test_written_and_read(tmp_path: Path) -> None:
    """What a command writes to device.toml is read as it was meant."""
    table = {"module": "deb", "modules": "/opt/modules", "artifact_name": "cam", "device_type": "mk1"}
    settings = _settings(kind="mender", mender=table)
    home = DeviceHome(tmp_path)
    config.write(home, settings)
    assert config.load(tmp_path)[1] == settings


def test_names_of_artifacts(tmp_path: Path) -> None:
    """What a module is told: the settings' words, else the version and the hardware."""
    modules, told = tmp_path / "modules", tmp_path / "told"
    modules.mkdir()
    (modules / "tells").write_text(
        f'#!/bin/sh\ncat "$2/header/artifact_name" "$2/current_artifact_name" "$2/current_device_type" > {told}\n'
    )
    (modules / "tells").chmod(0o755)
    (tmp_path / "factory").touch()
    for more, said in (
        ({}, "1.0.0mk2"),
        ({"artifact_name": "cam", "device_type": "mk1"}, "cam-cam-1.0.0mk1"),
    ):
        home = DeviceHome(tmp_path / said)
        home.state.mkdir(parents=True)
        table = {"module": "tells", "modules": str(modules), **more}
        installer = make_installer(home, _settings(kind="mender", mender=table), lambda: "boot")
        installer.install_factory(tmp_path / "factory", "1.0.0")
        assert not installer.way_back()
        assert told.read_text() == said
