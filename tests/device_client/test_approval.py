"""Answers of people at the device: bound to rollout, release and phase; kept; never lent to another release."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from device_client.approval import MAX_ENTRIES, Answer, ApprovalBook, Decision
from device_client.gates.approval import Answer as Said
from protocol.states import Phase

NOW = datetime(2026, 11, 24, tzinfo=UTC)
ONE, OTHER = "1" * 64, "2" * 64


def decision(answer: Answer, rollout: str = "r-1", release: str = ONE) -> Decision:
    until = NOW + timedelta(hours=1) if answer == "defer" else None
    return Decision(rollout=rollout, release_sha256=release, answer=answer, who="anna", at=NOW, until=until)


@pytest.fixture
def book(tmp_path: Path) -> ApprovalBook:
    (tmp_path / "drop").mkdir()
    return ApprovalBook(tmp_path / "approvals.json", tmp_path / "drop")


def test_an_answer_opens_only_its_own_release(book: ApprovalBook) -> None:
    """An approval of one release says nothing about another, nor about another rollout or phase."""
    book.record(decision("approve"))
    assert book.answer("r-1", ONE, Phase.INSTALL) == (Said.APPROVED, None)
    assert book.answer("r-1", OTHER, Phase.INSTALL) == (Said.NONE, None)
    assert book.answer("r-2", ONE, Phase.INSTALL) == (Said.NONE, None)
    assert book.answer("r-1", ONE, Phase.ACTIVATE) == (Said.NONE, None)


def test_the_last_answer_counts(book: ApprovalBook) -> None:
    """Who deferred may still approve, and the other way round."""
    book.record(decision("defer"))
    assert book.answer("r-1", ONE, Phase.INSTALL) == (Said.DEFERRED, NOW + timedelta(hours=1))
    book.record(decision("approve"))
    book.record(decision("decline"))
    assert book.answer("r-1", ONE, Phase.INSTALL)[0] is Said.DECLINED


def test_answers_survive_a_restart_and_stay_few(book: ApprovalBook, tmp_path: Path) -> None:
    """The file keeps the newest answers and no more than its bound."""
    for number in range(MAX_ENTRIES + 5):
        book.record(decision("approve", rollout=f"r-{number}"))
    again = ApprovalBook(tmp_path / "approvals.json", tmp_path / "drop")
    assert again.answer(f"r-{MAX_ENTRIES + 4}", ONE, Phase.INSTALL)[0] is Said.APPROVED
    assert again.answer("r-0", ONE, Phase.INSTALL)[0] is Said.NONE


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b'[{"rollout": 1}]', b"\xff\xfe"])
def test_a_damaged_book_is_closed_not_open(tmp_path: Path, content: bytes) -> None:
    """Lost approvals are asked for again."""
    (tmp_path / "approvals.json").write_bytes(content)
    book = ApprovalBook(tmp_path / "approvals.json", tmp_path)
    assert book.answer("r-1", ONE, Phase.INSTALL)[0] is Said.NONE


@pytest.mark.parametrize(("suffix", "said"), [("approve", Said.APPROVED), ("decline", Said.DECLINED)])
def test_a_drop_file_is_taken_once(book: ApprovalBook, tmp_path: Path, suffix: str, said: Said) -> None:
    """A kiosk's program answers with a file, which is deleted when it was recorded."""
    drop = tmp_path / "drop" / f"r-1.{suffix}"
    drop.touch()
    assert book.answer("r-1", ONE, Phase.INSTALL)[0] is said
    assert not drop.exists()
    assert book.answer("r-1", OTHER, Phase.INSTALL)[0] is Said.NONE


def test_a_hostile_rollout_is_not_recorded(book: ApprovalBook) -> None:
    """A name that could leave the folder is refused."""
    with pytest.raises(ValueError, match="rollout"):
        book.record(decision("approve", rollout="../r"))
