"""All gates together: every one is asked, what breaks is shut, refusals are told apart from waits."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from device_client.clock import FlooredClock
from device_client.gates.disk import DiskGate
from device_client.gates.gate import Gate, GateContext, Ready, Refuse, Verdict, Wait, judge_all
from device_client.gates.in_use import InUseGate, inhibit
from device_client.gates.interval import IntervalGate
from device_client.gates.policy import WindowSet, strictest
from device_client.gates.power import PowerGate
from device_client.gates.way_back import WayBackGate
from device_client.gates.window import WindowGate
from protocol.clock import ManualClock
from protocol.manifest import Policy
from protocol.states import Phase
from protocol.windows import DAYS, PolicyWindow

CONTEXT = GateContext(Phase.INSTALL, "r", 0, Policy(), "ab" * 32)


@dataclass
class Fixed:
    """A gate with one answer; an exception is raised, None never comes."""

    name: str
    verdict: Verdict | Exception | None

    async def judge(self, context: GateContext) -> Verdict:
        """The one answer."""
        if self.verdict is None:
            await asyncio.Event().wait()
            raise AssertionError
        if isinstance(self.verdict, Exception):
            raise self.verdict
        return self.verdict


async def test_all_open() -> None:
    """Ready when every gate is; also when there is none."""
    assert (await judge_all([Fixed("a", Ready()), Fixed("b", Ready())], CONTEXT)).ready
    assert (await judge_all([], CONTEXT)).ready


async def test_all_unmet_reasons_are_told() -> None:
    """Every shut gate is named, refusals first; the first to be asked again says when."""
    judgement = await judge_all(
        [
            Fixed("a", Wait("one", "1", 60)),
            Fixed("b", Ready()),
            Fixed("c", Wait("two", "2", 30)),
            Fixed("d", Refuse("three", "3")),
            Fixed("e", Wait("four", "4")),
        ],
        CONTEXT,
    )
    assert [(reason.gate, reason.code) for reason in judgement.reasons] == [
        ("d", "three"), ("a", "one"), ("c", "two"), ("e", "four"),
    ]  # fmt: skip
    assert [reason.gate for reason in judgement.refusals] == ["d"]
    assert judgement.retry_after_s == 30
    assert [answer.gate for answer in judgement.answers] == ["a", "b", "c", "d", "e"], "the open ones are kept too"
    assert judgement.answers[1].verdict == Ready()
    assert not judgement.ready


async def test_what_breaks_is_shut() -> None:
    """A gate that raises is a wait that names the error's kind and not its text."""
    judgement = await judge_all([Fixed("a", RuntimeError("secret"))], CONTEXT)
    assert [reason.code for reason in judgement.reasons] == ["broken"]
    assert "RuntimeError" in judgement.reasons[0].detail
    assert "secret" not in judgement.reasons[0].detail


async def test_what_does_not_answer_is_shut() -> None:
    """A gate that hangs is a wait after its deadline, and holds up nobody for longer."""
    async with asyncio.timeout(5):
        judgement = await judge_all([Fixed("a", None), Fixed("b", Ready())], CONTEXT, deadline_s=0.01)
    assert [reason.code for reason in judgement.reasons] == ["no_answer"]


class Patient:
    """A gate that takes its time, and says how much of it."""

    name = "patient"
    deadline_s = 5.0

    async def judge(self, context: GateContext) -> Sequence[Verdict]:
        """Two answers, after a while."""
        await asyncio.sleep(0.05)
        return [Wait("one", "first"), Ready(), Refuse("two", "second")]


async def test_a_gate_with_a_deadline_and_several_answers_of_its_own() -> None:
    """It is waited for as long as it says; each of its answers that is not ready is a reason."""
    judgement = await judge_all([Patient()], CONTEXT, deadline_s=0.01)
    assert [(reason.gate, reason.code) for reason in judgement.reasons] == [("patient", "two"), ("patient", "one")]
    assert [reason.code for reason in judgement.refusals] == ["two"]


async def test_no_more_reasons_than_a_report_holds() -> None:
    """The first of them, refusals before all others; who answers announcements has room for its own."""
    gates = [Fixed(f"g{'x' * n}", Wait("wait", "")) for n in range(40)]
    judgement = await judge_all([*gates, Fixed("last", Refuse("no", ""))], CONTEXT)
    assert len(judgement.reasons) == 28
    assert judgement.reasons[0].code == "no"


async def test_cancelling_passes_through() -> None:
    """A judgement that is not wanted any more ends."""
    task = asyncio.create_task(judge_all([Fixed("a", None)], CONTEXT))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_long_details_fit_the_report() -> None:
    """A detail is cut to what a report may carry."""
    judgement = await judge_all([Fixed("a", Wait("one", "x" * 5000))], CONTEXT)
    assert len(judgement.reasons[0].detail) == 500


async def test_real_gates_under_the_strictest_policy(tmp_path: Path) -> None:
    """The manifest's charge, the device's way back and the order's quiet are all demanded at once."""
    (tmp_path / "bat").mkdir()
    (tmp_path / "bat" / "type").write_text("Battery")
    (tmp_path / "bat" / "capacity").write_text("50")
    inhibit(tmp_path, "player")
    gates: list[Gate] = [
        PowerGate(tmp_path),
        DiskGate(tmp_path, 0),
        InUseGate(tmp_path, ManualClock(datetime(2026, 11, 23, tzinfo=UTC))),
        WayBackGate(lambda: False),
    ]
    manifest, order = Policy(min_battery_percent=80), Policy(allow_in_use=False)
    own = Policy(min_battery_percent=20, require_way_back=True, allow_in_use=True)
    context = GateContext(Phase.ACTIVATE, "r", 0, strictest(own, manifest, order), "ab" * 32)
    judgement = await judge_all(gates, context)
    assert [reason.code for reason in judgement.reasons] == ["battery_low", "in_use", "no_way_back"]
    lax = GateContext(Phase.ACTIVATE, "r", 0, Policy(min_battery_percent=20, allow_in_use=True), "ab" * 32)
    assert (await judge_all(gates, lax)).ready


async def test_an_open_gate_says_by_how_much(tmp_path: Path) -> None:
    """Its figure is for people; two open gates are alike, whatever they say."""
    now = datetime(2026, 11, 25, 12, tzinfo=UTC)
    gates: list[Gate] = [
        PowerGate(tmp_path),
        DiskGate(tmp_path, 1000),
        IntervalGate(lambda: now - timedelta(hours=1), ManualClock(now)),
        WindowGate((), lambda: "UTC", FlooredClock(ManualClock(now))),
    ]
    said = {
        answer.gate: answer.verdict.detail
        for answer in (await judge_all(gates, CONTEXT)).answers
        if isinstance(answer.verdict, Ready)
    }
    assert said["power"] == "no battery: on mains"
    assert "B free; 0 B are needed and 1000 B are kept in reserve" in said["disk"]
    assert said["interval"] == "the last update was 3600 s ago; at least 0 s are demanded"
    assert said["window"] == "none is demanded"
    always = WindowSet("release", (PolicyWindow(days=DAYS, start="11:00", minutes=120),))
    verdict = await gates[3].judge(replace(CONTEXT, window_sets=(always,)))
    assert isinstance(verdict, Ready)
    assert verdict.detail.startswith("open until 2026-11-25T13:00:00Z: release (")
    shorter = WindowSet("rollout", (PolicyWindow(days=DAYS, start="11:30", minutes=60),))
    verdict = await gates[3].judge(replace(CONTEXT, window_sets=(always, shorter)))
    assert isinstance(verdict, Ready)
    assert verdict.detail.startswith("open until 2026-11-25T12:30:00Z"), "all of them must be open"
    assert Ready("one") == Ready("other")


class Content:
    """A gate that may give several answers, and has none."""

    name = "content"

    async def judge(self, context: GateContext) -> Sequence[Verdict]:
        """Nothing."""
        return []


async def test_a_gate_with_nothing_to_say_is_open_and_shown() -> None:
    """It was asked, like the others."""
    judgement = await judge_all([Content(), Fixed("b", Ready("fine"))], CONTEXT)
    assert judgement.ready
    assert [(answer.gate, answer.verdict) for answer in judgement.answers] == [("content", Ready()), ("b", Ready())]
