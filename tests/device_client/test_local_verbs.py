"""What people at the device may ask and say, and what they never see."""

import json
from datetime import datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

import pytest

from device_client.agent.journal import Journal, Update
from device_client.agent.runner import Runner
from device_client.approval import ApprovalBook
from device_client.errors import ConflictError, NotFoundError, UsageError
from device_client.gate_keeper import Judged
from device_client.gates.approval import Answer
from device_client.gates.gate import GateAnswer, Judgement, Ready, Refuse, Wait
from device_client.integrity import Integrity
from device_client.last_outcome import LastOutcome
from device_client.local_status import LocalStatus
from device_client.local_verbs import LocalVerbs
from device_client.medium_desk import MediumDesk
from device_client.refusals import Refusals
from protocol.directives import Grant
from protocol.errors import ErrorCode, ProtocolError
from protocol.states import Phase, State
from tests.device_client.lab import DEVICE, Lab
from tests.device_client.media import make_medium


class Desk:
    """A device with one open update."""

    def __init__(self, path: Path, **sections: Any) -> None:
        self.lab = lab = Lab(path, sections)
        lab.factory()
        self.release = lab.publish()
        lab.refresh()
        self.runner = Runner(Journal(lab.home.journal), lab.settings.timing, lab.clock, Random(1))
        self.book = ApprovalBook(lab.home.state / "approvals.json", lab.home.approvals)
        self.refusals = Refusals(lab.clock)
        self.medium = MediumDesk(
            DEVICE, lab.verifier, self.refusals, self.runner.post, lambda _: None, lab.home.state / "medium.json"
        )
        self.judged: dict[str, Judged] = {}
        self.last_outcome = LastOutcome(lab.home.state / "last-outcome.json")
        self.status = LocalStatus(
            lab.settings,
            self.runner,
            lab.installer,
            lab.verifier,
            lab.fetcher,
            lab.reporter,
            self.refusals,
            lab.clock,
            judged=self.judged,
            last_outcome=self.last_outcome,
            integrity=Integrity(lab.installer, self.runner, self.refusals, lab.verifier.clock, 0),
        )
        self.verbs = LocalVerbs(lab.settings, self.runner, self.book, lab.clock, self.medium, self.status)

    def opens(self, state: State = State.WAITING) -> None:
        """An update is open."""
        offer = self.lab.offer(self.release)
        self.runner.offers["r"] = offer
        self.runner.update = Update(offer=offer, state=state, phase=Phase.INSTALL, nonce="asked-001")


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    """Of a lab's device."""
    return Desk(tmp_path / "home")


async def test_status_shows_all_but_keys(desk: Desk) -> None:
    """What runs, what is open, what was refused, the floors; never the content key that the offer carries."""
    assert (await desk.verbs.answer("status", {}, "anna"))["update"] is None
    desk.opens()
    desk.refusals.add("r", ProtocolError(ErrorCode.REPLAY, "old"))
    desk.lab.verifier.committed("app", 3)
    status = await desk.verbs.answer("status", {}, "anna")
    assert status["running"] == {"app": "1.0.0"}
    assert (status["connected"], status["stale"]) == (False, False)
    assert (status["refused"], status["floors"]) == ({"E_REPLAY": 1}, {"app": 3})
    assert status["update"]["state"] == "waiting"
    wrap = desk.lab.wrap(desk.release)
    assert "key_wrap" not in json.dumps(status)
    assert wrap[:20] not in json.dumps(status)


def judged(desk: Desk, phase: Phase) -> Judged:
    """By a gate of each kind, two seconds ago."""
    answers = (
        GateAnswer("power", Ready("no battery: on mains")),
        GateAnswer("window", Wait("closed", "opens at night", 60)),
        GateAnswer("hook", Refuse("no", "never")),
    )
    at = desk.lab.clock.now()
    found = Judged(phase, at, desk.lab.clock.monotonic(), Judgement(answers=answers))
    desk.lab.clock.advance(2)
    return found


async def test_status_shows_every_gate_of_the_present_phase(desk: Desk) -> None:
    """Open ones too, with their figures, and when they are asked again; those of a phase that is over no more."""
    desk.opens()
    desk.judged["r"] = judged(desk, Phase.INSTALL)
    (gates,) = (await desk.verbs.answer("status", {}, "anna"))["gates"]
    assert (gates["rollout"], gates["phase"], gates["again_in_s"]) == ("r", "install", 5.0)
    words = ("gate", "verdict", "code", "detail", "retry_after_s")
    assert [tuple(one[word] for word in words) for one in gates["answers"]] == [
        ("power", "ready", "", "no battery: on mains", 0),
        ("window", "wait", "closed", "opens at night", 60),
        ("hook", "refuse", "no", "never", 0),
    ]  # fmt: skip
    desk.judged["r"] = judged(desk, Phase.DOWNLOAD)
    assert (await desk.verbs.answer("status", {}, "anna"))["gates"] == []


async def test_status_shows_why_an_announced_rollout_would_wait(desk: Desk) -> None:
    """Before any offer, as readiness is told up there; not asked again without a connection, and gone with it."""
    desk.judged["next"] = judged(desk, Phase.DOWNLOAD)
    assert (await desk.verbs.answer("status", {}, "anna"))["gates"] == []
    desk.runner.announcements["next"] = desk.lab.announcement(desk.release, rollout="next")
    (gates,) = (await desk.verbs.answer("status", {}, "anna"))["gates"]
    assert (gates["rollout"], gates["again_in_s"]) == ("next", None)
    desk.lab.connect()
    assert (await desk.verbs.answer("status", {}, "anna"))["gates"][0]["again_in_s"] == 5.0
    desk.runner.offers["next"] = desk.lab.offer(desk.release, Grant.CLOSED, rollout="next")
    assert (await desk.verbs.answer("status", {}, "anna"))["gates"] == [], "what is over waits for nothing"


async def test_status_shows_the_last_outcome(desk: Desk) -> None:
    """With its code, detail and the time at which it was first reached."""
    assert (await desk.verbs.answer("status", {}, "anna"))["last_outcome"] is None
    update = Update(offer=desk.lab.offer(desk.release), state=State.ROLLED_BACK, version="1.1.0")
    update = update.model_copy(update={"code": ErrorCode.HEALTH, "detail": "ended with code 1"})
    at = desk.lab.clock.now()
    desk.last_outcome.note(update, at)
    desk.last_outcome.note(update, at + timedelta(hours=1))
    told = (await desk.verbs.answer("status", {}, "anna"))["last_outcome"]
    assert (told["rollout"], told["version"], told["state"]) == ("r", "1.1.0", "rolled_back")
    assert (told["code"], told["detail"]) == ("E_HEALTH", "ended with code 1")
    assert datetime.fromisoformat(told["at"]) == at


async def test_status_answers_on_a_damaged_device(desk: Desk) -> None:
    """What cannot be read is said; the rest is told all the same."""
    desk.lab.home.current.unlink()
    desk.lab.home.current.mkdir()
    status = await desk.verbs.answer("status", {}, "anna")
    assert (status["running"], status["device"]) == ({}, DEVICE)
    assert "expected a link to a release" in status["trouble"]


@pytest.mark.parametrize(
    ("verb", "said"), [("approve", Answer.APPROVED), ("decline", Answer.DECLINED), ("defer", Answer.DEFERRED)]
)
async def test_an_answer_is_kept_for_this_very_release(desk: Desk, verb: str, said: Answer) -> None:
    """With the open rollout as the default, with who said it, and durable."""
    desk.opens()
    said_back = {"rollout": "r", "answer": verb, "who": "anna", "phase": "install"}
    assert await desk.verbs.answer(verb, {}, "anna") == said_back
    kept = ApprovalBook(desk.lab.home.state / "approvals.json", desk.lab.home.approvals)
    assert kept.answer("r", desk.release.ref.sha256, Phase.INSTALL)[0] is said
    assert kept.answer("r", "cd" * 32, Phase.INSTALL)[0] is Answer.NONE


@pytest.mark.parametrize("verb", ["approve", "decline", "defer"])
async def test_an_answer_may_be_for_the_activation(desk: Desk, verb: str) -> None:
    """It says nothing of the install; a phase that nobody decides on is refused."""
    desk.opens()
    assert (await desk.verbs.answer(verb, {"phase": "activate"}, "anna"))["phase"] == "activate"
    assert desk.book.last("r", desk.release.ref.sha256, Phase.ACTIVATE)
    assert desk.book.last("r", desk.release.ref.sha256, Phase.INSTALL) is None
    for phase in ("download", "commit", 7):
        with pytest.raises(UsageError, match="expected activate or install"):
            await desk.verbs.answer(verb, {"phase": phase}, "anna")


async def test_deferrals_end(tmp_path: Path) -> None:
    """As often and as long as the owner allows; the sentence says what is left to do."""
    desk = Desk(tmp_path / "home", gates={"max_deferrals": 2, "max_deferral_s": 600})
    desk.opens()
    with pytest.raises(ConflictError, match="not longer"):
        await desk.verbs.answer("defer", {"seconds": 601}, "anna")
    for _ in range(2):
        await desk.verbs.answer("defer", {"seconds": 60}, "anna")
    with pytest.raises(ConflictError, match="at most 2; approve or decline it"):
        await desk.verbs.answer("defer", {"seconds": 60}, "anna")


async def test_what_is_announced_may_be_answered_early(desk: Desk) -> None:
    """A person need not wait for the offer."""
    desk.runner.announcements["next"] = desk.lab.announcement(desk.release, rollout="next")
    assert (await desk.verbs.answer("approve", {"rollout": "next"}, "anna"))["rollout"] == "next"


async def test_what_cannot_be_answered(desk: Desk) -> None:
    """An unknown verb or rollout, and an update that is over: one sentence each."""
    with pytest.raises(UsageError, match="expected status, approve"):
        await desk.verbs.answer("reboot", {}, "anna")
    for words in ({}, {"rollout": "nobody"}, {"rollout": "../x"}):
        with pytest.raises(NotFoundError, match="none of this name" if words else "no update is open"):
            await desk.verbs.answer("approve", words, "anna")
    desk.opens(State.ROLLED_BACK)
    with pytest.raises(ConflictError, match="nothing to approve"):
        await desk.verbs.answer("approve", {}, "anna")


@pytest.mark.parametrize("seconds", [0, -1, 31 * 86_400, "soon", None, [], float("nan"), float("inf")])
async def test_a_deferral_has_bounds(desk: Desk, seconds: object) -> None:
    """More than nothing, at most a month; nothing is kept of one that is refused."""
    desk.opens()
    with pytest.raises(UsageError, match="defer: expected"):
        await desk.verbs.answer("defer", {"seconds": seconds}, "anna")
    assert desk.book.answer("r", desk.release.ref.sha256, Phase.INSTALL)[0] is Answer.NONE


async def test_a_medium_is_answered_with_what_it_comes_to(desk: Desk, tmp_path: Path) -> None:
    """Taken is not the same as going on: what keeps the offer waiting is said at once."""
    stick = make_medium(tmp_path / "stick", desk.lab, desk.release)
    said = await desk.verbs.answer("update", {"medium": str(stick)}, "anna")
    assert "allow_offline is not set" in said["taken"]["r"]
    asked = desk.lab.signed(desk.lab.offer(desk.release))
    (stick / "offer" / DEVICE / "r.json").write_bytes(asked)
    said = await desk.verbs.answer("update", {"medium": str(stick)}, "anna")
    assert "asks before it installs" in said["taken"]["r"]
    assert said["refused"] == {}
    desk.runner.update = Update(offer=desk.lab.offer(desk.release, rollout="other"), state=State.WAITING)
    said = await desk.verbs.answer("update", {"medium": str(stick)}, "anna")
    assert "rollout other is over" in said["taken"]["r"]
    for medium in ("stick", ""):
        with pytest.raises(UsageError, match="absolute"):
            await desk.verbs.answer("update", {"medium": medium}, "anna")
