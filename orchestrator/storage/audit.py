"""The audit log: append and read. Entries are chained as they are written, inside the caller's transaction."""

import secrets
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import RowMapping, bindparam, insert, select
from sqlalchemy.engine import Connection
from sqlalchemy.ext.asyncio import AsyncConnection

from orchestrator.errors import OperationError
from orchestrator.model.audit import (
    MAX_CAUSE_CHARS,
    AuditEntry,
    AuditKind,
    Head,
    SignedHead,
    chain_hash,
    encode_body,
    encode_entry,
    pack,
    unpack,
)
from orchestrator.model.audit_counts import counts_rows
from orchestrator.storage.audit_tables import audit, audit_heads
from orchestrator.storage.lead import LEADER_EPOCH, Writing, check_epoch, sync_of, writing_of
from orchestrator.storage.tables import counts, settings

_LAST = select(audit.c.id, audit.c.hash).order_by(audit.c.id.desc()).limit(1)
_WHERE_IT_ENDS = select(
    select(settings.c.value).where(settings.c.key == LEADER_EPOCH).scalar_subquery().label("epoch"),
    select(audit.c.id).order_by(audit.c.id.desc()).limit(1).scalar_subquery().label("id"),
    select(audit.c.hash).order_by(audit.c.id.desc()).limit(1).scalar_subquery().label("hash"),
)
_INSERT = insert(audit)
_AFTER = select(audit).where(audit.c.id > bindparam("the_id")).order_by(audit.c.id).limit(bindparam("the_limit"))


async def append(
    conn: AsyncConnection,
    kind: str,
    *,
    at: datetime,
    actor: str,
    cause: str,
    rollout: str = "",
    device: str = "",
    figures: Mapping[str, Any] | None = None,
    correlation: str = "",
) -> Head:
    """Add one entry.

    Args:
        kind: An ``AuditKind``.
        figures: What a program needs to judge it: JSON values.
        correlation: Empty: the transaction's own.

    Raises:
        LostLeadError: Another orchestrator took over.
        ValueError: The figures are too large.
    """
    writing = writing_of(sync_of(conn))
    if writing.head is None:
        _look(writing, (await conn.execute(_WHERE_IT_ENDS)).one())
    entry = _next(writing, kind, at, actor, cause, rollout, device, figures or {}, correlation)
    await conn.execute(_INSERT, _row(entry))
    return entry.head


def append_now(
    connection: Connection, kind: str, *, at: datetime, actor: str, cause: str, figures: Mapping[str, Any]
) -> Head:
    """As ``append``, for what has a plain connection, such as an upgrade."""
    writing = writing_of(connection)
    if writing.head is None:
        _look(writing, connection.execute(_WHERE_IT_ENDS).one())
    entry = _next(writing, kind, at, actor, cause, "", "", figures, "")
    connection.execute(_INSERT, _row(entry))
    return entry.head


def note_counts(connection: Connection, at: datetime, cause: str, database: str) -> Head:
    """Write down all counters as they stand: where a log begins, and after an upgrade that counts anew."""
    rows = connection.execute(
        select(counts.c.rollout, counts.c.stage, counts.c.key, counts.c.n)
        .where(counts.c.n != 0)
        .order_by(counts.c.rollout, counts.c.stage, counts.c.key)
    )
    figures = {"database": database, "counts": counts_rows((row.rollout, row.stage, row.key, row.n) for row in rows)}
    kind = AuditKind.RECOUNT if connection.execute(_LAST).first() else AuditKind.BEGIN
    return append_now(connection, kind, at=at, actor="orchestrator", cause=cause, figures=figures)


async def head(conn: AsyncConnection) -> Head:
    """The last entry's number and hash."""
    row = (await conn.execute(_LAST)).first()
    return Head() if row is None else Head(row.id, row.hash)


async def page(
    conn: AsyncConnection, *, after: int = 0, limit: int = 100, rollout: str = "", newest_first: bool = False
) -> list[AuditEntry]:
    """Entries with an id above ``after``, the oldest first; or the newest ones, below ``after`` where it is not 0."""
    query = select(audit).limit(limit)
    if newest_first:
        query = query.order_by(audit.c.id.desc())
        query = query.where(audit.c.id < after) if after else query
    else:
        query = query.order_by(audit.c.id).where(audit.c.id > after)
    if rollout:
        query = query.where(audit.c.rollout == rollout)
    return [read_entry(row) for row in (await conn.execute(query)).mappings()]


async def get(conn: AsyncConnection, entry: int) -> AuditEntry | None:
    """One entry."""
    row = (await conn.execute(select(audit).where(audit.c.id == entry))).mappings().first()
    return None if row is None else read_entry(row)


def read_entry(row: RowMapping) -> AuditEntry:
    """An entry of its row.

    Raises:
        OperationError: It cannot be read: somebody changed it.
    """
    try:
        return AuditEntry(**{**row, "body": unpack(row["body"])})
    except (ValueError, TypeError) as error:
        raise OperationError(
            f"audit entry {row['id']}: {error}; it was changed, run 'flagship audit verify'"
        ) from error


async def add_head(conn: AsyncConnection, signed: SignedHead, envelope: bytes) -> None:
    """Keep what the signer signed."""
    await conn.execute(insert(audit_heads).values(at=signed.at, entry=signed.id, hash=signed.hash, envelope=envelope))


async def last_signed(conn: AsyncConnection) -> int:
    """The highest entry that a kept head names; 0 for none."""
    row = (await conn.execute(select(audit_heads.c.entry).order_by(audit_heads.c.serial.desc()).limit(1))).first()
    return 0 if row is None else int(row.entry)


def _look(writing: Writing, row: Any) -> None:  # noqa: ANN401 - a row
    check_epoch(writing, row.epoch)
    writing.head = Head() if row.id is None else Head(row.id, row.hash)


def _next(
    writing: Writing,
    kind: str,
    at: datetime,
    actor: str,
    cause: str,
    rollout: str,
    device: str,
    figures: Mapping[str, Any],
    correlation: str,
) -> AuditEntry:
    assert writing.head is not None
    writing.correlation = writing.correlation or correlation or secrets.token_hex(8)
    writing.told, writing.at = (actor, cause), at
    fields: dict[str, Any] = {
        "id": writing.head.id + 1,
        "at": at,
        "kind": str(kind),
        "actor": actor,
        "rollout": rollout,
        "device": device,
        "cause": cause[:MAX_CAUSE_CHARS],
        "epoch": writing.epoch,
        "correlation": correlation or writing.correlation,
        "body": encode_body(figures),
    }
    bare = AuditEntry(**fields, hash="")
    entry = AuditEntry(**fields, hash=chain_hash(writing.head.hash, encode_entry(bare)))
    writing.head = entry.head
    return entry


def _row(entry: AuditEntry) -> dict[str, Any]:
    row = {column.name: getattr(entry, column.name) for column in audit.columns}
    return {**row, "body": pack(entry.body)}
