"""The highest epoch, seq and timestamp version ever used, kept outside the database.

A restored database must not lead to a message that devices have left behind, or to two messages with one number.
Seqs are reserved in blocks: the file holds the end of the block, so that a crash skips numbers and repeats none.
"""

import json
import os
import threading
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from orchestrator.errors import ConflictError, NotFoundError, OperationError

BLOCK = 1000
"""Seqs that one fsync buys."""


class Marks(BaseModel):
    """``high-water.json``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    epoch: Annotated[int, Field(ge=1)]
    seq: Annotated[int, Field(ge=0)]
    timestamp: Annotated[int, Field(ge=0)]


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
        current = _load(self._path)
        if (current.epoch, current.seq, current.timestamp) != (
            self._marks.epoch,
            self._marks.seq,
            self._marks.timestamp,
        ):
            raise ConflictError(f"{self._path}: changed by another process while this one signs; stop one of them")
        write_marks(self._path, marks)
        self._marks = marks


def write_marks(path: Path, marks: Marks) -> None:
    """Replace the file; durable when this returns.

    Raises:
        OperationError: It cannot be written.
    """
    temporary = path.with_suffix(".new")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as out:
            json.dump(marks.model_dump(), out)
            out.flush()
            os.fsync(out.fileno())
        temporary.replace(path)
        directory = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    except OSError as error:
        raise OperationError(f"{path}: {error.strerror}; nothing is signed until it can be written") from error


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
