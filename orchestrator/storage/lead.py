"""Which orchestrator writes: the fencing epoch, raised at every start of ``serve``.

Two may be up by mistake, such as one on a copy of a home whose database both reach. The one that started last writes;
the other's next decision fails with a sentence.
"""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import insert, select, update
from sqlalchemy.engine import Connection
from sqlalchemy.ext.asyncio import AsyncConnection

from orchestrator.errors import LostLeadError
from orchestrator.model.audit import Head
from orchestrator.storage.tables import settings

LEADER_EPOCH = "leader_epoch"
WRITING = "flagship_writing"
"""Execution option of a writing transaction: its ``Writing``."""
_STORED = select(settings.c.value).where(settings.c.key == LEADER_EPOCH)


@dataclass(slots=True)
class Writing:
    """What one writing transaction knows of itself.

    Attributes:
        epoch: That of the database that began it.
        told, at: Actor, cause and instant of what was appended to the audit log last; what follows is because of it.
        correlation: One for all that it appends.
        head: Where the audit log ends, once that is known.
    """

    epoch: int = 0
    told: tuple[str, str] | None = None
    at: datetime | None = None
    correlation: str = ""
    head: Head | None = None


def writing_of(connection: Connection) -> Writing:
    """The transaction's own.

    Raises:
        RuntimeError: It is no writing transaction of ``Database``.
    """
    found = connection.get_execution_options().get(WRITING)
    if not isinstance(found, Writing):
        raise RuntimeError("this needs a writing transaction of Database")
    return found


async def check_lead(conn: AsyncConnection) -> None:
    """Go on only as the orchestrator that started last.

    Raises:
        LostLeadError: Another one took over.
    """
    check_epoch(writing_of(sync_of(conn)), await conn.scalar(_STORED))


def check_epoch(writing: Writing, stored: str | None) -> None:
    """As ``check_lead``, with what stands in the database."""
    if writing.epoch != int(stored or 0):
        raise LostLeadError(
            f"another orchestrator took over (epoch {stored}, this one has {writing.epoch}); nothing was written, "
            "stop one of the two"
        )


def stored_epoch(connection: Connection) -> int:
    """The epoch of the orchestrator that started last; 0 before the first."""
    return int(connection.scalar(_STORED) or 0)


def raise_epoch(connection: Connection) -> int:
    """Take the lead: from this transaction's end on, the others' writes fail."""
    epoch = stored_epoch(connection) + 1
    changed = connection.execute(
        update(settings).where(settings.c.key == LEADER_EPOCH).values(value=str(epoch))
    ).rowcount
    if not changed:
        connection.execute(insert(settings).values(key=LEADER_EPOCH, value=str(epoch)))
    writing_of(connection).epoch = epoch
    return epoch


def sync_of(conn: AsyncConnection) -> Connection:
    """The connection itself, for what belongs to its transaction.

    Raises:
        RuntimeError: It is closed.
    """
    if conn.sync_connection is None:
        raise RuntimeError("no connection")
    return conn.sync_connection
