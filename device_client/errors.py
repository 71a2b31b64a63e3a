"""Errors of the device, each with the exit code it ends a command with.

    FlagshipError
    └── DeviceError            something on this device is not as it must be; one sentence for a person
        ├── UsageError         2  the command's words or device.toml do not make sense
        ├── NotFoundError      3  what was named does not exist; the device is not enrolled
        ├── NotAllowedError    4  a file may not be read or written by this user
        ├── ConflictError      5  the state of things does not allow it now
        ├── WaitingError       7  a person must act first
        ├── UnreachableError   9  the agent or a broker does not answer
        └── StorageError       1  a disk does not keep what is written, or what was kept is damaged

What a release or a chunk is refused for is a ``protocol.errors.ContentError`` and has a code on the wire.
"""

from protocol.errors import FlagshipError


class DeviceError(FlagshipError):
    """Something on this device is not as it must be."""

    exit_code = 1


class UsageError(DeviceError):
    """The command's words or device.toml do not make sense."""

    exit_code = 2


class NotFoundError(DeviceError):
    """What was named does not exist."""

    exit_code = 3


class NotAllowedError(DeviceError):
    """A file may not be read or written by this user."""

    exit_code = 4


class ConflictError(DeviceError):
    """The state of things does not allow it now."""

    exit_code = 5


class WaitingError(DeviceError):
    """A person must act first."""

    exit_code = 7


class UnreachableError(DeviceError):
    """The agent or a broker does not answer."""

    exit_code = 9


class StorageError(DeviceError):
    """A disk does not keep what is written, or what was kept is damaged."""
