"""Which gates a device has: each setting of the owner's reaches its gate, and the defaults stop no ordinary machine."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from device_client.approval import ApprovalBook
from device_client.clock import FlooredClock
from device_client.config import DeviceHome, DeviceSettings
from device_client.gate_list import make_gates, make_shutdown_lock
from device_client.gates.gate import GateContext, Judgement, Ready, judge_all
from device_client.gates.in_use import Inhibitor
from protocol.clock import ManualClock
from protocol.states import Phase

IDENTITY = {"id": "d1", "product": "p", "hardware": "h"}


async def _judge(path: Path, held: tuple[Inhibitor, ...] = (), **gates: Any) -> Judgement:
    home = DeviceHome(path / "home")
    home.create()
    settings = DeviceSettings.model_validate({"device": IDENTITY, "gates": gates})
    made = make_gates(
        home,
        settings,
        ApprovalBook(home.state / "approvals.json", home.approvals),
        FlooredClock(ManualClock(datetime(2026, 11, 25, tzinfo=UTC))),
        way_back=lambda: True,
        last_update=lambda: None,
        barred=lambda: (),
        held=lambda: held,
    )
    return await judge_all(made, GateContext(Phase.INSTALL, "r", 0, settings.policy(), "ab" * 32, version="2.0.0"))


async def test_an_ordinary_machine_is_ready(tmp_path: Path) -> None:
    """With the defaults, on the machine that runs this; only its supplies are not this machine's."""
    found = await _judge(tmp_path, power_supply_root=str(tmp_path / "none"))
    assert (found.reasons, found.refusals) == ((), ())
    assert all(isinstance(answer.verdict, Ready) for answer in found.answers)


async def test_each_setting_reaches_its_gate(tmp_path: Path) -> None:
    """Every figure over its limit, every service unreachable: all reasons at once."""
    for name, text in {
        "proc/meminfo": "MemAvailable: 1 kB\n",
        "proc/loadavg": "5000.0 1.0 1.0 1/1 1\n",
        "proc/pressure/io": "some avg10=0.00 avg60=50.00 avg300=0.00 total=0\n",
        "thermal/thermal_zone0/temp": "90000\n",
        "hooks/install/10-pump": "#!/bin/sh\nexit 21\n",
    }.items():
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        file.chmod(0o755)
    judgement = await _judge(
        tmp_path,
        held=(Inhibitor(who="player"),),
        unknown="wait",
        power_supply_root=str(tmp_path / "none"),
        upower=True,
        logind=True,
        bus="unix:path=/nowhere",
        proc=str(tmp_path / "proc"),
        min_memory_bytes=1025,
        max_io_pressure_percent=49,
        max_load_per_core=1,
        thermal_root=str(tmp_path / "thermal"),
        max_celsius=89,
        hooks=str(tmp_path / "hooks"),
    )
    assert [(reason.gate, reason.code) for reason in judgement.reasons] == [
        ("power", "unknown"),
        ("memory", "memory_low"),
        ("memory", "pressure"),
        ("load", "busy_machine"),
        ("temperature", "hot"),
        ("in_use", "in_use"),
        ("logind", "unknown"),
        ("hook", "hook_wait"),
    ]


async def test_a_hook_has_its_own_time(tmp_path: Path) -> None:
    """One that hangs is a reason after the owner's time, not after all gates'."""
    hook = tmp_path / "hooks" / "install" / "hangs"
    hook.parent.mkdir(parents=True)
    hook.write_text("#!/bin/sh\nsleep 60\n")
    hook.chmod(0o755)
    none = str(tmp_path / "none")
    judgement = await _judge(tmp_path, power_supply_root=none, hooks=str(tmp_path / "hooks"), hook_timeout_s=0.2)
    assert [reason.code for reason in judgement.reasons] == ["hook_failed"]
    assert "within 0.2 s" in judgement.reasons[0].detail


def test_who_locks_the_machine() -> None:
    """Only where the owner lets logind be asked."""
    for logind in (True, False):
        settings = DeviceSettings.model_validate({"device": IDENTITY, "gates": {"logind": logind}})
        assert bool(make_shutdown_lock(settings)._logind) is logind
