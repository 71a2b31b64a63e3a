"""The log: every line chained to the one before it, over restarts and rotations, and nothing half written."""

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.errors import ConflictError, OperationError
from orchestrator.signer.request_log import MAX_LINE_BYTES, RequestLog, check_log

BIG = 2**20


def lines_of(path: Path) -> list[dict[str, object]]:
    """The lines of one file."""
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the log goes."""
    return tmp_path / "requests.log"


def test_lines_are_numbered_and_chained(path: Path) -> None:
    """Over a restart; a line without a number of its own repeats the highest so far."""
    log = RequestLog(path, BIG, 3)
    log.append([{"kind": "offer", "epoch": 1, "seq": 7}, {"kind": "revoke"}], (1, 0))
    log.close()
    again = RequestLog(path, BIG, 3)
    assert again.head.order == (1, 7) and again.head.n == 2
    again.append([{"kind": "offer", "epoch": 1, "seq": 8}], (9, 9))
    assert [(line["n"], line["seq"]) for line in lines_of(path)] == [(1, 7), (2, 7), (3, 8)]
    assert check_log(path) == (3, again.head)
    assert path.stat().st_mode & 0o777 == 0o600


def _change(lines: list[bytes]) -> None:
    lines[1] = lines[1].replace(b"offer", b"other")


def _swap(lines: list[bytes]) -> None:
    lines[1], lines[2] = lines[2], lines[1]


def _drop(lines: list[bytes]) -> None:
    del lines[1]


def _garble(lines: list[bytes]) -> None:
    lines[1] = b"{}\n"


@pytest.mark.parametrize("change", [_change, _swap, _drop, _garble])
def test_a_changed_log_is_noticed(path: Path, change: object) -> None:
    """A line that was changed, moved or left out; the sentence names the place."""
    log = RequestLog(path, BIG, 3)
    log.append([{"kind": "offer", "epoch": 1, "seq": n} for n in range(1, 5)], (1, 0))
    log.close()
    lines = path.read_bytes().splitlines(keepends=True)
    assert callable(change)
    change(lines)
    path.write_bytes(b"".join(lines))
    with pytest.raises(OperationError, match=r"line [23] does not follow"):
        check_log(path)


def test_files_begin_anew_at_their_size_and_the_oldest_goes(path: Path) -> None:
    """The chain runs through all that are kept; no more than ``max_files`` ever are."""
    log = RequestLog(path, 500, 3)
    for seq in range(1, 41):
        log.append([{"kind": "offer", "epoch": 1, "seq": seq}], (1, 0))
    log.close()
    assert sorted(file.name for file in path.parent.iterdir()) == ["requests.log", "requests.log.1", "requests.log.2"]
    lines, head = check_log(path)
    assert head == log.head and head.n == 40 and 0 < lines < 40
    reopened = RequestLog(path, 500, 3)
    assert reopened.head == head


def test_a_rotation_right_before_a_restart_loses_no_number(path: Path) -> None:
    """An empty newest file is passed over for the one before it."""
    log = RequestLog(path, BIG, 3)
    log.append([{"kind": "offer", "epoch": 2, "seq": 5}], (1, 0))
    log.close()
    path.rename(path.with_name("requests.log.1"))
    assert RequestLog(path, BIG, 3).head.order == (2, 5)


@given(cut=st.integers(min_value=1, max_value=60))
def test_half_a_line_is_cut_off(tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
    """What a power cut left behind the last whole line is no line; the chain goes on from there."""
    path = tmp_path_factory.mktemp("log") / "requests.log"
    log = RequestLog(path, BIG, 3)
    log.append([{"kind": "offer", "epoch": 1, "seq": 1}], (1, 0))
    log.append([{"kind": "offer", "epoch": 1, "seq": 2}], (1, 0))
    log.close()
    os.truncate(path, path.stat().st_size - cut)
    again = RequestLog(path, BIG, 3)
    again.append([{"kind": "offer", "epoch": 1, "seq": 3}], (1, 0))
    again.close()
    assert [line["seq"] for line in lines_of(path)] == [1, 3]
    assert check_log(path)[0] == 2


def test_a_strange_last_line_is_refused(path: Path) -> None:
    """It is not overwritten by chance."""
    path.write_text("something else\n")
    with pytest.raises(OperationError, match="none of this log"):
        RequestLog(path, BIG, 3)


def test_a_second_writer_is_noticed(path: Path) -> None:
    """Two signers would break the chain."""
    one, two = RequestLog(path, BIG, 3), RequestLog(path, BIG, 3)
    one.append([{"kind": "offer", "epoch": 1, "seq": 1}], (1, 0))
    with pytest.raises(ConflictError, match="another process"):
        two.append([{"kind": "offer", "epoch": 1, "seq": 1}], (1, 0))


def test_long_and_strange_texts_stay_within_a_line(path: Path) -> None:
    """Whatever a refused draft held."""
    log = RequestLog(path, BIG, 3)
    log.append([dict.fromkeys(("kind", "rollout", "device", "release", "why"), "\N{PILE OF POO}\n" * 9999)], (1, 0))
    (line,) = path.read_bytes().splitlines()
    assert len(line) < MAX_LINE_BYTES
    assert check_log(path)[0] == 1


def test_a_batch_that_fits_half_is_not_there(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that fills up leaves the log as it was."""
    log = RequestLog(path, BIG, 3)
    log.append([{"kind": "offer", "epoch": 1, "seq": 1}], (1, 0))
    write = os.write

    def half(descriptor: int, data: bytes) -> int:
        if len(data) < 100:
            raise OSError(28, "No space left on device")
        return write(descriptor, data[: len(data) - 50])

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", half)
        with pytest.raises(OperationError, match="No space left"):
            log.append([{"kind": "offer", "epoch": 1, "seq": 2}], (1, 0))
    log.append([{"kind": "offer", "epoch": 1, "seq": 3}], (1, 0))
    assert [line["seq"] for line in lines_of(path)] == [1, 3] and check_log(path)[0] == 2


def test_it_is_durable_within_a_second(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when nothing follows."""
    import threading

    synced = threading.Event()
    monkeypatch.setattr(os, "fsync", lambda _: synced.set())
    log = RequestLog(path, BIG, 3)
    log.append([{"kind": "offer", "epoch": 1, "seq": 1}], (1, 0))
    assert synced.wait(5)
    log.close()
