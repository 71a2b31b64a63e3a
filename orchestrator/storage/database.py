"""The database itself: opened, versioned, one writer at a time.

SQLite in WAL mode: readers never wait for the writer. Writers queue on a lock of this process and begin with
``BEGIN IMMEDIATE``, so that a transaction that has read may always write. What a store does inside a transaction is
its own business; what the driver raises is translated here and nowhere else.
"""

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

from sqlalchemy import event, insert, select
from sqlalchemy.engine import Connection
from sqlalchemy.exc import IntegrityError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from orchestrator.errors import ConflictError, OperationError
from orchestrator.storage import certificate_tables, tables

SCHEMA = 1
"""Rises when the tables change; a database with a higher one belongs to a newer Flagship."""
BUSY_TIMEOUT_MS = 10_000
_WRITE = "flagship_write"


class Database:
    """One SQLite file. Made by ``Database.open``."""

    def __init__(self, path: Path, engine: AsyncEngine) -> None:
        self.path = path
        self.id = ""  # random, made once: what brokers were filled from
        self._engine = engine
        self._writer = asyncio.Lock()

    @classmethod
    async def open(cls, path: Path) -> "Database":
        """Open the file, making it and its tables where they are missing.

        Raises:
            OperationError: The file cannot be used, or a newer Flagship made it.
        """
        engine = create_async_engine(f"sqlite+aiosqlite:///{path}")
        event.listen(engine.sync_engine, "connect", _prepare)
        event.listen(engine.sync_engine, "begin", _begin)
        database = cls(path, engine)
        try:
            async with database.begin() as conn:
                database.id = await conn.run_sync(_upgrade, path)
        except BaseException:
            await engine.dispose()
            raise
        return database

    @contextlib.asynccontextmanager
    async def begin(self) -> AsyncIterator[AsyncConnection]:
        """A writing transaction: all of it holds afterwards, or nothing.

        Raises:
            ConflictError: A row that must be unique is there already.
            OperationError: The database did not do what it was told.
        """
        async with self._writer:
            with self._translated():
                async with self._engine.connect() as raw:
                    conn = await raw.execution_options(**{_WRITE: True})
                    async with conn.begin():
                        yield conn

    @contextlib.asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """A snapshot for reading; does not wait for the writer.

        Raises:
            OperationError: The database did not do what it was told.
        """
        with self._translated():
            async with self._engine.connect() as conn:
                yield conn

    async def close(self) -> None:
        """Close every connection."""
        await self._engine.dispose()

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except IntegrityError as error:
            raise ConflictError(f"database {self.path}: {error.orig}") from error
        except SQLAlchemyError as error:
            cause = getattr(error, "orig", None) or error
            raise OperationError(f"database {self.path}: {cause}") from error


def _prepare(connection: Any, record: Any) -> None:  # noqa: ANN401, ARG001 - the driver's own types
    connection.isolation_level = None  # the driver must not begin transactions by itself
    cursor = connection.cursor()
    for pragma in (
        "journal_mode=WAL",
        "synchronous=NORMAL",
        f"busy_timeout={BUSY_TIMEOUT_MS}",
        "foreign_keys=ON",
    ):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin(connection: Connection) -> None:
    write = connection.get_execution_options().get(_WRITE)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")


def _upgrade(connection: Connection, path: Path) -> str:
    """Make the tables, check the schema's version; returns the database's id."""
    certificate_tables.metadata.create_all(connection)  # that of tables, with these known to it too
    found = {row.key: row.value for row in connection.execute(select(tables.settings))}
    schema = int(found.get("schema", SCHEMA))
    if schema > SCHEMA:
        raise OperationError(
            f"database {path}: schema {schema}, this Flagship knows up to {SCHEMA}; use the newer version"
        )
    wanted = {"schema": str(SCHEMA), "database": secrets.token_hex(8)}
    missing = [{"key": key, "value": value} for key, value in wanted.items() if key not in found]
    if missing:
        connection.execute(insert(tables.settings), missing)
    return str(found.get("database", wanted["database"]))
