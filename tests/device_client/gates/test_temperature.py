"""Temperature: the hottest of Linux' thermal zones against the limit."""

from pathlib import Path

import pytest

from device_client.gates.gate import GateContext, Ready, Verdict, Wait
from device_client.gates.temperature import TemperatureGate, read_zones
from protocol.manifest import Policy
from protocol.states import Phase

CONTEXT = GateContext(Phase.INSTALL, "r", 0, Policy(), "ab" * 32)


def _zones(root: Path, *millidegrees: str) -> Path:
    for number, text in enumerate(millidegrees):
        (root / f"thermal_zone{number}").mkdir()
        (root / f"thermal_zone{number}" / "temp").write_text(f"{text}\n")
        (root / f"thermal_zone{number}" / "type").write_text("cpu-thermal\n")
    return root


async def _judge(root: Path, max_celsius: float | None = 70, *, waits: bool = False) -> Verdict:
    return await TemperatureGate(root, max_celsius, waits=waits).judge(CONTEXT)


async def test_the_hottest_zone_decides(tmp_path: Path) -> None:
    """The limit is allowed; above it the zone, its figure and the limit are named."""
    root = _zones(tmp_path, "41000", "70000")
    assert await _judge(root) == Ready()
    assert await _judge(root, 69.9) == Wait("hot", "thermal_zone1 (cpu-thermal) at 70.0 °C; at most 69.9 °C is allowed")


async def test_below_zero(tmp_path: Path) -> None:
    """A device outside in winter is cold, not unreadable."""
    assert read_zones(_zones(tmp_path, "-12500")) == {"thermal_zone0 (cpu-thermal)": -12.5}


async def test_no_limit(tmp_path: Path) -> None:
    """By default nothing is asked, not even of what cannot be read."""
    assert await _judge(_zones(tmp_path, "99000"), None, waits=True) == Ready()


@pytest.mark.parametrize("texts", [(), ("",), ("hot",), ("1e9",)], ids=["no zone", "empty", "a word", "no integer"])
async def test_what_cannot_be_read(tmp_path: Path, texts: tuple[str, ...]) -> None:
    """Without a figure the gate is open, unless the owner says otherwise."""
    root = _zones(tmp_path, *texts)
    assert await _judge(root) == Ready()
    assert isinstance(await _judge(root, waits=True), Wait)
    assert await _judge(root / "absent") == Ready()


async def test_a_zone_that_is_off_hides_no_other(tmp_path: Path) -> None:
    """One that cannot be read just now is left out."""
    assert isinstance(await _judge(_zones(tmp_path, "", "71000")), Wait)
