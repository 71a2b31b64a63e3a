"""Which interface reaches the world, which of them cost money, and how a socket is tied to one.

The kernel's own files are read; nothing is changed. They are in memory: reading them waits for no disk.
"""

import errno
import fcntl
import socket
import struct
from collections.abc import Callable
from fnmatch import fnmatchcase
from pathlib import Path

from device_client.config_network import NetworkSection

MAX_TABLE_BYTES = 2**20
UNKNOWN_INTERFACE = "in use"
"""What a metered link is called that has no default route here, as in a container."""
_UP, _REJECT = 0x1, 0x200
_GET_ADDRESS = 0x8915  # SIOCGIFADDR
_NO_HOST = "0" * 32


class Links:
    """The device's links, as they are now."""

    def __init__(self, settings: NetworkSection, is_metered: Callable[[str], bool] = lambda _: False) -> None:
        """Judge links by ``settings``, and by what ``is_metered`` knows of an interface, or of "" for the main one."""
        self._metered = settings.metered_interfaces
        self._proc = settings.proc
        self._is_metered = is_metered

    def metered(self, interface: str = "") -> str:
        """The name of the metered interface that is used; empty where what is used costs nothing.

        Args:
            interface: The one that a source is tied to; empty: that of the default route.
        """
        by_others = self._is_metered(interface)
        if not (self._metered or by_others):
            return ""
        used = interface or default_interface(self._proc)
        if by_others or any(fnmatchcase(used, pattern) for pattern in self._metered):
            return used or (UNKNOWN_INTERFACE if by_others else "")
        return ""


def default_interface(proc: Path) -> str:
    """The interface of the default route with the lowest metric, IPv4 before IPv6; empty where there is none."""
    routes = [*_routes_4(_read(proc / "net" / "route")), *_routes_6(_read(proc / "net" / "ipv6_route"))]
    return min(routes)[2] if routes else ""


def exists(interface: str) -> bool:
    """Whether this machine has such an interface at present."""
    try:
        socket.if_nametoindex(interface)
    except OSError:
        return False
    return True


def tie(sock: socket.socket, interface: str) -> None:
    """Let a socket that is not connected yet use one interface alone.

    Where the kernel keeps that for root, the socket gets the interface's address as its own instead.

    Raises:
        OSError: There is no such interface, or it has no address.
    """
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode() + b"\0")
    except PermissionError:
        sock.bind((address_of(interface, sock.family), 0))


def address_of(interface: str, family: int) -> str:
    """An interface's own address.

    Raises:
        OSError: There is no such interface, or it has no address of this family.
    """
    if family == socket.AF_INET:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            answer = fcntl.ioctl(probe, _GET_ADDRESS, struct.pack("256s", interface.encode()[:15]))
        return socket.inet_ntoa(answer[20:24])
    for line in _read(Path("/proc/net/if_inet6")):
        words = line.split()
        if len(words) == 6 and words[5] == interface and words[3] in {"00", "10"}:  # global, or of the host alone
            return socket.inet_ntop(socket.AF_INET6, bytes.fromhex(words[0]))
    raise OSError(errno.EADDRNOTAVAIL, f"interface {interface} has no IPv6 address")


def _routes_4(lines: list[str]) -> list[tuple[int, int, str]]:
    """(family, metric, interface) of each default route."""
    found = []
    for line in lines[1:]:
        words = line.split()
        if len(words) >= 8 and words[1] == words[7] == "00000000" and _leads_out(words[3]):
            found.append((4, int(words[6]), words[0]))
    return found


def _routes_6(lines: list[str]) -> list[tuple[int, int, str]]:
    found = []
    for line in lines:
        words = line.split()
        if len(words) == 10 and (words[0], words[1]) == (_NO_HOST, "00") and _leads_out(words[8]):
            found.append((6, int(words[5], 16), words[9]))
    return found


def _leads_out(flags: str) -> bool:
    return int(flags, 16) & (_UP | _REJECT) == _UP


def _read(path: Path) -> list[str]:
    try:
        with path.open() as file:
            return file.read(MAX_TABLE_BYTES).splitlines()
    except OSError:
        return []
