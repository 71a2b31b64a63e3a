"""How somebody says that the device is in use: read by the gate as it was written, and gone when it is released."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from device_client.errors import UsageError
from device_client.gates.in_use import inhibitors
from device_client.inhibitors import MAX_WHY_CHARACTERS, inhibit, release

NOW = datetime(2026, 11, 23, tzinfo=UTC)


def test_what_is_said_is_read_by_the_gate(tmp_path: Path) -> None:
    """Who, why and until when; saying it again replaces it; others are not touched."""
    place = tmp_path / "inhibit.d"
    inhibit(place, "player", "a film", NOW + timedelta(hours=1))
    inhibit(place, "player", "another film", NOW + timedelta(hours=2))
    inhibit(place, "door", "", None)
    found = {item.who: (item.why, item.until) for item in inhibitors(place, NOW)}
    assert found == {"player": ("another film", NOW + timedelta(hours=2)), "door": ("", None)}
    assert [item.who for item in inhibitors(place, NOW + timedelta(hours=3))] == ["door"]
    assert release(place, "door")
    assert not release(place, "door")
    assert [item.who for item in inhibitors(place, NOW)] == ["player"]


@pytest.mark.parametrize("who", ["", "../x", "a/b", ".hidden", "x" * 65, "a\0b"])
def test_a_name_never_leaves_the_folder(tmp_path: Path, who: str) -> None:
    """Neither for saying nor for ending it."""
    for work in (lambda: inhibit(tmp_path, who, "", None), lambda: release(tmp_path, who)):
        with pytest.raises(UsageError):
            work()
    assert list(tmp_path.iterdir()) == []


def test_a_reason_has_a_bound(tmp_path: Path) -> None:
    """The gate reads small files only; what it could not read would inhibit for ever."""
    inhibit(tmp_path, "x", "y" * MAX_WHY_CHARACTERS, None)
    with pytest.raises(UsageError, match="at most"):
        inhibit(tmp_path, "x", "y" * (MAX_WHY_CHARACTERS + 1), None)
