"""The device's time zone: its owner's word, else the machine's, else UTC."""

from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from device_client.time_zone import LOCALTIME, time_zone


@pytest.mark.parametrize(
    ("target", "zone"),
    [
        ("/usr/share/zoneinfo/Europe/Oslo", "Europe/Oslo"),
        ("../usr/share/zoneinfo/America/Argentina/Buenos_Aires", "America/Argentina/Buenos_Aires"),
        ("/usr/share/zoneinfo/Etc/UTC", "Etc/UTC"),
        ("/usr/share/zoneinfo/Mars/Base", "UTC"),
        ("/usr/share/zoneinfo/../../passwd", "UTC"),
        ("/usr/share/zoneinfo/", "UTC"),
        ("/run/localtime", "UTC"),
    ],
)
def test_the_machines_link_names_it(tmp_path: Path, target: str, zone: str) -> None:
    """What follows the database's folder, as localtime(5) has it; a link to anything else names no zone."""
    link = tmp_path / "localtime"
    link.symlink_to(target)
    assert time_zone(None, link) == zone
    assert time_zone("Asia/Tokyo", link) == "Asia/Tokyo", "the owner's word comes first"


def test_without_a_link(tmp_path: Path) -> None:
    """No file, or a copy that has no name: UTC, like a machine that was never set."""
    assert time_zone(None, tmp_path / "absent") == "UTC"
    (tmp_path / "copy").write_bytes(b"TZif2")
    assert time_zone(None, tmp_path / "copy") == "UTC"


def test_this_machine_has_one() -> None:
    """Whatever it is set to, it can be counted in."""
    assert LOCALTIME.is_absolute()
    assert ZoneInfo(time_zone(None)).key
