"""Questions to services on the D-Bus: logind, UPower, NetworkManager. Blocking, each with a deadline.

jeepney is an extra, ``flagship[dbus]``: without it, without a bus, a service or a property, there is no answer, and
what an answer would have said is unknown, never "no".
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from device_client.errors import UnreachableError

if TYPE_CHECKING:
    from jeepney.io.blocking import DBusConnection

DEADLINE_S = 2.0
T = TypeVar("T", str, int, bool, float)


class SystemBus:
    """The bus of the machine, or the one at an address."""

    def __init__(self, address: str = "system", timeout_s: float = DEADLINE_S) -> None:
        """Connect to nothing yet.

        Args:
            address: ``system``, or an address such as ``unix:path=/run/dbus/system_bus_socket``.
            timeout_s: How long connecting may take, and each answer.
        """
        self._address = "SYSTEM" if address == "system" else address
        self._timeout_s = timeout_s

    @contextmanager
    def talk(self, *, descriptors: bool = False) -> Iterator["Talk"]:
        """A connection for some questions, closed at the end of the block.

        Args:
            descriptors: Whether answers may hold file descriptors.

        Raises:
            UnreachableError: There is no such bus, or no jeepney.
        """
        try:
            from jeepney.auth import AuthenticationError
            from jeepney.io.blocking import open_dbus_connection
        except ImportError as error:
            raise UnreachableError("no D-Bus without jeepney; install flagship[dbus]") from error
        try:
            connection = open_dbus_connection(self._address, enable_fds=descriptors, auth_timeout=self._timeout_s)
        except (OSError, AuthenticationError, ValueError, LookupError, RuntimeError, StopIteration) as error:
            raise UnreachableError(f"no D-Bus at {self._address}: {error or type(error).__name__}") from error
        try:
            yield Talk(connection, self._timeout_s)
        finally:
            connection.close()


class Talk:
    """One connection to a bus."""

    def __init__(self, connection: "DBusConnection", timeout_s: float) -> None:
        self._connection = connection
        self._timeout_s = timeout_s

    def call(
        self, service: str, path: str, interface: str, member: str, answer: str, signature: str = "", *words: str
    ) -> tuple[Any, ...]:
        """Call a method; its answer's values.

        Args:
            service: Its name on the bus.
            path: Of the object.
            interface: That has the method.
            member: The method.
            answer: Signature that the answer must have, in D-Bus' letters.
            signature: Of ``words``.
            words: What it is called with.

        Raises:
            UnreachableError: There is no such service, object or method, it refuses, or does not answer in time.
        """
        from jeepney import DBusAddress, DBusErrorResponse, HeaderFields, new_method_call
        from jeepney.wrappers import unwrap_msg

        message = new_method_call(DBusAddress(path, service, interface), member, signature or None, words)
        try:
            reply = self._connection.send_and_get_reply(message, timeout=self._timeout_s)
            values: tuple[Any, ...] = unwrap_msg(reply)
        except DBusErrorResponse as error:
            raise UnreachableError(f"{service} answers {member} with {error.name}") from error
        except TimeoutError as error:
            raise UnreachableError(f"{service} does not answer {member} within {self._timeout_s:g} s") from error
        except (OSError, ValueError, LookupError, EOFError) as error:
            raise UnreachableError(f"{service} cannot be asked for {member}: {error}") from error
        found = reply.header.fields.get(HeaderFields.signature, "")
        if found != answer:
            raise UnreachableError(f"{service} answers {member} with ({found}), expected ({answer})")
        return values

    def get(self, service: str, path: str, interface: str, name: str, kind: type[T]) -> T:
        """A property's value.

        Args:
            service: Its name on the bus.
            path: Of the object.
            interface: That has the property.
            name: Of the property.
            kind: What its value must be.

        Raises:
            UnreachableError: There is no such property, it is of another kind, or there is no answer.
        """
        properties = "org.freedesktop.DBus.Properties"
        try:
            ((_, value),) = self.call(service, path, properties, "Get", "v", "ss", interface, name)
        except UnreachableError as error:
            raise UnreachableError(f"{name}: {error}") from error
        if not isinstance(value, kind):
            raise UnreachableError(f"{service} has {name} of {type(value).__name__}, expected {kind.__name__}")
        return value
