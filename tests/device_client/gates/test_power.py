"""Power: supplies as Linux shows them, and the charge that is demanded."""

from pathlib import Path

import pytest

from device_client.gates.gate import GateContext, Ready, Verdict, Wait
from device_client.gates.power import Power, PowerGate, judge, read_power
from protocol.manifest import Policy
from protocol.states import Phase

MAINS = {"type": "Mains", "online": "1"}
UNPLUGGED = {"type": "Mains", "online": "0"}
LOW = {"type": "Battery", "capacity": "12", "status": "Discharging", "present": "1"}
FULL = {"type": "Battery", "capacity": "97", "status": "Discharging"}


def _supplies(root: Path, *supplies: dict[str, str]) -> Path:
    for number, attributes in enumerate(supplies):
        (root / f"supply{number}").mkdir(parents=True)
        for name, value in attributes.items():
            (root / f"supply{number}" / name).write_text(f"{value}\n")
    return root


async def _judge(root: Path, percent: int | None = 40) -> Verdict:
    context = GateContext(Phase.INSTALL, "r", 0, Policy(min_battery_percent=percent), "ab" * 32)
    return await PowerGate(root).judge(context)


@pytest.mark.parametrize(
    ("supplies", "code"),
    [
        pytest.param([], None, id="no supply at all"),
        pytest.param([MAINS], None, id="mains"),
        pytest.param([UNPLUGGED], None, id="mains only, said to be off"),
        pytest.param([LOW], "battery_low", id="battery low"),
        pytest.param([FULL], None, id="battery full"),
        pytest.param([LOW, MAINS], None, id="low and charging"),
        pytest.param([LOW, UNPLUGGED], "battery_low", id="low and unplugged"),
        pytest.param([{"type": "USB", "online": "2"}, LOW], None, id="low and charging over USB"),
        pytest.param([LOW, FULL], None, id="the mean of two decides"),
        pytest.param([LOW, {**FULL, "scope": "Device"}], "battery_low", id="a mouse is no battery"),
        pytest.param([LOW, {**MAINS, "scope": "Device"}], "battery_low", id="a mouse's charger is no mains"),
        pytest.param([{**LOW, "present": "0"}], None, id="an empty battery bay"),
        pytest.param([{"type": "Battery"}], "battery_unknown", id="no capacity"),
        pytest.param([{"type": "Battery", "capacity": "a lot"}], "battery_unknown", id="capacity is no number"),
        pytest.param([{"type": "Battery", "capacity": "-3"}], "battery_unknown", id="negative capacity"),
    ],
)
async def test_supplies(tmp_path: Path, supplies: list[dict[str, str]], code: str | None) -> None:
    """Low battery without external power waits; what cannot be read waits; all else is ready."""
    verdict = await _judge(_supplies(tmp_path, *supplies))
    assert (verdict.code if isinstance(verdict, Wait) else None) == code


async def test_no_such_directory(tmp_path: Path) -> None:
    """A kernel without the power-supply class is a device on mains."""
    assert await _judge(tmp_path / "absent") == Ready()


async def test_charging_opens_the_gate(tmp_path: Path) -> None:
    """The gate reads the supplies anew each time; the detail has the figure and the limit."""
    root = _supplies(tmp_path, LOW)
    verdict = await _judge(root)
    assert isinstance(verdict, Wait)
    assert "12 %" in verdict.detail
    assert "40 %" in verdict.detail
    (root / "supply0" / "capacity").write_text("40\n")
    assert await _judge(root) == Ready()


@pytest.mark.parametrize("percent", [None, 0])
async def test_no_demand(tmp_path: Path, percent: int | None) -> None:
    """Where nobody demands a charge an empty battery is enough."""
    assert await _judge(_supplies(tmp_path, LOW), percent) == Ready()


def test_unreadable_attributes(tmp_path: Path) -> None:
    """An attribute that is binary, or a directory, counts as absent."""
    root = _supplies(tmp_path, LOW)
    (root / "supply0" / "capacity").write_bytes(b"\xff\xfe")
    (root / "supply0" / "scope").mkdir()
    assert read_power(root) == Power(external=False, batteries=(None,))


def test_an_unknown_battery_beside_a_known_one() -> None:
    """The known charge decides."""
    assert judge(Power(False, (None, 50)), 40) == Ready()
    assert isinstance(judge(Power(False, (None, 30)), 40), Wait)
