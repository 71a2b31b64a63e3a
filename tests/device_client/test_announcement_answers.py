"""Ready, or why not: to every live announcement that is meant for this device, on change and then ever more rarely."""

import itertools
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import pytest

from device_client.agent.journal import Journal, Update
from device_client.agent.runner import Runner
from device_client.announcement_answers import AnnouncementAnswers
from device_client.availability import Availability
from device_client.gate_keeper import GateKeeper
from device_client.gates.gate import GateContext, Ready, Verdict, Wait
from device_client.refusals import Refusals
from protocol.directives import Action, Grant
from protocol.errors import ErrorCode, ProtocolError
from protocol.states import State
from tests.device_client.lab import Lab, SealedRelease


@dataclass
class Door:
    """A gate of the test's own."""

    name: str = "door"
    verdict: Verdict = field(default_factory=Ready)

    async def judge(self, context: GateContext) -> Verdict:
        """As the test says."""
        return self.verdict


class Answering:
    """A device that knows of announcements and has no offer."""

    def __init__(self, path: Path) -> None:
        self.lab = lab = Lab(path)
        lab.factory()
        self.release: SealedRelease = lab.publish()
        lab.refresh()
        self.line = lab.connect()
        self.runner = Runner(Journal(lab.home.journal), lab.settings.timing, lab.clock, Random(1))
        self.door, self.refusals = Door(), Refusals(lab.clock)
        self.answers = AnnouncementAnswers(
            self.runner,
            GateKeeper([self.door], lab.settings, lab.verifier, self.runner.announcements),
            lab.verifier,
            self.refusals,
            lab.reporter,
            Availability(5, 100, Random(1)),
            lab.clock,
            7,
        )

    def announce(self, action: Action = Action.INSTALL, rollout: str = "r") -> None:
        """An announcement was accepted."""
        self.runner.announcements[rollout] = self.lab.announcement(self.release, action, rollout=rollout)

    async def after(self, seconds: float) -> list[tuple[bool, list[str]]]:
        """What is said when this much time has passed: (ready, codes) of each new report."""
        self.lab.clock.advance(seconds)
        before = len(self.line.sent)
        await self.answers.answer()
        reports = self.line.reports("readiness")[len(self.line.reports("readiness")) - (len(self.line.sent) - before) :]
        return [(report["ready"], [reason["code"] for reason in report["reasons"]]) for report in reports]


@pytest.fixture
def device(tmp_path: Path) -> Answering:
    """Of a lab."""
    return Answering(tmp_path / "home")


async def test_it_is_said_on_change_and_then_rarely(device: Answering) -> None:
    """Ready at once, not again in the same breath; shut gates at the next look; the same words with growing gaps."""
    device.announce()
    assert await device.after(0) == [(True, [])]
    assert await device.after(0) == []
    device.door.verdict = Wait("hot", "80 C")
    assert await device.after(1) == [], "gates are judged at their interval"
    assert await device.after(7) == [(False, ["hot"])]
    said = [second for second in range(1000) if await device.after(1)]
    gaps = [after - before for before, after in itertools.pairwise(said)]
    assert 5 < len(said) < 40
    assert gaps[-1] > 40


async def test_a_new_ingest_hears_everything_again(device: Answering) -> None:
    """Within the base interval, each rollout once."""
    device.announce()
    device.announce(rollout="r2")
    assert len(await device.after(0)) == 2
    device.answers.repeat_all()
    assert len(await device.after(5)) == 2


@pytest.mark.parametrize("why", ["hold", "abort", "expired", "closed", "open here"])
async def test_who_is_not_answered(device: Answering, why: str) -> None:
    """What is on hold, over, or under way here already asks for no readiness."""
    device.announce({"hold": Action.HOLD, "abort": Action.ABORT}.get(why, Action.INSTALL))
    if why == "expired":
        device.lab.clock.advance(2 * 86_400)
    if why == "closed":
        device.runner.offers["r"] = device.lab.offer(device.release, Grant.CLOSED)
    if why == "open here":
        device.runner.update = Update(offer=device.lab.offer(device.release))
    assert await device.after(0) == []


async def test_busy_with_another_rollout(device: Answering) -> None:
    """One update at a time: another rollout hears that the device is busy, until that one is over."""
    device.runner.update = Update(offer=device.lab.offer(device.release, rollout="other"))
    device.announce()
    assert await device.after(0) == [(False, ["busy"])]
    device.runner.update = device.runner.update.model_copy(update={"state": State.SUCCEEDED})
    assert await device.after(7) == [(True, [])]


async def test_busy_and_nothing_else_is_a_single_reason(device: Answering) -> None:
    """Whoever may preempt reads off it that the device is ready otherwise; notes of refusals do not stand beside it."""
    device.refusals.add("r", ProtocolError(ErrorCode.REPLAY, "order 1.1"))
    device.runner.update = Update(offer=device.lab.offer(device.release, rollout="other"))
    device.announce()
    assert await device.after(0) == [(False, ["busy"])]
    (report,) = device.line.reports("readiness")
    assert [(reason["gate"], reason["code"]) for reason in report["reasons"]] == [("busy", "busy")]
    device.door.verdict = Wait("hot", "80 C")
    assert await device.after(7) == [(False, ["hot", "busy", "e_replay"])], "what else is shut is said as well"
    device.door.verdict = Ready()
    device.runner.update = device.runner.update.model_copy(update={"state": State.SUPERSEDED})
    assert await device.after(7) == [(True, ["e_replay"])], "and the note is said with the next answer"


async def test_a_release_for_other_hardware_is_not_answered(device: Answering) -> None:
    """A fleet has many kinds of devices; this one has nothing to say."""
    for target in device.lab.repository.releases.targets.values():
        target.unrecognized_fields["custom"]["hardware"] = ["rev-z"]
    device.lab.repository.bump()
    device.lab.refresh()
    device.announce()
    assert await device.after(0) == []


async def test_refusals_are_told(device: Answering) -> None:
    """What was refused reaches the operator by its code; it does not make a ready device unready."""
    device.refusals.add("r", ProtocolError(ErrorCode.REPLAY, "order 1.1"))
    device.refusals.add("", ProtocolError(ErrorCode.MIX, "snapshot"))
    device.announce()
    assert await device.after(0) == [(True, ["e_replay", "e_mix"])]


async def test_a_release_that_is_not_listed_is_a_reason(device: Answering) -> None:
    """The operator sees why nobody is ready."""
    device.lab.repository.releases.targets.clear()
    device.lab.repository.bump()
    device.lab.refresh()
    device.announce()
    assert await device.after(0) == [(False, ["e_not_released"])]


async def test_a_damaged_device_says_so(device: Answering) -> None:
    """What it runs cannot be told: that is a reason, not the end of the agent."""
    device.lab.home.current.unlink()
    device.lab.home.current.mkdir()
    device.announce()
    assert await device.after(0) == [(False, ["broken"])]


async def test_a_medium_s_announcement_is_not_answered(device: Answering) -> None:
    """It asks nobody; the rollout's own word on the broker does."""
    announcement = device.lab.announcement(device.release)
    device.runner.announcements["r"] = announcement.model_copy(update={"offline_until": announcement.expires})
    assert await device.after(0) == []
    device.announce()
    assert await device.after(0) == [(True, [])]
