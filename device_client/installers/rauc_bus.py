"""RAUC's service over D-Bus: ``de.pengutronix.rauc``, object ``/``, as its manual's "D-Bus API" has it.

Blocking, each wait with a deadline. jeepney comes with an extra of this project, so it is imported when it is used.
"""

import socket
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any, Self

import structlog

from device_client.installers.installer import InstallError
from device_client.programs import clean

log = structlog.get_logger(__name__)

NAME = "de.pengutronix.rauc"
INTERFACE = f"{NAME}.Installer"
CALL_S = 60.0
"""For one call. Behind ``Mark`` and ``GetSlotStatus`` the boot loader's own program runs."""
CONNECT_S = 5.0
MAX_LINES = 200
MAX_DETAIL = 400
_READ_BYTES = 65_536
_BUSY = "already processing a different method"
"""It answers only for its properties meanwhile (1.8)."""
_MAX_MESSAGE_BYTES = 2**20


@dataclass(frozen=True, slots=True)
class Slot:
    """One slot as ``GetSlotStatus`` tells it; numbers are 0 and texts empty where it does not.

    Attributes:
        kind: The configuration's ``type``: raw, ext4, ...
        group: The bootable slot that it belongs to: itself, or its parent.
        status: ``ok`` after an image was written as a whole.
        size: Bytes of that image; ``sha256`` is its hash.
        count: How often one was written.
    """

    name: str
    device: Path
    kind: str
    group: str
    slot_class: str
    bootname: str
    state: str
    boot_status: str
    status: str
    bundle_version: str
    size: int
    sha256: str
    count: int


class RaucBus:
    """A connection to the service; a context manager."""

    def __init__(self, address: str) -> None:
        """Name the bus: ``system``, or an address such as ``unix:path=/run/rauc/bus``."""
        self._address = address
        self._lines: deque[str] = deque(maxlen=MAX_LINES)
        self._serial = 0
        self._watching = False

    def __enter__(self) -> Self:
        """Connect.

        Raises:
            InstallError: The extra is missing, or the bus does not answer.
        """
        self._dbus = _jeepney()
        from jeepney.bus import get_bus
        from jeepney.io.blocking import prep_socket

        try:
            place = get_bus("SYSTEM" if self._address == "system" else self._address)
            self._socket: socket.socket = prep_socket(place, timeout=CONNECT_S)
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            raise InstallError(f"D-Bus {self._address}: cannot be reached: {error}") from error
        self._parser = self._dbus.Parser()
        try:
            self._bus_call("Hello")
        except BaseException:
            self._socket.close()
            raise
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _at: TracebackType | None
    ) -> None:
        """Disconnect; an installation goes on without us."""
        self._socket.close()

    def slots(self) -> tuple[Slot, ...]:
        """All slots, as they are now."""
        (rows,) = self._call("GetSlotStatus")
        facts = {str(name): {key: value for key, (_, value) in row.items()} for name, row in rows}
        return tuple(_slot(name, fact, facts) for name, fact in sorted(facts.items()))

    def primary(self) -> str:
        """The slot that the boot loader starts next; empty where it cannot tell."""
        try:
            (name,) = self._call("GetPrimary")
        except InstallError as error:
            log.warning("primary slot unknown", why=str(error)[:500])
            return ""
        return str(name)

    def mark(self, state: str, slot: str) -> None:
        """Mark a slot ``good``, ``bad`` or ``active``."""
        self._call("Mark", "ss", (state, slot))
        log.info("slot marked", slot=slot, state=state)

    def installing(self) -> bool:
        """Whether an installation is under way."""
        return str(self._property("Operation")) == "installing"

    def bundle_version(self, bundle: Path) -> str:
        """The version that a bundle's own manifest names; checks its signature."""
        _, version = self._call("Info", "s", (str(bundle),))
        return str(version)

    def install(self, bundle: Path, until: float) -> None:
        """Install a bundle into the slots that do not run.

        Args:
            bundle: Absolute path; RAUC takes any name.
            until: Deadline, on the monotonic clock.

        Raises:
            InstallError: RAUC refused it, ended, or took too long; with the steps it told of.
        """
        self._watch()
        self._until_completed(until, self._send(self._rauc("InstallBundle", "sa{sv}", (str(bundle), {}))))

    def attach(self, until: float) -> bool:
        """Wait for an installation that is under way already.

        Returns:
            Whether there was one; it ended well.

        Raises:
            InstallError: As ``install``.
        """
        self._watch()
        if not self.installing():
            return False
        log.info("installation under way joined")
        self._until_completed(until, None)
        return True

    def _until_completed(self, until: float, serial: int | None) -> None:
        try:
            while True:
                message = self._receive(until)
                fields, names = message.header.fields, self._dbus.HeaderFields
                if serial is not None and fields.get(names.reply_serial) == serial:
                    self._body(message, "InstallBundle")
                elif self._is_goodbye(message):
                    raise InstallError("RAUC's service ended in mid-install", self._log())
                elif fields.get(names.sender) == self._owner and self._completed(message):
                    return
        except TimeoutError as error:
            raise InstallError(
                "RAUC did not end within the time that it has; it may still write", self._log()
            ) from error
        except ConnectionError as error:
            raise InstallError(f"D-Bus {self._address}: lost in mid-install: {error}", self._log()) from error

    def _completed(self, message: Any) -> bool:  # noqa: ANN401 (jeepney has no types)
        match message.header.fields.get(self._dbus.HeaderFields.member):
            case "PropertiesChanged":
                if "Progress" in (changed := message.body[1]):
                    percent, step, depth = changed["Progress"][1]
                    self._lines.append(f"{percent:3d} % {'  ' * min(depth, 8)}{step}"[:200])
                    log.debug("rauc went on", percent=percent, step=step[:200])
            case "Completed":
                if message.body[0] == 0:
                    return True
                why = clean(str(self._property("LastError")).encode())[-MAX_DETAIL:]
                raise InstallError(f"RAUC: {why or 'failed without a word'}", self._log())
        return False

    def _is_goodbye(self, message: Any) -> bool:  # noqa: ANN401
        fields, names = message.header.fields, self._dbus.HeaderFields
        changed = fields.get(names.member) == "NameOwnerChanged" and fields.get(names.sender) == "org.freedesktop.DBus"
        return changed and tuple(message.body[::2]) != (NAME, self._owner)

    def _watch(self) -> None:
        """Subscribe before anything is asked for: a small bundle is written in a tenth of a second."""
        if self._watching:
            return
        self._property("Operation")  # starts the service where the bus can
        (self._owner,) = self._bus_call("GetNameOwner", "s", (NAME,))
        for rule in (
            f"type='signal',sender='{NAME}',path='/'",
            f"type='signal',sender='org.freedesktop.DBus',member='NameOwnerChanged',arg0='{NAME}'",
        ):
            self._bus_call("AddMatch", "s", (rule,))
        self._watching = True

    def _log(self) -> str:
        return clean("\n".join(self._lines).encode())

    def _rauc(self, method: str, signature: str = "", body: tuple[object, ...] = (), interface: str = INTERFACE) -> Any:  # noqa: ANN401
        address = self._dbus.DBusAddress("/", bus_name=NAME, interface=interface)
        return self._dbus.new_method_call(address, method, signature, body)

    def _call(self, method: str, signature: str = "", body: tuple[object, ...] = ()) -> Any:  # noqa: ANN401
        return self._answer(self._rauc(method, signature, body), method)

    def _property(self, name: str) -> object:
        message = self._rauc("Get", "ss", (INTERFACE, name), "org.freedesktop.DBus.Properties")
        return self._answer(message, name)[0][1]

    def _bus_call(self, method: str, signature: str = "", body: tuple[object, ...] = ()) -> Any:  # noqa: ANN401
        return self._answer(self._dbus.new_method_call(self._dbus.message_bus, method, signature, body), method)

    def _answer(self, message: Any, what: str) -> Any:  # noqa: ANN401
        """Send, and wait for the answer; signals that come before it are about an earlier time."""
        try:
            serial, until = self._send(message), time.monotonic() + CALL_S
            while True:
                reply = self._receive(until)
                if reply.header.fields.get(self._dbus.HeaderFields.reply_serial) == serial:
                    return self._body(reply, what)
        except TimeoutError as error:
            raise InstallError(f"RAUC: {what} was not answered within {CALL_S:g} s", self._log()) from error
        except OSError as error:
            raise InstallError(f"D-Bus {self._address}: lost at {what}: {error}", self._log()) from error

    def _body(self, reply: Any, what: str) -> Any:  # noqa: ANN401
        if reply.header.message_type == self._dbus.MessageType.error:
            name = reply.header.fields.get(self._dbus.HeaderFields.error_name, "error")
            said = clean(str(reply.body[0] if reply.body else name).encode())[:MAX_DETAIL]
            if _BUSY in said:
                raise InstallError(f"RAUC: {what}: refused while an installation is under way; wait for its end")
            raise InstallError(
                f"RAUC: {what}: {said}; is rauc.service running, and its configuration right?", self._log()
            )
        return reply.body

    def _send(self, message: Any) -> int:  # noqa: ANN401
        self._serial += 1
        self._socket.settimeout(CALL_S)
        self._socket.sendall(message.serialise(self._serial))
        return self._serial

    def _receive(self, until: float) -> Any:  # noqa: ANN401
        while (message := self._parser.get_next_message()) is None:
            if self._parser.bytes_desired() > _MAX_MESSAGE_BYTES:
                raise InstallError(f"D-Bus {self._address}: a message is longer than {_MAX_MESSAGE_BYTES} B")
            if (left := until - time.monotonic()) <= 0:
                raise TimeoutError
            self._socket.settimeout(left)
            data = self._socket.recv(_READ_BYTES)
            if not data:
                raise ConnectionResetError("the bus closed the connection")
            self._parser.add_data(data)
        return message


def _jeepney() -> ModuleType:
    try:
        import jeepney
    except ImportError as error:
        raise InstallError("RAUC is driven over D-Bus, which needs an extra: pip install 'flagship[dbus]'") from error
    module: ModuleType = jeepney
    return module


def _slot(name: str, fact: dict[str, Any], facts: dict[str, dict[str, Any]]) -> Slot:
    group, seen = name, {name}
    while (parent := str(facts.get(group, {}).get("parent", ""))) and parent not in seen:
        group = parent
        seen.add(parent)
    return Slot(
        name=name,
        device=Path(str(fact.get("device", ""))),
        kind=str(fact.get("type", "")),
        group=group,
        slot_class=str(fact.get("class", "")),
        bootname=str(fact.get("bootname") or ""),
        state=str(fact.get("state", "")),
        boot_status=str(fact.get("boot-status", "")),
        status=str(fact.get("status", "")),
        bundle_version=str(fact.get("bundle.version", "")),
        size=int(fact.get("size", 0)),
        sha256=str(fact.get("sha256", "")),
        count=int(fact.get("installed.count", 0)),
    )
