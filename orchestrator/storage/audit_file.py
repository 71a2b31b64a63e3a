"""Reads the audit log of a database that nobody needs to serve, and that may be damaged. Read-only; blocking.

Everything comes from one snapshot. Rows are read as they stand, without the types of ``tables``: a value that somebody
changed is a finding, not a crash.
"""

import contextlib
import sqlite3
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from orchestrator.errors import NotFoundError, OperationError
from orchestrator.model.audit import FIRST, AuditEntry, unpack

BUSY_TIMEOUT_S = 10.0
_TEXTS = ("kind", "actor", "rollout", "device", "cause", "correlation", "hash")
_COLUMNS = ("id", "at", *_TEXTS[:-1], "epoch", "body", "hash")


class LogFile:
    """A snapshot of one database's log. Made by ``open_log``."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self._path = path
        self._connection = connection

    def entries(self) -> Iterator[tuple[AuditEntry, str]]:
        """Every entry in order, with why it cannot be read; "" when it can. One at a time in memory."""
        yield from map(_entry, self._rows(f"SELECT {', '.join(_COLUMNS)} FROM audit ORDER BY id"))  # noqa: S608

    def heads(self) -> Iterator[bytes]:
        """What the signer signed, as it was kept."""
        for (envelope,) in self._rows("SELECT envelope FROM audit_heads ORDER BY serial"):
            yield envelope if isinstance(envelope, bytes) else str(envelope).encode()

    def counts(self) -> dict[str, dict[int, dict[str, int]]]:
        """The counters by rollout, stage and key; zeros left out."""
        found: dict[str, dict[int, dict[str, int]]] = {}
        for rollout, stage, key, n in self._rows("SELECT rollout, stage, key, n FROM counts WHERE n <> 0"):
            found.setdefault(rollout, {}).setdefault(stage, {})[key] = n
        return found

    def _rows(self, statement: str) -> Iterator[tuple[Any, ...]]:
        try:
            yield from self._connection.execute(statement)
        except sqlite3.OperationalError as error:
            if "no such table" in str(error):
                raise NotFoundError(
                    f"{self._path}: has no audit log yet; 'flagship serve' of this version makes one"
                ) from error
            raise OperationError(f"{self._path}: {error}") from error
        except sqlite3.DatabaseError as error:
            raise OperationError(f"{self._path}: {error}") from error


@contextlib.contextmanager
def open_log(path: Path) -> Iterator[LogFile]:
    """Open a database file for reading alone; serve may run on it or not.

    Raises:
        NotFoundError: There is no such file.
        OperationError: It is no database, or cannot be read.
    """
    if not path.is_file():
        raise NotFoundError(f"{path}: missing; name the fleet's home with --home")
    try:
        connection = _open(path)
    except sqlite3.DatabaseError as error:
        raise OperationError(f"{path}: cannot be read: {error}") from error
    try:
        yield LogFile(path, connection)
    finally:
        connection.close()


def _open(path: Path) -> sqlite3.Connection:
    """Of a file in a folder that may not be written to, too: then nobody writes to it meanwhile."""
    try:
        return _snapshot(path, "mode=ro")
    except sqlite3.OperationalError:
        if path.with_name(path.name + "-wal").exists():
            raise
        return _snapshot(path, "immutable=1")


def _snapshot(path: Path, how: str) -> sqlite3.Connection:
    uri = f"file:{quote(str(path.absolute()))}?{how}"
    connection = sqlite3.connect(uri, uri=True, isolation_level=None, timeout=BUSY_TIMEOUT_S)
    try:
        connection.execute("BEGIN")
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()  # the snapshot begins with the first read
    except BaseException:
        connection.close()
        raise
    return connection


def _entry(row: tuple[Any, ...]) -> tuple[AuditEntry, str]:
    found: dict[str, Any] = dict(zip(_COLUMNS, row, strict=True))
    why = ""
    try:
        found["at"] = datetime.fromisoformat(found["at"])
        if found["at"].tzinfo is None:
            raise ValueError("its instant has no zone")
        found["body"] = unpack(found["body"])
        if not all(isinstance(found[name], str) for name in _TEXTS) or not isinstance(found["epoch"], int):
            raise ValueError("a field has another type")
    except (ValueError, TypeError) as error:
        why = str(error)
        found |= {name: str(found[name]) for name in _TEXTS}
        found |= {"at": datetime.fromisoformat("1970-01-01T00:00:00+00:00"), "body": b"{}"}
        found["epoch"] = found["epoch"] if isinstance(found["epoch"], int) else 0
        found["hash"] = found["hash"] or FIRST
    return AuditEntry(**found), why
