"""What the signer remembers is durable, and an old copy or none is refused."""

import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest

from orchestrator.errors import ConflictError, NotFoundError, OperationError
from orchestrator.signer import facts as facts_module
from orchestrator.signer.facts import FactsFile
from orchestrator.signer.high_water import HighWater, Marks, write_marks

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)


@pytest.fixture
def marks(tmp_path: Path) -> HighWater:
    """Of a signer that signed nothing yet."""
    write_marks(tmp_path / "high-water.json", Marks(epoch=1, seq=0, timestamp=1))
    return HighWater(tmp_path / "high-water.json")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the facts go."""
    return tmp_path / "facts.json"


def again(path: Path) -> FactsFile:
    """The facts after a restart."""
    return FactsFile(path, HighWater(path.parent / "high-water.json"))


def test_everything_is_there_after_a_restart(path: Path, marks: HighWater) -> None:
    """Halts, revocations, releases; the file is its owner's alone."""
    facts = FactsFile(path, marks)
    facts.bind("r-1", "a" * 64)
    facts.halt("r-1", 1, NOW, "smoke", final=False)
    assert facts.revoke({"d1": "stolen", "d2": "lost"}) == 2
    assert facts.revoke({"d1": "again"}) == 0
    found = again(path)
    halt = found.halt_of("r-1")
    assert halt is not None and (halt.halts, halt.reason, halt.at, halt.final) == (1, "smoke", NOW, False)
    assert found.release_of("r-1") == "a" * 64
    assert found.is_revoked("d1") and found.is_revoked("d2") and not found.is_revoked("d3")
    assert path.stat().st_mode & 0o777 == 0o600


def test_an_old_copy_is_refused(path: Path, marks: HighWater, tmp_path: Path) -> None:
    """It would forget a halt or a revocation."""
    facts = FactsFile(path, marks)
    facts.revoke({"d1": "stolen"})
    shutil.copy(path, tmp_path / "copy")
    facts.revoke({"d2": "stolen"})
    shutil.copy(tmp_path / "copy", path)
    with pytest.raises(ConflictError, match="old copy"):
        again(path)


def test_a_power_cut_between_facts_and_marks_is_no_old_copy(
    path: Path, marks: HighWater, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The facts are written first: ahead of the marks is fine."""
    facts = FactsFile(path, marks)

    def cut(_: int) -> None:
        raise OperationError("power")

    monkeypatch.setattr(marks, "note_facts", cut)
    with pytest.raises(OperationError):
        facts.revoke({"d1": "stolen"})
    assert again(path).is_revoked("d1")


def test_a_lost_file_is_refused_once_anything_was_signed(path: Path, marks: HighWater) -> None:
    """The sentence says what would be forgotten; a new signer needs none."""
    FactsFile(path, marks)
    marks.next_order()
    with pytest.raises(NotFoundError, match="revoked devices"):
        again(path)


@pytest.mark.parametrize("text", ["", "[]", '{"halted": {"a/b": 1}}', "[" * 100_000, '{"version": -1}'])
def test_a_damaged_file_is_refused(path: Path, marks: HighWater, text: str) -> None:
    """One sentence."""
    path.write_text(text)
    with pytest.raises(OperationError, match="as JSON"):
        FactsFile(path, marks)


def test_the_oldest_rollout_is_forgotten_never_a_halt(
    path: Path, marks: HighWater, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What grows has a bound."""
    monkeypatch.setattr(facts_module, "MAX_ROLLOUTS", 2)
    facts = FactsFile(path, marks)
    facts.halt("r-1", 1, NOW, "", final=True)
    for rollout in ("r-1", "r-2", "r-3"):
        facts.bind(rollout, "a" * 64)
    assert [facts.release_of(rollout) is None for rollout in ("r-1", "r-2", "r-3")] == [True, False, False]
    assert facts.halt_of("r-1") is not None
