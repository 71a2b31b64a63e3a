"""Which links NetworkManager calls metered.

A link is judged many times a second and must not wait for a bus: what was said last is kept, and asked anew now and
then. ``Metered`` is 1 for yes, 2 for no, 3 and 4 for what NetworkManager guesses to be yes and no, 0 for unknown.
https://networkmanager.dev/docs/api/latest/nm-dbus-types.html#NMMetered
"""

import structlog

from device_client.errors import UnreachableError
from device_client.system_bus import SystemBus

log = structlog.get_logger(__name__)

_SERVICE, _PATH = "org.freedesktop.NetworkManager", "/org/freedesktop/NetworkManager"
_MANAGER, _DEVICE = "org.freedesktop.NetworkManager", "org.freedesktop.NetworkManager.Device"
_MEANS = {1: True, 2: False, 3: True, 4: False}


class MeteredLinks:
    """What NetworkManager said last of the main connection and of some interfaces."""

    def __init__(self, bus: SystemBus, interfaces: frozenset[str], *, unknown: bool) -> None:
        """Know nothing yet: until it was asked for the first time every link counts as metered.

        Args:
            interfaces: That are asked for besides the main connection.
            unknown: What a link counts as that nothing is known of.
        """
        self._bus = bus
        self._interfaces = sorted(interfaces - {""})
        self._unknown = unknown
        self._said: dict[str, bool | None] | None = None
        self._trouble = ""

    def is_metered(self, interface: str) -> bool:
        """Whether it costs money.

        Args:
            interface: One of those that were named; empty: the main connection.
        """
        if self._said is None:
            return True
        said = self._said.get(interface)
        return self._unknown if said is None else said

    def ask(self) -> None:
        """Ask about all of them; what does not answer is unknown. Blocking."""
        said: dict[str, bool | None] = {}
        trouble = ""
        try:
            with self._bus.talk() as talk:
                said[""] = _MEANS.get(talk.get(_SERVICE, _PATH, _MANAGER, "Metered", int))
                for name in self._interfaces:
                    (path,) = talk.call(_SERVICE, _PATH, _MANAGER, "GetDeviceByIpIface", "o", "s", name)
                    said[name] = _MEANS.get(talk.get(_SERVICE, path, _DEVICE, "Metered", int))
        except UnreachableError as error:
            trouble = str(error)
        self._said = said
        if trouble != self._trouble:
            self._trouble = trouble
            log.warning("metered links not known", why=trouble[:500], counts_as_metered=self._unknown)
