"""Metered links: one source that may be used opens the gate, and only downloads ask for one."""

import pytest

from device_client.gates.gate import GateContext, Ready, Wait
from device_client.gates.network import NetworkGate, judge
from protocol.manifest import Policy
from protocol.states import Phase


@pytest.mark.parametrize(
    ("barred", "ready"),
    [((), True), (("",), True), (("wwan0 is metered", ""), True), (("wwan0 is metered",), False), (("a", "b"), False)],
)
def test_judge(barred: tuple[str, ...], ready: bool) -> None:
    """Every source must be barred, and the first one's reason is told."""
    verdict = judge(barred, 30)
    assert verdict == (Ready() if ready else Wait("metered", barred[0], 30))


@pytest.mark.parametrize("phase", list(Phase))
async def test_only_downloads_need_a_link(phase: Phase) -> None:
    """What is on the disk is installed whatever the link costs."""
    gate = NetworkGate(lambda: ["wwan0 is metered"], 30)
    verdict = await gate.judge(GateContext(phase, "r", 0, Policy(), "ab" * 32))
    assert isinstance(verdict, Wait if phase is Phase.DOWNLOAD else Ready)
