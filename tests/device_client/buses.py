"""A D-Bus of a test's own, and services on it that say what the test wants: python3-dbusmock, in its own process."""

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from jeepney import DBusAddress, DBusErrorResponse, new_method_call
from jeepney.io.blocking import open_dbus_connection
from jeepney.wrappers import unwrap_msg

from device_client.system_bus import SystemBus

SYSTEM_PYTHON = "/usr/bin/python3"
"""Debian's own, which has the package."""
_MOCK = "org.freedesktop.DBus.Mock"
_START_S = 20.0


def missing() -> str:
    """What this machine lacks for these tests; empty where it lacks nothing."""
    if not shutil.which("dbus-daemon"):
        return "dbus-daemon is missing; apt-get install dbus"
    asked = subprocess.run([SYSTEM_PYTHON, "-c", "import dbusmock"], capture_output=True)
    return "" if asked.returncode == 0 else "dbusmock is missing; apt-get install python3-dbusmock"


class Bus:
    """One that runs."""

    def __init__(self, address: str, stack: ExitStack) -> None:
        self.address = address
        self.bus = SystemBus(address)
        self._stack = stack

    def start(self, template: str, name: str) -> None:
        """Put a mocked service on it, and wait until it has its name."""
        environment = {**os.environ, "DBUS_SESSION_BUS_ADDRESS": self.address, "PYTHONPATH": ""}
        process = subprocess.Popen(
            [SYSTEM_PYTHON, "-m", "dbusmock", "--session", "--template", template],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self._stack.callback(_end, process)
        end = time.monotonic() + _START_S
        daemon = ("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus")
        while not self.ask(*daemon, "NameHasOwner", "s", name)[0]:
            assert process.poll() is None, f"dbusmock ended with {process.returncode}"
            assert time.monotonic() < end, f"{name} did not come"
            time.sleep(0.02)

    def ask(self, service: str, path: str, interface: str, member: str, signature: str, *words: Any) -> Any:
        """Call anything."""
        with open_dbus_connection(self.address) as connection:
            message = new_method_call(DBusAddress(path, service, interface), member, signature, words)
            return unwrap_msg(connection.send_and_get_reply(message, timeout=10))

    def mock(self, service: str, path: str, member: str, signature: str, *words: Any) -> Any:
        """Tell a mocked service what to say."""
        return self.ask(service, path, _MOCK, member, signature, *words)

    def set(self, service: str, path: str, interface: str, name: str, value: tuple[str, Any]) -> None:
        """Change a property, or add it."""
        try:
            self.mock(service, path, "UpdateProperties", "sa{sv}", interface, {name: value})
        except DBusErrorResponse:
            self.mock(service, path, "AddProperty", "ssv", interface, name, value)


@contextmanager
def private_bus(folder: Path) -> Iterator[Bus]:
    """A bus until the end of the block."""
    if why := missing():
        pytest.skip(why)
    address = f"unix:path={folder}/bus"
    with ExitStack() as stack:
        daemon = subprocess.Popen(
            ["dbus-daemon", "--session", "--nofork", "--nopidfile", f"--address={address}"], stderr=subprocess.DEVNULL
        )
        stack.callback(_end, daemon)
        end = time.monotonic() + _START_S
        while not (folder / "bus").is_socket():
            assert time.monotonic() < end, "dbus-daemon did not start"
            time.sleep(0.01)
        yield Bus(address, stack)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait(10)
