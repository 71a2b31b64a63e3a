"""Floors on the disk: the newest whole copy counts, a lost one is mended, both lost is an error."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import BaseModel

from device_client.errors import DeviceError, StorageError
from device_client.floors_file import NAMES, FloorsFile

DiesAt = Callable[[int, Path, Callable[[], object]], bool]


class Content(BaseModel):
    """Something with a floor."""

    counter: int
    text: str = ""


def _open(directory: Path) -> FloorsFile[Content]:
    return FloorsFile(directory, Content, _stricter)


def _stricter(one: Content, other: Content) -> Content:
    return max(one, other, key=lambda content: content.counter)


def test_nothing_yet(tmp_path: Path) -> None:
    """A device that never saved floors has none."""
    assert _open(tmp_path).load() is None


def test_save_and_load(tmp_path: Path) -> None:
    """What was saved last is loaded, by the same object and by another."""
    floors = _open(tmp_path)
    for counter in range(1, 4):
        floors.save(Content(counter=counter, text="ü\n"))
        assert floors.load() == _open(tmp_path).load() == Content(counter=counter, text="ü\n")
    _open(tmp_path).save(Content(counter=9))
    assert floors.load() == Content(counter=9)
    assert [(tmp_path / name).stat().st_mode & 0o777 for name in NAMES] == [0o600, 0o600]


@pytest.mark.parametrize("victim", NAMES)
def test_one_copy_truncated_at_every_length(tmp_path: Path, victim: str) -> None:
    """Whatever is left of one copy, the other counts; the next save makes both whole again."""
    _open(tmp_path).save(Content(counter=7))
    whole = (tmp_path / victim).read_bytes()
    for length in range(len(whole)):
        (tmp_path / victim).write_bytes(whole[:length])
        assert _open(tmp_path).load() == Content(counter=7)
    _open(tmp_path).save(Content(counter=8))
    (tmp_path / next(name for name in NAMES if name != victim)).unlink()
    assert _open(tmp_path).load() == Content(counter=8)


@pytest.mark.parametrize("victim", NAMES)
def test_one_copy_with_any_byte_changed(tmp_path: Path, victim: str) -> None:
    """A flipped bit anywhere in one copy is noticed, or changes nothing: the floors are never other ones."""
    _open(tmp_path).save(Content(counter=7))
    whole = (tmp_path / victim).read_bytes()
    for place in range(len(whole)):
        (tmp_path / victim).write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        assert _open(tmp_path).load() == Content(counter=7)


def test_the_newest_whole_copy_wins(tmp_path: Path) -> None:
    """A copy of an earlier generation counts only where the newer one is damaged."""
    first, second = (tmp_path / name for name in NAMES)
    _open(tmp_path).save(Content(counter=1))
    old = second.read_bytes()
    _open(tmp_path).save(Content(counter=2))
    for one, other in ((first, second), (second, first)):
        new = one.read_bytes()
        other.write_bytes(old)
        assert _open(tmp_path).load() == Content(counter=2)
        one.write_bytes(new[:-5])
        assert _open(tmp_path).load() == Content(counter=1)
        one.write_bytes(new)
        other.write_bytes(new)


@pytest.mark.parametrize("damage", [b"", b"{}", b"\xff\xfe", b"[" * 10_000, b"null", b"x" * 2_000_000])
@pytest.mark.parametrize("other", ["damaged too", "gone"])
def test_both_lost_is_an_error(tmp_path: Path, damage: bytes, other: str) -> None:
    """No whole copy left: loading and saving fail in one sentence, and what lies there is not replaced."""
    _open(tmp_path).save(Content(counter=7))
    first, second = (tmp_path / name for name in NAMES)
    first.write_bytes(damage)
    if other == "gone":
        second.unlink()
    else:
        second.write_bytes(damage)
    floors = _open(tmp_path)
    for act in (floors.load, lambda: floors.save(Content(counter=0)), lambda: _open(tmp_path).save(Content(counter=0))):
        with pytest.raises(DeviceError, match="no whole copy left") as refused:
            act()
        assert "\n" not in str(refused.value)
    assert first.read_bytes() == damage


def test_a_true_checksum_of_other_content_is_damage(tmp_path: Path) -> None:
    """A copy that is whole and does not hold floors is no copy."""
    _open(tmp_path).save(Content(counter=7))

    class Other(BaseModel):
        """Not floors."""

        name: str = "x"

    FloorsFile(tmp_path, Other, lambda one, _other: one).save(Other())
    with pytest.raises(StorageError):
        _open(tmp_path).load()
    assert json.loads((tmp_path / NAMES[0]).read_bytes())["generation"] > 0


def test_save_cut_off_anywhere(tmp_path: Path, dies_at: DiesAt) -> None:
    """A process that dies while saving leaves the floors of before or after, and a later save works."""
    for number in range(50):
        directory = tmp_path / str(number)
        directory.mkdir()
        _open(directory).save(Content(counter=1))
        cut = dies_at(number, tmp_path, lambda d=directory: _open(d).save(Content(counter=2)))  # type: ignore[misc]
        found = _open(directory).load()
        assert found in (Content(counter=1), Content(counter=2))
        _open(directory).save(Content(counter=3))
        assert _open(directory).load() == Content(counter=3)
        if not cut:
            return
    pytest.fail("the save never ended")


@pytest.mark.parametrize("higher_first", [True, False])
def test_two_copies_that_disagree_are_merged_by_the_strictest(tmp_path: Path, higher_first: bool) -> None:
    """Two whole copies of one generation that differ: no floor of either is given up."""
    places = tmp_path / "one", tmp_path / "other"
    for place, counter in zip(places, (9, 4), strict=True):
        place.mkdir()
        _open(place).save(Content(counter=counter))
    first, second = places if higher_first else places[::-1]
    (first / NAMES[1]).write_bytes((second / NAMES[1]).read_bytes())
    assert _open(first).load() == Content(counter=9)


def test_of_two_generations_the_newer_counts(tmp_path: Path) -> None:
    """A power cut between the copies leaves one of them older; the newer one was reported as saved."""
    _open(tmp_path).save(Content(counter=9))
    older = (tmp_path / NAMES[1]).read_bytes()
    _open(tmp_path).save(Content(counter=4))  # by an offline-signed reset
    (tmp_path / NAMES[1]).write_bytes(older)
    assert _open(tmp_path).load() == Content(counter=4)
