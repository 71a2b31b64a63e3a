"""Load: the average of the last minute for each processor against the limit."""

from pathlib import Path

import pytest

from device_client.gates.gate import GateContext, Ready, Wait
from device_client.gates.load import LoadGate, judge, read_load
from protocol.manifest import Policy
from protocol.states import Phase

CONTEXT = GateContext(Phase.INSTALL, "r", 0, Policy(), "ab" * 32)


@pytest.mark.parametrize(("load", "is_ready"), [(0.0, True), (4.0, True), (4.01, False)])
def test_judge(load: float, is_ready: bool) -> None:
    """The load is divided among the processors; the limit itself is allowed."""
    verdict = judge(load, 2, 2, waits=False)
    assert verdict == Ready() if is_ready else isinstance(verdict, Wait)


def test_the_figure_and_the_limit() -> None:
    """People see what it is and what it may be."""
    assert judge(9, 2, 1.5, waits=False) == Wait("busy_machine", "load of 4.50 per core; at most 1.5 is allowed", 60)


async def test_this_machine() -> None:
    """The real file is read where there is a limit; by default there is none."""
    assert await LoadGate(Path("/nowhere"), None, waits=True).judge(CONTEXT) == Ready()
    assert await LoadGate(Path("/proc"), 1000, waits=True).judge(CONTEXT) == Ready()


@pytest.mark.parametrize("content", [None, "", "much", "nan 1 2", "-1.0 2 3"])
async def test_what_cannot_be_read(tmp_path: Path, content: str | None) -> None:
    """Without a figure the gate is open, unless the owner says otherwise."""
    if content is not None:
        (tmp_path / "loadavg").write_text(content)
    assert read_load(tmp_path) is None
    assert await LoadGate(tmp_path, 1, waits=False).judge(CONTEXT) == Ready()
    verdict = await LoadGate(tmp_path, 1, waits=True).judge(CONTEXT)
    assert isinstance(verdict, Wait)
    assert "at most 1 per core" in verdict.detail
