"""The tables of a database file: made where they are missing, brought up to date where an earlier version made them."""

import secrets
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import bindparam, func, insert, inspect, literal_column, select, text, update
from sqlalchemy.engine import Connection
from sqlalchemy.schema import CreateColumn

from orchestrator.errors import OperationError
from orchestrator.model.assignment import Assignment, byte_sums, count_keys, moved
from orchestrator.storage import (
    audit,
    audit_tables,
    broker_tables,
    certificate_tables,
    chunk_tables,
    engine_tables,
    tables,
    token_tables,
)
from orchestrator.storage.lead import stored_epoch, writing_of

_MODULES = (broker_tables, certificate_tables, chunk_tables, engine_tables, token_tables)
"""Their tables stand in the metadata of ``tables`` from their import on."""
SCHEMA = 3
"""Rises when the tables change; a database with a higher one belongs to a newer Flagship."""
FIRST_BROKER = "main"
"""What the broker of a new database is called until ``serve`` says its name."""


def bring_up_to_date(connection: Connection, path: Path) -> str:
    """Make the tables, upgrade older ones; returns the database's id.

    Raises:
        OperationError: A newer Flagship made it.
    """
    schema = _schema(connection, path)
    if schema == 1:
        _set_aside_marks(connection)
    certificate_tables.metadata.create_all(connection)  # that of tables, with these known to it too
    _add_columns(connection)
    _add_indexes(connection)
    audit_tables.guard(connection)
    writing_of(connection).epoch = stored_epoch(connection)
    if not connection.scalar(select(func.count()).select_from(broker_tables.brokers)):
        names = set(connection.scalars(select(tables.published.c.broker).distinct())) or {FIRST_BROKER}
        connection.execute(insert(broker_tables.brokers), [{"name": name} for name in sorted(names)])
    if schema == 1:
        _take_over_marks(connection)
    found = {row.key: row.value for row in connection.execute(select(tables.settings))}
    if schema != SCHEMA:
        connection.execute(tables.settings.delete().where(tables.settings.c.key == "schema"))
        connection.execute(insert(tables.settings), {"key": "schema", "value": str(SCHEMA)})
    if "database" not in found:
        found["database"] = secrets.token_hex(8)
        connection.execute(insert(tables.settings), {"key": "database", "value": found["database"]})
    if schema in (1, 2):
        _count_anew(connection)
    if not connection.scalar(select(func.count()).select_from(audit_tables.audit)):
        audit.note_counts(connection, datetime.now(UTC), "the log begins", found["database"])
    return str(found["database"])


def _schema(connection: Connection, path: Path) -> int:
    """Which schema the file has; 0 for a new one."""
    if not inspect(connection).has_table(tables.settings.name):
        return 0
    stored = connection.scalar(select(tables.settings.c.value).where(tables.settings.c.key == "schema"))
    schema = int(stored or 1)
    if schema > SCHEMA:
        raise OperationError(
            f"database {path}: schema {schema}, this Flagship knows up to {SCHEMA}; use the newer version"
        )
    return schema


def _set_aside_marks(connection: Connection) -> None:
    """Schema 1 had one mark for all brokers."""
    connection.execute(text("DROP INDEX IF EXISTS dirty_by_since"))
    connection.execute(text("ALTER TABLE dirty RENAME TO dirty_1"))


def _take_over_marks(connection: Connection) -> None:
    former, brokers = text("dirty_1"), broker_tables.brokers
    rows = select(literal_column("kind"), literal_column("key"), brokers.c.name, literal_column("since"))
    connection.execute(
        insert(tables.dirty).from_select(["kind", "key", "broker", "since"], rows.select_from(former, brokers))
    )
    connection.execute(text("DROP TABLE dirty_1"))


def _add_columns(connection: Connection) -> None:
    """Columns that a database of an earlier version lacks; each has a default that the server knows."""
    inspector = inspect(connection)
    for table in certificate_tables.metadata.sorted_tables:
        present = {column["name"] for column in inspector.get_columns(table.name)}
        for column in table.columns:
            if column.name not in present:
                made = CreateColumn(column).compile(dialect=connection.dialect)
                connection.exec_driver_sql(f'ALTER TABLE "{table.name}" ADD COLUMN {made}')


def _add_indexes(connection: Connection) -> None:
    """Indexes that a database of an earlier version lacks."""
    inspector = inspect(connection)
    for table in certificate_tables.metadata.sorted_tables:
        present = {index["name"] for index in inspector.get_indexes(table.name)}
        for index in table.indexes:
            if index.name not in present:
                index.create(connection)


def _count_anew(connection: Connection) -> None:
    """Schema 3 counts failures by class, and knows what devices are at; nothing that is judged may be counted twice."""
    rows = connection.execute(select(tables.assignments)).mappings()
    counts: Counter[tuple[str, int, str]] = Counter()
    at_work: list[dict[str, object]] = []
    for row in rows:
        before = Assignment.from_row(row)
        after = moved(before, before.updated_at or before.offered_at or datetime.now(UTC))
        counts.update({(after.rollout, after.stage, key): 1 for key in count_keys(after)})
        counts.update({(after.rollout, after.stage, key): n for key, n in byte_sums(after).items() if n})
        if after.work:
            names = {"the_rollout": after.rollout, "the_device": after.device}
            at_work.append({**names, "the_work": str(after.work), "the_since": after.work_since})
    connection.execute(tables.counts.delete())
    if counts:
        found = [{"rollout": r, "stage": s, "key": k, "n": n} for (r, s, k), n in counts.items()]
        connection.execute(insert(tables.counts), found)
    if at_work:
        table = tables.assignments
        where = (table.c.rollout == bindparam("the_rollout"), table.c.device == bindparam("the_device"))
        values = {"work": bindparam("the_work"), "work_since": bindparam("the_since", type_=tables.Instant())}
        connection.execute(update(table).where(*where).values(values), at_work)
