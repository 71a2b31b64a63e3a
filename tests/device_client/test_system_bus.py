"""Questions on the D-Bus: whatever does not answer as it should is one error, in time."""

import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from device_client.errors import UnreachableError
from device_client.system_bus import SystemBus
from tests.device_client.buses import Bus, private_bus

DAEMON = ("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus")


@pytest.fixture(scope="module")
def bus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bus]:
    with private_bus(tmp_path_factory.mktemp("b")) as found:
        yield found


def test_an_answer(bus: Bus) -> None:
    """Values come as they are; a property's is unwrapped."""
    with bus.bus.talk() as talk:
        assert talk.call(*DAEMON, "NameHasOwner", "b", "s", "org.freedesktop.DBus") == (True,)
        with pytest.raises(UnreachableError, match=r"Features of list, expected str"):
            talk.get(*DAEMON, "Features", str)


@pytest.mark.parametrize(
    ("service", "member", "answer", "says"),
    [
        ("org.example.Absent", "Anything", "b", r"ServiceUnknown"),
        ("org.freedesktop.DBus", "Anything", "b", r"UnknownMethod"),
        ("org.freedesktop.DBus", "GetId", "u", r"with \(s\), expected \(u\)"),
    ],
    ids=["no service", "no method", "another answer"],
)
def test_no_answer(bus: Bus, service: str, member: str, answer: str, says: str) -> None:
    """What is missing, and what says something else than it should, is named."""
    with bus.bus.talk() as talk, pytest.raises(UnreachableError, match=says):
        talk.call(service, "/org/freedesktop/DBus", "org.freedesktop.DBus", member, answer)


def test_no_property(bus: Bus) -> None:
    """A property that is missing is an error, not a value."""
    with bus.bus.talk() as talk, pytest.raises(UnreachableError, match="Metered"):
        talk.get(*DAEMON, "Metered", int)


@pytest.mark.parametrize("address", ["unix:path=/nowhere", "nonsense", "tcp:host=1,port=2", ""])
def test_no_bus(address: str) -> None:
    """A bus that is not there, or whose address means nothing."""
    with pytest.raises(UnreachableError, match="no D-Bus at"), SystemBus(address).talk():
        pass


def test_a_bus_that_says_nothing(tmp_path: Path) -> None:
    """Whoever takes the connection and is silent is left in time."""
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(tmp_path / "bus"))
        silent.listen()
        began = time.monotonic()
        with pytest.raises(UnreachableError), SystemBus(f"unix:path={tmp_path}/bus", 0.2).talk():
            pass
        assert time.monotonic() - began < 2
