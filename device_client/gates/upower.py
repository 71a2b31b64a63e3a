"""What UPower says about power, where the kernel shows no supply: a battery behind a vendor's own daemon. Blocking.

https://upower.freedesktop.org/docs/
"""

from device_client.gates.power import Power
from device_client.system_bus import SystemBus

_SERVICE, _PATH = "org.freedesktop.UPower", "/org/freedesktop/UPower"
_DISPLAY, _DEVICE = "/org/freedesktop/UPower/devices/DisplayDevice", "org.freedesktop.UPower.Device"


def read_upower(bus: SystemBus) -> Power:
    """On battery or not; on battery, the charge of all batteries together.

    Raises:
        UnreachableError: There is no UPower, or it does not say.
    """
    with bus.talk() as talk:
        if not talk.get(_SERVICE, _PATH, _SERVICE, "OnBattery", bool):
            return Power(external=True, batteries=())
        if not talk.get(_SERVICE, _DISPLAY, _DEVICE, "IsPresent", bool):
            return Power(external=False, batteries=(None,))
        return Power(external=False, batteries=(int(talk.get(_SERVICE, _DISPLAY, _DEVICE, "Percentage", float)),))
