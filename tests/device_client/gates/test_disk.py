"""Disk: what is needed and the reserve must both fit."""

from pathlib import Path

import pytest

from device_client.gates.disk import DiskGate, free_bytes, judge
from device_client.gates.gate import GateContext, Ready, Wait
from protocol.manifest import Policy
from protocol.states import Phase


@pytest.mark.parametrize(
    ("free", "need", "reserve", "ready"),
    [(100, 60, 40, True), (99, 60, 40, False), (0, 0, 40, True), (10, 10, 0, True), (0, 1, 0, False)],
)
def test_judge(free: int, need: int, reserve: int, ready: bool) -> None:
    """Exactly enough is enough; where nothing is written the reserve is not asked for."""
    verdict = judge(free, need, reserve)
    assert (verdict == Ready()) is ready
    if isinstance(verdict, Wait):
        assert verdict.code == "disk_full"
        assert f"{free} B free" in verdict.detail


async def test_the_real_disk(tmp_path: Path) -> None:
    """The gate asks the file system of the given path."""
    free = free_bytes(tmp_path)
    assert free > 0
    for need, ready in ((1, True), (free * 2, False)):
        context = GateContext(Phase.DOWNLOAD, "r", need, Policy(), "ab" * 32)
        assert isinstance(await DiskGate(tmp_path, 0).judge(context), Ready if ready else Wait)
