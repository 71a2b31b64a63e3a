"""The database itself: opened, versioned, one writer at a time.

SQLite in WAL mode: readers never wait for the writer. Writers queue on a lock of this process and begin with
``BEGIN IMMEDIATE``, so that a transaction that has read may always write. What a store does inside a transaction is
its own business; what the driver raises is translated here and nowhere else.

Two ways in. ``begin`` and ``read`` are blocks: the caller may do anything inside, and every statement is several trips
to the driver's thread. ``write`` and ``look`` take a whole transaction to a thread in one trip, at a fraction of the
CPU: for what happens again and again.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import create_engine, event
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import IntegrityError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from orchestrator.errors import ConflictError, OperationError
from orchestrator.model.audit import AuditKind
from orchestrator.storage import audit
from orchestrator.storage.lead import WRITING, Writing, raise_epoch, stored_epoch, sync_of
from orchestrator.storage.upgrade import bring_up_to_date

BUSY_TIMEOUT_MS = 10_000
T = TypeVar("T")
Work = Callable[[AsyncConnection], Coroutine[Any, Any, T]]
"""A whole transaction: awaits its connection's statements and nothing else."""


class Database:
    """One SQLite file. Made by ``Database.open``."""

    def __init__(self, path: Path, engine: AsyncEngine) -> None:
        self.path = path
        self.id = ""  # random, made once: what brokers were filled from
        self.starting = set[str]()  # rollouts whose members this process is placing just now
        self.epoch = 0  # of the orchestrator that writes through this: see ``take_lead``
        self._engine = engine
        self._direct = create_engine(f"sqlite:///{path}")
        _listen(self._direct, _begin_directly)
        self._writer = asyncio.Lock()

    @classmethod
    async def open(cls, path: Path) -> "Database":
        """Open the file, making it and its tables where they are missing.

        Raises:
            OperationError: The file cannot be used, or a newer Flagship made it.
        """
        engine = create_async_engine(f"sqlite+aiosqlite:///{path}")
        _listen(engine.sync_engine, _begin)
        database = cls(path, engine)

        async def upgrade(conn: AsyncConnection) -> str:
            connection = sync_of(conn)
            found = bring_up_to_date(connection, path)
            database.epoch = stored_epoch(connection)
            return found

        try:
            database.id = await database.write(upgrade)  # a file that cannot be used leaves no driver's thread behind
        except BaseException:
            await database.close()
            raise
        return database

    async def take_lead(self, now: datetime) -> int:
        """From now on this one decides: decisions through any other that has the file open fail.

        Returns:
            The new fencing epoch.
        """

        async def take(conn: AsyncConnection) -> int:
            epoch = raise_epoch(sync_of(conn))
            cause = f"this orchestrator took the lead as epoch {epoch}"
            await audit.append(conn, AuditKind.LEAD, at=now, actor="orchestrator", cause=cause)
            return epoch

        self.epoch = await self.write(take)
        return self.epoch

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
                    conn = await raw.execution_options(**{WRITING: Writing(self.epoch)})
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

    async def write(self, work: Work[T]) -> T:
        """A writing transaction in one trip to a thread; raises as ``begin``, and what ``work`` raises.

        Who is cancelled waits until the thread is done: it may have written.
        """
        async with self._writer:
            return await self._in_thread(work, write=True)

    async def look(self, work: Work[T]) -> T:
        """A snapshot for reading in one trip to a thread; raises as ``read``, and what ``work`` raises."""
        return await self._in_thread(work, write=False)

    async def close(self) -> None:
        """Close every connection."""
        await self._engine.dispose()
        await asyncio.to_thread(self._direct.dispose)

    async def _in_thread(self, work: Work[T], *, write: bool) -> T:
        done = asyncio.ensure_future(asyncio.to_thread(self._run, work, write=write))
        try:
            return await asyncio.shield(done)
        except asyncio.CancelledError:
            await asyncio.wait({done})
            done.cancelled() or done.exception()  # looked at: nobody else will
            raise

    def _run(self, work: Work[T], *, write: bool) -> T:
        with self._translated(), self._direct.connect() as raw:
            conn = raw.execution_options(**{WRITING: Writing(self.epoch)}) if write else raw
            with conn.begin():
                return _finish(work(_Direct(self._engine, conn)))

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except IntegrityError as error:
            raise ConflictError(f"database {self.path}: {error.orig}") from error
        except SQLAlchemyError as error:
            cause = getattr(error, "orig", None) or error
            raise OperationError(f"database {self.path}: {cause}") from error


class _Direct(AsyncConnection):
    """A connection of this thread: a statement is done when it returns, so who awaits it never waits."""

    async def execute(self, statement: Any, parameters: Any = None, **options: Any) -> Any:  # noqa: ANN401
        return self.sync_connection.execute(statement, parameters, **options)  # type: ignore[union-attr]

    async def scalar(self, statement: Any, parameters: Any = None, **options: Any) -> Any:  # noqa: ANN401
        return self.sync_connection.scalar(statement, parameters, **options)  # type: ignore[union-attr]

    async def scalars(self, statement: Any, parameters: Any = None, **options: Any) -> Any:  # noqa: ANN401
        return self.sync_connection.scalars(statement, parameters, **options)  # type: ignore[union-attr]


def _listen(engine: Engine, begin: Callable[[Connection], None]) -> None:
    event.listen(engine, "connect", _prepare)
    event.listen(engine, "begin", begin)


def _finish(work: Coroutine[Any, Any, T]) -> T:
    try:
        work.send(None)
    except StopIteration as end:
        result: T = end.value
        return result
    work.close()
    raise RuntimeError("a transaction in a thread waits for nothing but its statements")


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
    connection.exec_driver_sql(_beginning(connection))


def _begin_directly(connection: Connection) -> None:
    """As ``_begin``, without SQLAlchemy's way, which costs as much as a query."""
    connection.connection.cursor().execute(_beginning(connection))


def _beginning(connection: Connection) -> str:
    return "BEGIN IMMEDIATE" if connection.get_execution_options().get(WRITING) else "BEGIN"
