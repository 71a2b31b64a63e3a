"""``flagship-device verify``: whether what is installed is what was written, by exit code and by name."""

import json
from pathlib import Path

import pytest

from device_client.cli import main
from device_client.cli_verify import check
from device_client.config import DeviceHome
from device_client.home_lock import alone
from device_client.installers.directory import DirectoryInstaller

NEW = ["--id", "gw-1", "--product", "gateway", "--hardware", "rev-a"]


@pytest.fixture
def home(tmp_path: Path) -> DeviceHome:
    """A device that left the factory with 1.0.0."""
    factory = tmp_path / "factory"
    factory.mkdir()
    (factory / "app").write_text("one")
    (factory / "data").write_text("two")
    words = [*NEW, "--installed", str(factory), "--version", "1.0.0"]
    assert main(["enrol", "--home", str(tmp_path / "d"), *words]) == 0
    return DeviceHome(tmp_path / "d")


def verify(home: DeviceHome, *words: str) -> int:
    return main(["verify", "--home", str(home.path), *words])


def test_intact(home: DeviceHome, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 0, with and without an agent that holds the home's lock; nothing is written."""
    before = sorted(path for path in home.path.rglob("*"))
    with alone(home.lock):
        assert verify(home) == 0
    home.lock.unlink()
    assert verify(home) == 0
    assert "app 1.0.0: as it was written" in capsys.readouterr().out
    assert sorted(path for path in home.path.rglob("*")) == before


def test_damaged(home: DeviceHome, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 1, and one sentence that names the first file and what to do."""
    (home.current / "app").write_text("eno")
    (home.current / "data").unlink()
    assert verify(home) == 1
    error = capsys.readouterr().err
    assert "app 1.0.0" in error
    assert "file 'app': expected sha256" in error
    assert "install it again" in error
    assert error.count("\n") == 1
    assert verify(home, "-o", "json") == 1
    told = json.loads(capsys.readouterr().out)
    assert (told["component"], told["version"], told["intact"]) == ("app", "1.0.0", False)
    assert "file 'app'" in told["fault"]


def test_nothing_to_verify(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A device without software, and no device at all."""
    assert main(["enrol", "--home", str(tmp_path / "d"), *NEW]) == 0
    assert verify(DeviceHome(tmp_path / "d")) == 3
    assert "nothing is installed" in capsys.readouterr().err
    assert verify(DeviceHome(tmp_path / "nowhere")) == 3


def test_what_changes_meanwhile_is_compared_once_more(home: DeviceHome, monkeypatch: pytest.MonkeyPatch) -> None:
    """A switch in the middle is no fault of what runs now."""
    installer = DirectoryInstaller(home.releases, home.current, home.installer)
    (home.releases / "2.0.0-other").mkdir()
    asked = []

    def fault() -> str:
        asked.append(home.current.readlink())
        if len(asked) == 1:
            home.current.unlink()
            home.current.symlink_to("releases/2.0.0-other")
            return "half of two"
        return ""

    monkeypatch.setattr(installer, "fault", fault)
    found = check(installer)
    assert found
    assert (found.running.version, found.fault) == ("2.0.0", "")
