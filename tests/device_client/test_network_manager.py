"""NetworkManager, mocked on a bus of its own: which links it calls metered, and what the download makes of that."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from device_client.config_network import NetworkSection
from device_client.network import UNKNOWN_INTERFACE, Links
from device_client.network_manager import MeteredLinks
from device_client.system_bus import SystemBus
from tests.device_client.buses import Bus, private_bus

SERVICE, PATH = "org.freedesktop.NetworkManager", "/org/freedesktop/NetworkManager"
DEVICE = "org.freedesktop.NetworkManager.Device"


@pytest.fixture(scope="module")
def bus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bus]:
    with private_bus(tmp_path_factory.mktemp("b")) as found:
        found.start("networkmanager", SERVICE)
        yield found


def _asked(bus: SystemBus, *interfaces: str, unknown: bool = False) -> MeteredLinks:
    links = MeteredLinks(bus, frozenset(interfaces), unknown=unknown)
    links.ask()
    return links


def test_a_missing_property_is_unknown(bus: Bus) -> None:
    """An older NetworkManager has none, and there may be none at all: what that means is the owner's word."""
    for nobody in (bus.bus, SystemBus("unix:path=/nowhere")):
        assert not _asked(nobody, "wwan0").is_metered("")
        assert _asked(nobody, unknown=True).is_metered("")


@pytest.mark.parametrize(("said", "metered"), [(0, False), (1, True), (2, False), (3, True), (4, False), (9, False)])
def test_the_main_connection(bus: Bus, said: int, metered: bool) -> None:
    """1 is yes, and 3 its guess that it is; 0 is unknown."""
    bus.set(SERVICE, PATH, SERVICE, "Metered", ("u", said))
    assert _asked(bus.bus).is_metered("") is metered
    assert _asked(bus.bus, unknown=True).is_metered("") is (metered or said in {0, 9})


def test_one_interface(bus: Bus) -> None:
    """A source that is tied to one is judged by that one; one that NetworkManager does not know hides no other."""
    bus.set(SERVICE, PATH, SERVICE, "Metered", ("u", 2))
    (path,) = bus.mock(SERVICE, PATH, "AddEthernetDevice", "ssi", "mock_eth1", "eth1", 100)
    bus.set(SERVICE, path, DEVICE, "Metered", ("u", 1))
    links = _asked(bus.bus, "eth0", "eth1", "", unknown=True)
    assert [links.is_metered(name) for name in ("", "eth0", "eth1")] == [False, True, True]


def test_before_and_after_an_answer(bus: Bus) -> None:
    """Before it was asked nothing may cost money; what was said is forgotten when it is silent."""
    bus.set(SERVICE, PATH, SERVICE, "Metered", ("u", 1))
    links = MeteredLinks(bus.bus, frozenset(), unknown=False)
    assert links.is_metered("")
    links.ask()
    assert links.is_metered("")
    links._bus = SystemBus("unix:path=/nowhere")
    links.ask()
    assert not links.is_metered("")


def test_links_follow(tmp_path: Path) -> None:
    """What NetworkManager calls metered is, besides what the owner named; it has a name where nothing is routed."""
    (tmp_path / "net").mkdir()
    route = "Iface Destination Gateway Flags RefCnt Use Metric Mask\neth7 00000000 0102 0003 0 0 0 00000000\n"
    settings = NetworkSection(proc=tmp_path, metered_interfaces=("wwan*",))
    links = Links(settings, lambda interface: interface in {"", "eth9"})
    assert links.metered() == UNKNOWN_INTERFACE
    (tmp_path / "net" / "route").write_text(route)
    assert links.metered() == "eth7"
    assert [links.metered(name) for name in ("eth9", "wwan0", "eth0")] == ["eth9", "wwan0", ""]
    assert Links(settings).metered() == ""
