"""When this device was changed last, for the least interval between two updates. Survives a restart.

Noted at activation and again at commit: an update that rolled back counts.
"""

from datetime import datetime
from pathlib import Path

from device_client.durable import read_capped, write_durably
from device_client.errors import DeviceError


class LastUpdate:
    """A file with one instant. Blocking."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __call__(self) -> datetime | None:
        """The instant, or None when there was no update, or it can no longer be told."""
        try:
            return datetime.fromisoformat(read_capped(self._path, 64).decode().strip())
        except (DeviceError, ValueError):
            return None

    def note(self, at: datetime) -> None:
        """Keep it; durable when this returns."""
        write_durably(self._path, f"{at.isoformat()}\n".encode())
