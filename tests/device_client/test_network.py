"""Which interface is used, by the kernel's tables; and sockets that are tied to one."""

import socket
from pathlib import Path

import pytest

from device_client import network
from device_client.config_network import NetworkSection
from device_client.network import Links, default_interface

HEAD = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n"
WIRED = "eth0\t00000000\t0101A8C0\t0003\t0\t0\t100\t00000000\t0\t0\t0\n"
RADIO = "wwan0\t00000000\t00000000\t0001\t0\t0\t700\t00000000\t0\t0\t0\n"
NEAR = "wlan0\t0001A8C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n"
REFUSED = "lo\t00000000\t00000000\t0201\t0\t0\t0\t00000000\t0\t0\t0\n"
ZERO = "0" * 32
RADIO_6 = f"{ZERO} 00 {ZERO} 00 fe80{'0' * 28} 00000400 00000001 00000000 00000003 wwan1\n"
REFUSED_6 = f"{ZERO} 00 {ZERO} 00 {ZERO} ffffffff 00000001 00000000 00200200       lo\n"


def tables(place: Path, routes: str, routes_6: str = "") -> Path:
    """A kernel's view."""
    (place / "net").mkdir()
    (place / "net" / "route").write_text(routes)
    (place / "net" / "ipv6_route").write_text(routes_6)
    return place


@pytest.mark.parametrize(
    ("routes", "routes_6", "used"),
    [
        (HEAD + RADIO + WIRED, "", "eth0"),
        (HEAD + NEAR + RADIO, "", "wwan0"),
        (HEAD + NEAR, "", ""),
        (HEAD + REFUSED + RADIO, REFUSED_6, "wwan0"),
        (HEAD, REFUSED_6 + RADIO_6, "wwan1"),
        (HEAD + WIRED, RADIO_6, "eth0"),
        (HEAD, REFUSED_6, ""),
        ("", "", ""),
    ],
    ids=[
        "lowest metric",
        "the only one",
        "none",
        "a refusing route",
        "IPv6 alone",
        "IPv4 first",
        "none in IPv6",
        "empty",
    ],
)
def test_the_default_route_decides(tmp_path: Path, routes: str, routes_6: str, used: str) -> None:
    """The interface that the system itself would use."""
    assert default_interface(tables(tmp_path, routes, routes_6)) == used


@pytest.mark.parametrize(
    ("patterns", "interface", "metered"),
    [
        ((), "", ""),
        (("wwan*",), "", "wwan0"),
        (("ppp?", "wwan0"), "", "wwan0"),
        (("wwan1",), "", ""),
        (("wwan*",), "eth0", ""),
        (("eth*",), "eth0", "eth0"),
    ],
)
def test_what_is_metered(tmp_path: Path, patterns: tuple[str, ...], interface: str, metered: str) -> None:
    """By name or pattern; a source that is tied to an interface is judged by that one."""
    settings = NetworkSection(metered_interfaces=patterns, proc=tables(tmp_path, HEAD + RADIO))
    assert Links(settings).metered(interface) == metered


def test_tables_that_are_absent(tmp_path: Path) -> None:
    """A machine without them has no default route."""
    assert default_interface(tmp_path) == ""


def test_interfaces_of_this_machine() -> None:
    """Loopback is there; what is not there is not."""
    assert network.exists("lo")
    assert not network.exists("none0")
    assert network.address_of("lo", socket.AF_INET) == "127.0.0.1"
    with pytest.raises(OSError, match="No such device"):
        network.address_of("none0", socket.AF_INET)
    with pytest.raises(OSError, match="none0"):
        network.address_of("none0", socket.AF_INET6)


@pytest.mark.parametrize("permitted", [True, False])
def test_a_socket_is_tied(permitted: bool) -> None:
    """By device where the kernel permits it, else by the interface's own address."""

    class Unprivileged(socket.socket):
        def setsockopt(self, *words: object) -> None:
            if words[1] == socket.SO_BINDTODEVICE:
                raise PermissionError

    with socket.create_server(("127.0.0.1", 0)) as server:
        kind = socket.socket if permitted else Unprivileged
        with kind(socket.AF_INET, socket.SOCK_STREAM) as sock:
            network.tie(sock, "lo")
            if not permitted:
                assert sock.getsockname()[0] == "127.0.0.1"
            sock.connect(server.getsockname())
        with kind(socket.AF_INET, socket.SOCK_STREAM) as sock, pytest.raises(OSError, match="No such device"):
            network.tie(sock, "none0")
