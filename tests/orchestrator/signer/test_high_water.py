"""The marks: durable before use, never below, never twice."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.errors import ConflictError, NotFoundError, OperationError
from orchestrator.signer.high_water import BLOCK, HighWater, Marks, write_marks


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A fresh file."""
    file = tmp_path / "high-water.json"
    write_marks(file, Marks(epoch=1, seq=0, timestamp=1))
    return file


def test_numbers_rise_by_one_and_a_block_is_reserved(path: Path) -> None:
    """The file is ahead of every number that was handed out."""
    marks = HighWater(path)
    assert [marks.next_order() for _ in range(3)] == [(1, 1), (1, 2), (1, 3)]
    assert json.loads(path.read_text()) == {"epoch": 1, "seq": BLOCK, "timestamp": 1, "facts": 0}


def test_a_restart_skips_the_rest_of_the_block(path: Path) -> None:
    """A crash loses numbers and repeats none."""
    HighWater(path).next_order()
    assert HighWater(path).next_order() == (1, BLOCK + 1)


def test_blocks_follow_one_another(path: Path) -> None:
    """Crossing the end of a block reserves the next one."""
    marks = HighWater(path)
    orders = [marks.next_order() for _ in range(BLOCK + 1)]
    assert orders == sorted(set(orders)) and json.loads(path.read_text())["seq"] == 2 * BLOCK


@given(steps=st.lists(st.booleans(), max_size=30))
def test_no_number_comes_twice_over_any_restarts(tmp_path_factory: pytest.TempPathFactory, steps: list[bool]) -> None:
    """However signing and restarts alternate, the order only rises."""
    file = tmp_path_factory.mktemp("marks") / "high-water.json"
    write_marks(file, Marks(epoch=3, seq=7, timestamp=1))
    marks, last = HighWater(file), (3, 7)
    for restart in steps:
        if restart:
            marks = HighWater(file)
        order = marks.next_order()
        assert order > last
        last = order


def test_a_timestamp_version_is_written_before_it_is_used(path: Path) -> None:
    """The file holds the version that was handed out."""
    assert HighWater(path).next_timestamp() == 2
    assert json.loads(path.read_text())["timestamp"] == 2


@pytest.mark.parametrize(("order", "timestamp"), [((1, 1), 1), ((2, 1), 1), ((1, 0), 2)])
def test_marks_below_what_was_published_are_refused(path: Path, order: tuple[int, int], timestamp: int) -> None:
    """An old copy of the file is not gone on from."""
    with pytest.raises(ConflictError, match="old copy"):
        HighWater(path).check_above(order, timestamp)


def test_marks_at_what_was_published_are_fine(path: Path) -> None:
    """Nothing is refused when the file is the newest."""
    marks = HighWater(path)
    order = marks.next_order()
    marks.check_above(order, 1)


def test_two_signers_on_one_file_are_noticed(path: Path) -> None:
    """The second one to reserve is refused, so no number is signed twice."""
    one, two = HighWater(path), HighWater(path)
    one.next_order()
    with pytest.raises(ConflictError, match="another process"):
        two.next_order()


def test_a_missing_or_damaged_file_is_refused(path: Path) -> None:
    """Nothing is guessed: the message says what the file must hold."""
    path.write_text("{}")
    with pytest.raises(OperationError, match="epoch, seq and timestamp"):
        HighWater(path)
    path.unlink()
    with pytest.raises(NotFoundError, match="old numbers"):
        HighWater(path)


def test_a_new_epoch_is_durable_and_seqs_go_on(path: Path) -> None:
    """Whatever was signed before is below what is signed now."""
    marks = HighWater(path)
    before = marks.next_order()
    assert marks.raise_epoch() == 2
    after = marks.next_order()
    assert after == (2, before[1] + 1)
    assert HighWater(path).next_order() > after
