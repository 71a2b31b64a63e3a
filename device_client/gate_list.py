"""Every gate of a device, in the order in which people read them."""

from collections.abc import Callable, Sequence
from datetime import datetime

from device_client.clock import FlooredClock
from device_client.config import DeviceHome, DeviceSettings
from device_client.gates.approval import ApprovalBook, ApprovalGate
from device_client.gates.disk import DiskGate
from device_client.gates.gate import Gate
from device_client.gates.in_use import InUseGate
from device_client.gates.interval import IntervalGate
from device_client.gates.network import NetworkGate
from device_client.gates.power import PowerGate
from device_client.gates.way_back import WayBackGate
from device_client.gates.window import WindowGate
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
) -> Sequence[Gate]:
    """Make them.

    Args:
        book: What people at the device said.
        clock: The one that is believed.
        way_back: Whether the version that a rollback returns to is there.
        last_update: When the last update was.
        barred: For each source of chunks why it may not be used; empty where it may.
    """
    gates, timing = settings.gates, settings.timing
    return (
        PowerGate(gates.power_supply_root),
        DiskGate(home.path, gates.disk_reserve_bytes),
        InUseGate(home.inhibitors, clock),
        ApprovalGate(book, clock, each_phase=gates.approve_activation),
        WayBackGate(way_back),
        IntervalGate(last_update, clock),
        WindowGate(gates.windows, lambda: time_zone(settings.device.timezone), clock),
        NetworkGate(barred, timing.gate_interval_s),
    )
