"""Approval: demanded or not, given, deferred, declined, and bound to rollout and manifest."""

from datetime import UTC, datetime, timedelta

import pytest

from device_client.gates.approval import Answer, ApprovalGate, judge
from device_client.gates.gate import GateContext, Ready, Refuse, Verdict, Wait
from protocol.clock import ManualClock
from protocol.manifest import Policy
from protocol.states import Phase

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)


class Book:
    """Answers what it was given, and notes what it was asked."""

    def __init__(self, answer: Answer = Answer.NONE, until: datetime | None = None) -> None:
        self.said = (answer, until)
        self.asked: list[tuple[str, str, Phase]] = []

    def answer(self, rollout: str, manifest_digest: str, phase: Phase) -> tuple[Answer, datetime | None]:
        """The one answer."""
        self.asked.append((rollout, manifest_digest, phase))
        return self.said


def _context(phase: Phase = Phase.INSTALL, demanded: bool | None = True) -> GateContext:
    return GateContext(phase, "r-1", 0, Policy(require_approval=demanded), "ab" * 32)


@pytest.mark.parametrize("demanded", [None, False])
async def test_not_demanded(demanded: bool | None) -> None:
    """Where nobody demands it, nobody is asked."""
    book = Book()
    assert await ApprovalGate(book, ManualClock(NOW)).judge(_context(demanded=demanded)) == Ready()
    assert not book.asked


async def test_downloads_need_none() -> None:
    """A download is not asked about."""
    assert await ApprovalGate(Book(), ManualClock(NOW)).judge(_context(Phase.DOWNLOAD)) == Ready()


@pytest.mark.parametrize("phase", [Phase.INSTALL, Phase.ACTIVATE])
async def test_asked_about_this_rollout_and_manifest(phase: Phase) -> None:
    """Of this manifest in this rollout, and of this phase."""
    book = Book(Answer.APPROVED)
    assert await ApprovalGate(book, ManualClock(NOW)).judge(_context(phase)) == Ready()
    assert book.asked == [("r-1", "ab" * 32, phase)]


def test_no_answer_says_how_to_give_one() -> None:
    """The detail is the command to type."""
    verdict = judge(Answer.NONE, None, NOW, "r-1")
    assert isinstance(verdict, Wait)
    assert "flagship-device approve r-1" in verdict.detail


def test_declined_is_for_good() -> None:
    """A decline is a refusal, not a wait."""
    assert isinstance(judge(Answer.DECLINED, None, NOW, "r-1"), Refuse)


def test_deferred_until_then() -> None:
    """A deferral says when to ask again; afterwards, or without an end, it is no answer."""
    later = NOW + timedelta(seconds=90)
    assert judge(Answer.DEFERRED, later, NOW, "r-1") == Wait(
        "deferred", "a person deferred it until 2026-11-23T12:01:30Z", 90
    )
    for until in (NOW, NOW - timedelta(days=1), None):
        verdict = judge(Answer.DEFERRED, until, NOW, "r-1")
        assert isinstance(verdict, Wait)
        assert verdict.code == "approval"


@pytest.mark.parametrize(
    ("each_phase", "install", "activate", "expected"),
    [
        (False, Answer.APPROVED, Answer.NONE, Ready()),
        (False, Answer.APPROVED, Answer.DECLINED, Refuse("declined", "a person at the device declined rollout r-1")),
        (False, Answer.NONE, Answer.APPROVED, Ready()),
        (True, Answer.APPROVED, Answer.APPROVED, Ready()),
        (True, Answer.APPROVED, Answer.NONE, "flagship-device approve r-1 --phase activate"),
        (True, Answer.DECLINED, Answer.NONE, "flagship-device approve r-1 --phase activate"),
    ],
)
async def test_activating(each_phase: bool, install: Answer, activate: Answer, expected: Verdict | str) -> None:
    """What was said of it counts; where nothing was, the install's answer does, unless each phase needs its own."""

    class Two:
        def answer(self, rollout: str, manifest_digest: str, phase: Phase) -> tuple[Answer, datetime | None]:
            return (activate if phase is Phase.ACTIVATE else install), None

    gate = ApprovalGate(Two(), ManualClock(NOW), each_phase=each_phase)
    verdict = await gate.judge(_context(Phase.ACTIVATE))
    if isinstance(expected, str):
        assert isinstance(verdict, Wait)
        assert (verdict.code, expected in verdict.detail) == ("approval", True)
    else:
        assert verdict == expected
