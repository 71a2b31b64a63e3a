"""The journal: what was saved is loaded; what is damaged is set aside and counts as nothing."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from device_client.agent.journal import MAX_JOURNAL_BYTES, Journal, Update
from protocol.directives import Action, Grant, Offer, ReleaseRef
from protocol.errors import ErrorCode
from protocol.reports import Reason
from protocol.states import OUTCOMES, Phase, State

DiesAt = Callable[[int, Path, Callable[[], object]], bool]
NOW = datetime(2026, 11, 23, tzinfo=UTC)
OFFER = Offer(
    fleet="f", issued=NOW, rollout="r", expires=NOW, epoch=1, seq=1, device="d", grant=Grant.DOWNLOAD,
    release=ReleaseRef(path="cam/1.1.0/manifest", length=1, sha256="ab" * 32, counter=0),
)  # fmt: skip
UPDATE = Update(
    offer=OFFER, state=State.WAITING, phase=Phase.INSTALL, nonce="nonce-01", code=ErrorCode.HEALTH, detail="ü",
    reasons=[Reason(gate="power", code="battery_low", detail="12 %")], component="app", version="1.1.0",
)  # fmt: skip


def test_save_load_forget(tmp_path: Path) -> None:
    """What is saved last is loaded by whoever comes next; nothing saved, or forgotten, is no update."""
    journal = Journal(tmp_path / "journal.json")
    assert journal.load() is None
    journal.save(UPDATE)
    assert Journal(tmp_path / "journal.json").load() == UPDATE
    journal.save(UPDATE.model_copy(update={"state": State.INSTALLING, "phase": None}))
    loaded = journal.load()
    assert loaded is not None
    assert loaded.state is State.INSTALLING
    journal.save(None)
    journal.save(None)
    assert journal.load() is None
    assert not list(tmp_path.iterdir())


def test_unknown_fields_of_a_newer_agent_are_tolerated(tmp_path: Path) -> None:
    """An agent that was rolled back reads the journal of the newer one."""
    journal = Journal(tmp_path / "journal.json")
    journal.save(UPDATE)
    text = (tmp_path / "journal.json").read_text()
    (tmp_path / "journal.json").write_text(text.replace('{"v":1', '{"later":true,"v":1', 1))
    assert journal.load() == UPDATE


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b"{}",
        b"\xff\xfe",
        b"[" * 100_000,
        b" " * (MAX_JOURNAL_BYTES + 1),
        b'{"state": "flying"}',
    ],
    ids=["empty", "cut", "null", "list", "no offer", "binary", "deep", "long", "no such state"],
)
def test_damage_fails_closed(tmp_path: Path, content: bytes) -> None:
    """A journal that cannot be read orders nothing; it is kept aside for a person, and a new one can be saved."""
    path = tmp_path / "journal.json"
    path.write_bytes(content)
    journal = Journal(path)
    assert journal.load() is None
    assert (tmp_path / "journal.damaged").read_bytes() == content
    assert journal.load() is None
    journal.save(UPDATE)
    assert journal.load() == UPDATE


def test_truncated_at_every_length(tmp_path: Path) -> None:
    """No cut of a journal is taken for another order."""
    path = tmp_path / "journal.json"
    Journal(path).save(UPDATE)
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        assert Journal(path).load() is None


def test_save_cut_off_anywhere(tmp_path: Path, dies_at: DiesAt) -> None:
    """A process that dies while saving leaves the update of before or after; dying while forgetting likewise."""
    later = UPDATE.model_copy(update={"state": State.INSTALLING, "phase": None})
    for target in (later, None):
        for number in range(20):
            path = tmp_path / f"{number}-{target is None}" / "journal.json"
            path.parent.mkdir()
            Journal(path).save(UPDATE)
            cut = dies_at(number, tmp_path, lambda path=path, target=target: Journal(path).save(target))  # type: ignore[misc]
            assert Journal(path).load() in (UPDATE, target)
            if not cut:
                break
        else:
            pytest.fail("the save never ended")


def test_properties() -> None:
    """Over is over; activation needs a live grant of an offer that says activate in a rollout that goes on."""
    for state in State:
        assert UPDATE.model_copy(update={"state": state}).is_over is (state in OUTCOMES)
    may = UPDATE.model_copy(update={"granted": True, "offer": OFFER.model_copy(update={"grant": Grant.ACTIVATE})})
    assert may.may_activate
    assert not may.model_copy(update={"granted": False}).may_activate
    assert not may.model_copy(update={"action": Action.HOLD}).may_activate
    assert not may.model_copy(update={"offer": OFFER}).may_activate
