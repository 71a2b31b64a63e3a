"""The audit log's tables: what is in them is never changed, and the database itself says so."""

from sqlalchemy import Column, Index, Integer, LargeBinary, String, Table
from sqlalchemy.engine import Connection

from orchestrator.storage.tables import Instant, metadata

audit = Table(
    "audit",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),  # from 1 without gaps
    Column("at", Instant, nullable=False),
    Column("kind", String(16), nullable=False),  # model.audit.AuditKind
    Column("actor", String(64), nullable=False),
    Column("rollout", String(64), nullable=False, server_default=""),
    Column("device", String(64), nullable=False, server_default=""),
    Column("cause", String, nullable=False, server_default=""),
    Column("epoch", Integer, nullable=False, server_default="0"),
    Column("correlation", String(64), nullable=False, server_default=""),
    Column("body", LargeBinary, nullable=False),  # zlib of JSON
    Column("hash", String(64), nullable=False),
    Index("audit_by_rollout", "rollout", "id"),
)

audit_heads = Table(
    "audit_heads",
    metadata,
    # What the signer signed of it: model.audit.SignedHead under DSSE.
    Column("serial", Integer, primary_key=True),
    Column("at", Instant, nullable=False),
    Column("entry", Integer, nullable=False),
    Column("hash", String(64), nullable=False),
    Column("envelope", LargeBinary, nullable=False),
)

_TRIGGERS = (
    """CREATE TRIGGER IF NOT EXISTS audit_no_update BEFORE UPDATE ON audit
       BEGIN SELECT RAISE(ABORT, 'an audit entry is never changed'); END""",
    """CREATE TRIGGER IF NOT EXISTS audit_no_delete BEFORE DELETE ON audit
       BEGIN SELECT RAISE(ABORT, 'an audit entry is never deleted'); END""",
    # REPLACE deletes without asking the trigger above.
    """CREATE TRIGGER IF NOT EXISTS audit_in_order BEFORE INSERT ON audit
       WHEN NEW.id <> (SELECT coalesce(max(id), 0) + 1 FROM audit)
       BEGIN SELECT RAISE(ABORT, 'audit entries are numbered without gaps'); END""",
    """CREATE TRIGGER IF NOT EXISTS audit_heads_no_update BEFORE UPDATE ON audit_heads
       BEGIN SELECT RAISE(ABORT, 'a signed head is never changed'); END""",
    """CREATE TRIGGER IF NOT EXISTS audit_heads_no_delete BEFORE DELETE ON audit_heads
       BEGIN SELECT RAISE(ABORT, 'a signed head is never deleted'); END""",
)


def guard(connection: Connection) -> None:
    """Make the triggers that refuse changes, where they are missing."""
    for trigger in _TRIGGERS:
        connection.exec_driver_sql(trigger)
