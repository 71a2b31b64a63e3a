"""The highest epoch, seq and timestamp version ever used, kept outside the database.

A restored database must not lead to a message that devices have left behind, or to two messages with one number.
Seqs are reserved in blocks: the file holds the end of the block, so that a crash skips numbers and repeats none.
"""

import json
import threading
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from orchestrator.errors import ConflictError, NotFoundError, OperationError
from orchestrator.private_files import replace_private

BLOCK = 1000
"""Seqs that one fsync buys."""


class Marks(BaseModel):
    """``high-water.json``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    epoch: Annotated[int, Field(ge=1)]
    seq: Annotated[int, Field(ge=0)]
    timestamp: Annotated[int, Field(ge=0)]
    facts: Annotated[int, Field(ge=0)] = 0
    """Version of ``facts.json`` below which a copy is an old one."""


class HighWater:
    """The marks, durable before they are used. Blocking on one call in ``BLOCK``; safe from several threads."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._marks = _load(path)
        self._seq = self._marks.seq  # the block that was begun before is given up

    @property
    def epoch(self) -> int:
        """The epoch in use."""
        return self._marks.epoch

    @property
    def order(self) -> tuple[int, int]:
        """The end of what was reserved: no (epoch, seq) above it was ever signed."""
        return self._marks.epoch, self._marks.seq

    @property
    def facts(self) -> int:
        """The lowest version of ``facts.json`` that is not an old copy."""
        return self._marks.facts

    @property
    def timestamp(self) -> int:
        """The highest timestamp version ever signed."""
        return self._marks.timestamp

    def next_order(self) -> tuple[int, int]:
        """The next (epoch, seq), higher than any before it.

        Raises:
            OperationError: The file cannot be written; nothing was used up.
        """
        with self._lock:
            if self._seq >= self._marks.seq:
                self._save(self._marks.model_copy(update={"seq": self._marks.seq + BLOCK}))
            self._seq += 1
            return self._marks.epoch, self._seq

    def next_timestamp(self) -> int:
        """The next timestamp version, durable before it is signed.

        Raises:
            OperationError: The file cannot be written.
        """
        with self._lock:
            version = self._marks.timestamp + 1
            self._save(self._marks.model_copy(update={"timestamp": version}))
            return version

    def raise_epoch(self) -> int:
        """Begin the next epoch; seqs go on, so that they too never come twice.

        Raises:
            OperationError: The file cannot be written; the epoch stays.
        """
        with self._lock:
            self._save(self._marks.model_copy(update={"epoch": self._marks.epoch + 1}))
            return self._marks.epoch

    def note_facts(self, version: int) -> None:
        """From now on a ``facts.json`` below ``version`` is an old copy.

        Raises:
            OperationError: The file cannot be written.
        """
        with self._lock:
            self._save(self._marks.model_copy(update={"facts": version}))

    def check_above(self, order: tuple[int, int], timestamp: int) -> None:
        """Refuse to go on below what is known to have been published.

        Args:
            order: The highest (epoch, seq) that was published.
            timestamp: The highest timestamp version that was published.

        Raises:
            ConflictError: The marks are from an older copy of the file.
        """
        with self._lock:
            marks = self._marks
        if order > (marks.epoch, marks.seq):
            raise ConflictError(
                f"{self._path}: at epoch {marks.epoch}, seq {marks.seq}, but epoch {order[0]}, seq {order[1]} was "
                "published: the file is an old copy; restore the newest, or raise its epoch by one"
            )
        if timestamp > marks.timestamp:
            raise ConflictError(
                f"{self._path}: at timestamp {marks.timestamp}, but version {timestamp} was published: "
                f"the file is an old copy; restore the newest, or set timestamp to {timestamp}"
            )

    def _save(self, marks: Marks) -> None:
        if _load(self._path) != self._marks:
            raise ConflictError(f"{self._path}: changed by another process while this one signs; stop one of them")
        write_marks(self._path, marks)
        self._marks = marks


def write_marks(path: Path, marks: Marks) -> None:
    """Replace the file; durable when this returns.

    Raises:
        OperationError: It cannot be written.
    """
    replace_private(path, json.dumps(marks.model_dump()).encode())


def _load(path: Path) -> Marks:
    try:
        return Marks.model_validate_json(path.read_bytes())
    except FileNotFoundError as error:
        raise NotFoundError(
            f"{path}: missing; without it old numbers would be signed again. Restore it, or write "
            '{"epoch": N, "seq": 0, "timestamp": M} with N and M above all that were ever used'
        ) from error
    except (OSError, ValidationError) as error:
        raise OperationError(f"{path}: expected epoch, seq and timestamp as JSON numbers; restore it") from error
