"""The tables of device.toml that say how a release is put in place, and the installer that each makes."""

from pathlib import Path

import pytest

from device_client.config import DeviceHome, load, write
from device_client.errors import UsageError
from device_client.installers.directory import DirectoryInstaller
from device_client.installers.file import FileInstaller
from device_client.installers.making import make_installer
from device_client.installers.rauc import RaucInstaller
from device_client.installers.swupdate import SwupdateInstaller

DEVICE = '[device]\nid = "d1"\nproduct = "cam"\nhardware = "rev-b"\n'
SWUPDATE = """[installer.swupdate]
key = "/etc/swu.pem"
hardware = "acme:1.0"
selections = ["stable,copy1", "stable,copy2"]
active = ["/usr/bin/active-copy"]
activate = ["/usr/bin/activate-copy", "--next"]
"""


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("", DirectoryInstaller),
        ('[installer]\nkind = "file"\n', FileInstaller),
        ('[installer]\nkind = "rauc"\n[installer.rauc]\nbus = "unix:path=/run/b"\ntimeout_s = 9\n', RaucInstaller),
        ('[installer]\nkind = "swupdate"\n' + SWUPDATE, SwupdateInstaller),
    ],
)
def test_kinds(tmp_path: Path, text: str, kind: type) -> None:
    """Each kind makes its installer, and survives being written."""
    (tmp_path / "device.toml").write_text(DEVICE + text)
    home, settings = load(tmp_path)
    assert type(make_installer(home, settings)) is kind
    write(DeviceHome(tmp_path), settings)
    assert load(tmp_path)[1] == settings


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ('[installer]\nkind = "swupdate"\n', r"needs a table \[installer.swupdate\]"),
        ('[installer.rauc]\nbus = "tcp:host=x"\n', "installer.rauc.bus"),
        (SWUPDATE.replace(', "stable,copy2"', ""), "installer.swupdate.selections"),
        (SWUPDATE.replace("stable,copy2", "copy2"), "installer.swupdate.selections.1"),
        (SWUPDATE.replace("acme:1.0", "acme"), "installer.swupdate.hardware"),
        (SWUPDATE.replace('["/usr/bin/active-copy"]', "[]"), "installer.swupdate.active"),
    ],
)
def test_mistakes(tmp_path: Path, text: str, named: str) -> None:
    """What is missing, or in another form, is named."""
    (tmp_path / "device.toml").write_text(DEVICE + text)
    with pytest.raises(UsageError, match=named):
        load(tmp_path)
