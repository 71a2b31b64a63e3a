"""Answers of people at the device: bound to rollout, release and phase; kept; never lent to another release."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from device_client.agent.journal import Update
from device_client.approval import MAX_ENTRIES, Answer, ApprovalBook, Decision
from device_client.errors import ConflictError
from device_client.gates.approval import Answer as Said
from protocol.states import Phase, State
from tests.device_client.lab import Lab

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


@pytest.mark.parametrize(
    ("name", "phase"), [("r-1", Phase.INSTALL), ("r-1.install", Phase.INSTALL), ("r-1.activate", Phase.ACTIVATE)]
)
def test_a_drop_file_may_name_its_phase(book: ApprovalBook, tmp_path: Path, name: str, phase: Phase) -> None:
    """It answers for that phase and no other; one of another rollout is left alone."""
    (tmp_path / "drop" / f"{name}.approve").touch()
    other = tmp_path / "drop" / "r-12.approve"
    other.touch()
    for asked in (Phase.INSTALL, Phase.ACTIVATE):
        assert book.answer("r-1", ONE, asked)[0] is (Said.APPROVED if asked is phase else Said.NONE)
    assert [path.name for path in (tmp_path / "drop").iterdir()] == [other.name]


def put_off(book: ApprovalBook, hours: float, for_hours: float = 1, max_times: int = 3, max_hours: float = 48) -> None:
    """At so many hours, for so many."""
    at = NOW + timedelta(hours=hours)
    until = at + timedelta(hours=for_hours)
    book.defer(decision("defer").model_copy(update={"at": at, "until": until}), max_times, 3600 * max_hours)


def test_an_update_is_put_off_only_so_often(book: ApprovalBook) -> None:
    """The fourth time is refused with the way out, and what was said before stands; other releases have their own."""
    for hours in (0, 1, 2):
        put_off(book, hours)
    with pytest.raises(ConflictError, match="was put off 3 times, at most 3; approve or decline"):
        put_off(book, 3)
    assert book.answer("r-1", ONE, Phase.INSTALL) == (Said.DEFERRED, NOW + timedelta(hours=3))
    book.defer(decision("defer", release=OTHER), 3, 3600)
    with pytest.raises(ConflictError, match="0 times, at most 0"):
        book.defer(decision("defer", rollout="r-2"), 0, 3600)


def test_an_update_is_put_off_only_so_long(book: ApprovalBook) -> None:
    """Counted from the first time it was said, however the time is cut into pieces."""
    put_off(book, 0, 24)
    put_off(book, 24, 24)
    with pytest.raises(ConflictError, match="may be put off until 2026-11-26T00:00:00Z, not longer"):
        put_off(book, 47, 2)
    with pytest.raises(ConflictError, match="not longer"):
        book.defer(decision("defer", rollout="r-2"), 3, 3599)


def test_who_agreed(book: ApprovalBook, tmp_path: Path) -> None:
    """To the install while it installs, to the activation afterwards; nobody, where the last word was another."""
    lab = Lab(tmp_path / "home")
    release = lab.publish()
    update = Update(offer=lab.offer(release), state=State.INSTALLING)
    later = update.model_copy(update={"state": State.VERIFYING})
    assert book.approved_by(update) == ""
    agreed = decision("approve", rollout="r", release=release.ref.sha256)
    book.record(agreed)
    assert book.approved_by(update) == book.approved_by(later) == "install approved by anna at 2026-11-24T00:00:00Z"
    book.record(agreed.model_copy(update={"phase": Phase.ACTIVATE, "who": "ben"}))
    assert book.approved_by(later) == "activate approved by ben at 2026-11-24T00:00:00Z"
    assert book.approved_by(update).startswith("install approved by anna")
    book.record(agreed.model_copy(update={"answer": "decline"}))
    assert book.approved_by(update) == ""
