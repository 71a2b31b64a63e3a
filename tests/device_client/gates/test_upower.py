"""UPower, mocked on a bus of its own: asked only where the kernel shows no supply."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from device_client.gates.gate import GateContext, Ready, Verdict, Wait
from device_client.gates.power import Power, PowerGate
from device_client.gates.upower import read_upower
from device_client.system_bus import SystemBus
from protocol.manifest import Policy
from protocol.states import Phase
from tests.device_client.buses import Bus, private_bus

SERVICE, PATH, DISPLAY = (
    "org.freedesktop.UPower",
    "/org/freedesktop/UPower",
    "/org/freedesktop/UPower/devices/DisplayDevice",
)
DEVICE = "org.freedesktop.UPower.Device"


@pytest.fixture(scope="module")
def bus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bus]:
    with private_bus(tmp_path_factory.mktemp("b")) as found:
        found.start("upower", SERVICE)
        yield found


async def _judge(
    root: Path, upower: Callable[[], Power] | None, *, waits: bool = False, percent: int | None = 40
) -> Verdict:
    context = GateContext(Phase.INSTALL, "r", 0, Policy(min_battery_percent=percent), "ab" * 32)
    return await PowerGate(root, upower, waits=waits).judge(context)


def _say(bus: Bus, *, on_battery: bool, present: bool, percent: float) -> None:
    bus.set(SERVICE, PATH, SERVICE, "OnBattery", ("b", on_battery))
    bus.set(SERVICE, DISPLAY, DEVICE, "IsPresent", ("b", present))
    bus.set(SERVICE, DISPLAY, DEVICE, "Percentage", ("d", percent))


async def test_the_charge_decides_on_battery(bus: Bus, tmp_path: Path) -> None:
    """On battery its charge, else nothing; a battery without a charge is not a full one."""
    upower = partial(read_upower, bus.bus)
    _say(bus, on_battery=True, present=True, percent=31.9)
    low = "battery at 31 %; at least 40 % is needed, or external power"
    assert await _judge(tmp_path, upower) == Wait("battery_low", low)
    assert await _judge(tmp_path, upower, percent=31) == Ready()
    _say(bus, on_battery=False, present=True, percent=1)
    assert await _judge(tmp_path, upower) == Ready()
    _say(bus, on_battery=True, present=False, percent=0)
    verdict = await _judge(tmp_path, upower)
    assert isinstance(verdict, Wait)
    assert verdict.code == "battery_unknown"


async def test_the_kernel_comes_first(tmp_path: Path) -> None:
    """Where it shows a supply nobody else is asked, nor where no charge is demanded, nor where the owner does not."""
    (tmp_path / "bat").mkdir()
    (tmp_path / "bat" / "type").write_text("Battery")
    (tmp_path / "bat" / "capacity").write_text("97")
    empty = Power(external=False, batteries=(0,))
    assert await _judge(tmp_path, lambda: empty) == Ready()
    assert await _judge(tmp_path / "absent", lambda: empty, percent=0) == Ready()
    assert await _judge(tmp_path / "absent", None, waits=True) == Ready()
    assert isinstance(await _judge(tmp_path / "absent", lambda: empty), Wait)


async def test_no_upower(tmp_path: Path) -> None:
    """Then power is unknown, which is no reason to wait unless the owner says so."""
    nobody = partial(read_upower, SystemBus("unix:path=/nowhere"))
    assert await _judge(tmp_path, nobody) == Ready()
    verdict = await _judge(tmp_path, nobody, waits=True)
    assert isinstance(verdict, Wait)
    assert verdict.code == "unknown"
    assert "at least 40 %" in verdict.detail
