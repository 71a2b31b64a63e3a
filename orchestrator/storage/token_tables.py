"""The table of named tokens; ``tables.py`` says what holds for all."""

from sqlalchemy import Column, String, Table

from orchestrator.storage import tables
from orchestrator.storage.tables import Instant

tokens = Table(
    "tokens",
    tables.metadata,
    Column("name", String(64), primary_key=True),  # the actor in events
    Column("sha256", String(64), nullable=False, unique=True),  # of the token, which is kept nowhere
    Column("created_at", Instant, nullable=False),
    Column("created_by", String(64), nullable=False),
    Column("last_used_at", Instant),  # to the hour
    Column("revoked_at", Instant),
)
