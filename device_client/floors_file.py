"""Floors on the disk: two copies, each with a checksum and a generation; the newest valid one counts.

A lost floor would let old software in again, so damage to both copies is an error: the device keeps running what it
runs and takes nothing until a person has looked. Two whole copies of one generation that differ, which no crash leaves
behind, are merged by the strictest.
"""

import hashlib
import json
from collections.abc import Callable
from functools import reduce
from pathlib import Path
from typing import Generic, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from device_client.durable import read_capped, write_durably
from device_client.errors import NotFoundError, StorageError
from protocol.trust.floors import Floors, higher

T = TypeVar("T", bound=BaseModel)
MAX_BYTES = 1_048_576
NAMES = ("floors-a.json", "floors-b.json")


class _Copy(BaseModel):
    model_config = ConfigDict(extra="forbid")

    generation: int
    sha256: str
    content: str


class FloorsFile(Generic[T]):
    """The floors of one device, outside of what an update replaces. All methods block."""

    def __init__(self, directory: Path, model: type[T], merge: Callable[[T, T], T]) -> None:
        """Name the place.

        Args:
            merge: Makes one of two copies that claim to be equally new.
        """
        self._paths = tuple(directory / name for name in NAMES)
        self._model = model
        self._merge = merge
        self._generation: int | None = None

    def load(self) -> T | None:
        """The newest floors that are whole; None when nothing was ever saved.

        Raises:
            StorageError: There are copies, and none of them is whole.
        """
        found: list[tuple[int, T]] = []
        damaged: list[str] = []
        for path in self._paths:
            try:
                found.append(self._read(path))
            except NotFoundError:
                continue
            except (StorageError, ValidationError, ValueError):
                damaged.append(str(path))
        if found:
            self._generation = max(generation for generation, _ in found)
            newest = [value for generation, value in found if generation == self._generation]
            return reduce(self._merge, newest)
        self._generation = None
        if damaged:
            raise StorageError(
                f"floors: no whole copy left ({', '.join(damaged)}); no update is taken until one is restored from a "
                "backup; removing both lets every older release in again"
            )
        self._generation = 0
        return None

    def save(self, value: T) -> None:
        """Write both copies, one after the other: whenever the power goes, one of them is whole.

        Raises:
            StorageError: A copy was not written, the newest one before stays; or what is there is damaged.
        """
        if self._generation is None:
            self.load()
        generation = (self._generation or 0) + 1
        content = value.model_dump_json()
        copy = {"generation": generation, "sha256": _digest(generation, content), "content": content}
        data = json.dumps(copy).encode()
        for path in self._paths:
            write_durably(path, data)
        self._generation = generation

    def _read(self, path: Path) -> tuple[int, T]:
        copy = _Copy.model_validate_json(read_capped(path, MAX_BYTES))
        if copy.sha256 != _digest(copy.generation, copy.content):
            raise StorageError(f"{path}: its checksum does not fit")
        return copy.generation, self._model.model_validate_json(copy.content)


class DeviceFloors:
    """What verification keeps its floors in: an absent file is a new device, a damaged one an error (fail closed)."""

    def __init__(self, directory: Path) -> None:
        self._file = FloorsFile(directory, Floors, higher)

    def load(self) -> Floors:
        """The newest whole copy; raises as ``FloorsFile.load``."""
        return self._file.load() or Floors()

    def save(self, floors: Floors) -> None:
        """Durable when it returns; raises as ``FloorsFile.save``."""
        self._file.save(floors)


def _digest(generation: int, content: str) -> str:
    return hashlib.sha256(f"{generation}\n{content}".encode()).hexdigest()
