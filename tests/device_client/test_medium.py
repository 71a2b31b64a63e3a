"""Whoever had the medium in hand may have put anything on it: what is odd is refused before it is read."""

import os
from pathlib import Path

import pytest

from device_client.errors import NotFoundError, StorageError
from device_client.medium import MAX_ROLLOUTS, MAX_TRUST_BYTES, MAX_TRUST_FILE_BYTES, MAX_TRUST_FILES, read_medium
from protocol.topics import RULES, Kind
from tests.device_client.lab import DEVICE
from tests.device_client.media import write_medium

TRUST = {"timestamp.json": b"t", "1.root.json": b"r", "2.releases-gateway.json": b"g"}


@pytest.fixture
def medium(tmp_path: Path) -> Path:
    """The files that matter; their content is judged elsewhere."""
    return write_medium(tmp_path / "stick", TRUST, b"announcement", b"offer", {})


def test_what_is_meant_for_this_device_is_read(medium: Path) -> None:
    """Trust, its offers and their announcements; not what is others', and not what has no place on a medium."""
    (medium / "trust" / "README.txt").write_text("hello")
    (medium / "announce" / "other.json").write_text("x")
    (medium / "offer" / "d2").mkdir()
    (medium / "offer" / "d2" / "other.json").write_text("x")
    (medium / "offer" / DEVICE / "._r.json").write_text("a file system's own")
    found = read_medium(medium, DEVICE)
    assert found.trust == TRUST
    assert found.announcements == {"r": b"announcement"}
    assert found.offers == {"r": b"offer"}


def test_the_folder_that_a_person_names_may_be_a_link(medium: Path, tmp_path: Path) -> None:
    """Such as /media/stick: the link is the device's own, not the medium's."""
    (tmp_path / "link").symlink_to(medium)
    assert read_medium(tmp_path / "link", DEVICE).offers == {"r": b"offer"}


def test_another_devices_medium(medium: Path) -> None:
    """It says so, and that nothing of it was taken."""
    with pytest.raises(NotFoundError, match="no offer for device d9"):
        read_medium(medium, "d9")


ODD = ("trust/timestamp.json", "announce/r.json", f"offer/{DEVICE}/r.json")


@pytest.mark.parametrize("name", ODD)
def test_a_link_is_not_followed(medium: Path, tmp_path: Path, name: str) -> None:
    """What is on the device is not the medium's to name."""
    secret = tmp_path / "secret"
    secret.write_text("a key")
    (medium / name).unlink()
    (medium / name).symlink_to(secret)
    with pytest.raises(StorageError, match="cannot be read as part of a medium"):
        read_medium(medium, DEVICE)


@pytest.mark.parametrize("name", ["trust", "announce", "offer", f"offer/{DEVICE}"])
def test_a_linked_folder_is_not_followed(medium: Path, tmp_path: Path, name: str) -> None:
    """Neither in the middle of the way."""
    (medium / name).rename(tmp_path / "elsewhere")
    (medium / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StorageError):
        read_medium(medium, DEVICE)


@pytest.mark.parametrize("name", ODD)
def test_a_pipe_does_not_hold_the_agent_up(medium: Path, name: str) -> None:
    """To open one would wait for a writer for ever."""
    (medium / name).unlink()
    os.mkfifo(medium / name)
    with pytest.raises(StorageError, match="regular file"):
        read_medium(medium, DEVICE)


@pytest.mark.parametrize(
    ("name", "limit"),
    [
        (ODD[0], MAX_TRUST_FILE_BYTES),
        (ODD[1], RULES[Kind.ANNOUNCE].max_bytes),
        (ODD[2], RULES[Kind.OFFER].max_bytes),
    ],
)
def test_a_huge_file_is_not_read(medium: Path, name: str, limit: int) -> None:
    """Its size is looked at first; this one has no bytes at all behind it."""
    with (medium / name).open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(StorageError, match=f"at most {limit} B"):
        read_medium(medium, DEVICE)


@pytest.mark.parametrize(("folder", "most"), [("trust", MAX_TRUST_FILES), (f"offer/{DEVICE}", MAX_ROLLOUTS)])
def test_a_flood_of_files_is_not_read(medium: Path, folder: str, most: int) -> None:
    """There is a bound on how many."""
    for number in range(most + 1):
        (medium / folder / f"{number + 10}.json").touch()
    with pytest.raises(StorageError, match=f"at most {most} files"):
        read_medium(medium, DEVICE)


def test_many_files_that_are_each_small_enough(medium: Path) -> None:
    """All of them are in memory at once: there is a bound on their sum."""
    for number in range(MAX_TRUST_BYTES // MAX_TRUST_FILE_BYTES + 1):
        with (medium / "trust" / f"{number + 10}.root.json").open("wb") as file:
            file.truncate(MAX_TRUST_FILE_BYTES)
    with pytest.raises(StorageError, match=f"at most {MAX_TRUST_BYTES} B"):
        read_medium(medium, DEVICE)


def test_no_medium_at_all(tmp_path: Path) -> None:
    """A folder that is not there, and one that lacks a part."""
    with pytest.raises(NotFoundError, match="not there"):
        read_medium(tmp_path / "nothing", DEVICE)
    write_medium(tmp_path / "stick", {}, b"a", b"o", {})
    with pytest.raises(NotFoundError, match="trust"):
        read_medium(tmp_path / "stick", DEVICE)
