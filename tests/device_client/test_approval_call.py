"""The owner's program is run once for each rollout and phase that waits for a person."""

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from device_client.agent.journal import Journal, Update
from device_client.agent.runner import Runner
from device_client.approval_call import MAX_REMEMBERED, ApprovalCall
from device_client.gate_keeper import Judged
from device_client.gates.gate import GateAnswer, Judgement, Ready, Verdict, Wait
from protocol.reports import Reason
from protocol.states import Phase, State
from tests.device_client.lab import Lab, until

ASKED = Wait("approval", "a person at the device must agree")


class Bench:
    """A device whose program appends what it reads to a file."""

    def __init__(self, path: Path, script: str = "") -> None:
        self.lab = Lab(path / "home")
        self.release = self.lab.publish()
        self.out = path / "calls"
        self.runner = Runner(Journal(self.lab.home.journal), self.lab.settings.timing, self.lab.clock, Random(1))
        self.judged: dict[str, Judged] = {}
        program = ["/bin/sh", "-c", f"cat >> {self.out}; echo >> {self.out}; {script}"]
        self.call = ApprovalCall(program, self.lab.home, self.runner, self.judged, late_s=60)

    def waits(self, verdict: Verdict = ASKED, phase: Phase = Phase.INSTALL, rollout: str = "r") -> None:
        """The gates were asked."""
        offer = self.lab.offer(self.release, rollout=rollout)
        self.runner.update = Update(offer=offer, state=State.WAITING, phase=phase, version="1.1.0", component="app")
        judgement = Judgement(answers=(GateAnswer("power", Wait("approval", "")), GateAnswer("approval", verdict)))
        self.judged[rollout] = Judged(phase, self.lab.clock.now(), self.lab.clock.monotonic(), judgement)

    def calls(self) -> list[dict[str, str]]:
        """What the program read."""
        return [json.loads(line) for line in self.out.read_text().splitlines()] if self.out.exists() else []


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """Nothing waits yet."""
    return Bench(tmp_path)


async def test_once_for_each_rollout_and_phase(bench: Bench) -> None:
    """With all that a dialog needs; and not again while the same is waited for."""
    await bench.call.tick()
    bench.waits()
    await bench.call.tick()
    await bench.call.tick()
    (call,) = bench.calls()
    words = ["flagship-device", "approve", "r", "--phase", "install", "--home", str(bench.lab.home.path)]
    assert call == {
        "rollout": "r", "phase": "install", "version": "1.1.0", "component": "app",
        "release": bench.release.ref.sha256, "detail": "a person at the device must agree", "approve": words,
    }  # fmt: skip
    bench.waits(phase=Phase.ACTIVATE)
    await bench.call.tick()
    bench.waits(rollout="r-2")
    await bench.call.tick()
    assert [(one["rollout"], one["phase"]) for one in bench.calls()] == [
        ("r", "install"), ("r", "activate"), ("r-2", "install"),
    ]  # fmt: skip


@pytest.mark.parametrize("verdict", [Ready(), Wait("deferred", "until then", 60), Wait("no_answer", "30 s")])
async def test_nobody_is_called_for_anything_else(bench: Bench, verdict: Verdict) -> None:
    """Who has answered, or is not needed, is left alone; so is who would only be asked in a later phase."""
    bench.waits(verdict)
    await bench.call.tick()
    bench.waits()
    bench.judged["r"] = replace(bench.judged["r"], phase=Phase.ACTIVATE)
    await bench.call.tick()
    assert bench.calls() == []


async def test_a_program_that_fails_is_only_logged(tmp_path: Path) -> None:
    """It was called; whether anybody noticed, nobody knows. It is not run again."""
    bench = Bench(tmp_path, "exit 3")
    bench.waits()
    await bench.call.tick()
    await bench.call.tick()
    assert len(bench.calls()) == 1


async def test_what_it_remembers_is_bounded(bench: Bench) -> None:
    """Rollouts without end do not fill the memory."""
    for number in range(MAX_REMEMBERED + 3):
        bench.call._called["r", "ab" * 32, str(number), False] = None
    bench.waits()
    await bench.call.tick()
    assert len(bench.call._called) == MAX_REMEMBERED


async def test_it_looks_by_itself(bench: Bench) -> None:
    """As a task of the agent; without a program it ends at once."""
    async with asyncio.timeout(10):
        await ApprovalCall([], bench.lab.home, bench.runner, bench.judged).run()
    bench.waits()
    task = asyncio.create_task(bench.call.run())
    await until(lambda: len(bench.calls()) == 1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_deadline_that_passed_is_one_more_call(bench: Bench) -> None:
    """Whatever is waited for; once, and not for what the orchestrator keeps waiting."""
    bench.waits(Ready())
    assert bench.runner.update is not None
    shut = [Reason(gate="power", code="battery_low", detail="battery at 3 %")]
    for waited_s, reasons in ((59.0, shut), (61.0, [Reason(gate="order", code="hold")])):
        bench.runner.update = bench.runner.update.model_copy(update={"waited_s": waited_s, "reasons": reasons})
        await bench.call.tick()
    assert bench.calls() == []
    bench.runner.update = bench.runner.update.model_copy(update={"waited_s": 61.0, "reasons": shut})
    for _ in range(2):
        await bench.call.tick()
    assert [call["detail"] for call in bench.calls()] == ["it has waited 60 s for power: battery at 3 %"]
