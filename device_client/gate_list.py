"""Every gate of a device, in the order in which people read them."""

from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial

from device_client.clock import FlooredClock
from device_client.config import DeviceHome, DeviceSettings
from device_client.gates.approval import ApprovalBook, ApprovalGate
from device_client.gates.disk import DiskGate
from device_client.gates.gate import Gate
from device_client.gates.hooks import HookGate
from device_client.gates.in_use import Inhibitor, InUseGate
from device_client.gates.interval import IntervalGate
from device_client.gates.load import LoadGate
from device_client.gates.logind import LogindGate
from device_client.gates.memory import MemoryGate, MemoryLimits
from device_client.gates.network import NetworkGate
from device_client.gates.power import PowerGate
from device_client.gates.temperature import TemperatureGate
from device_client.gates.upower import read_upower
from device_client.gates.way_back import WayBackGate
from device_client.gates.window import WindowGate
from device_client.logind import Logind
from device_client.shutdown_lock import ShutdownLock
from device_client.system_bus import SystemBus
from device_client.time_zone import time_zone


def make_gates(
    home: DeviceHome,
    settings: DeviceSettings,
    book: ApprovalBook,
    clock: FlooredClock,
    *,
    way_back: Callable[[], bool],
    last_update: Callable[[], datetime | None],
    barred: Callable[[], Sequence[str]],
    held: Callable[[], Sequence[Inhibitor]] = lambda: (),
) -> Sequence[Gate]:
    """Make them.

    Args:
        book: What people at the device said.
        clock: The one that is believed.
        way_back: Whether the version that a rollback returns to is there.
        last_update: When the last update was.
        held: Who inhibits on a connection.
        barred: For each source of chunks why it may not be used; empty where it may.
    """
    gates, timing = settings.gates, settings.timing
    waits = gates.unknown == "wait"
    bus = SystemBus(gates.bus)
    return (
        PowerGate(gates.power_supply_root, partial(read_upower, bus) if gates.upower else None, waits=waits),
        DiskGate(home.path, gates.disk_reserve_bytes),
        MemoryGate(gates.proc, MemoryLimits.of(gates), waits=waits),
        LoadGate(gates.proc, gates.max_load_per_core, waits=waits),
        TemperatureGate(gates.thermal_root, gates.max_celsius, waits=waits),
        InUseGate(home.inhibitors, clock, held),
        LogindGate(Logind(bus).presence if gates.logind else None, waits=waits),
        ApprovalGate(book, clock, each_phase=gates.approve_activation),
        WayBackGate(way_back),
        IntervalGate(last_update, clock),
        WindowGate(gates.windows, lambda: time_zone(settings.device.timezone), clock),
        NetworkGate(barred, timing.gate_interval_s),
        HookGate(gates.hooks, gates.hook_timeout_s, clock),
    )


def make_shutdown_lock(settings: DeviceSettings) -> ShutdownLock:
    """What keeps the machine up while a step changes it: from the logind that the gates ask, if they ask one."""
    return ShutdownLock(Logind(SystemBus(settings.gates.bus)) if settings.gates.logind else None)
