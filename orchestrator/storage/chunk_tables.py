"""Tables of which release stands on which broker and how far its audit is; ``tables.py`` says what holds for all."""

from sqlalchemy import Column, Index, Integer, String, Table

from orchestrator.storage import tables
from orchestrator.storage.tables import Instant, rollouts

metadata = tables.metadata

broker_releases = Table(
    "broker_releases",
    metadata,
    # A release without a row was never looked at on that broker.
    Column("broker", String(64), primary_key=True),
    Column("release", String(140), primary_key=True),
    Column("state", String(16), nullable=False),  # held | lacking | mirrors-only | clearing | cleared
    Column("missing_bytes", Integer, nullable=False, default=0),  # that did not fit into the budget
    Column("why", String, nullable=False, default=""),  # what keeps it from being whole there
    Column("retry_at", Instant),
    Column("asked_at", Instant),  # when an operator published it last
)

chunk_audits = Table(
    "chunk_audits",
    metadata,
    Column("broker", String(64), primary_key=True),
    # Serials of what this broker may have lost: looked at first. Nothing where both are equal.
    Column("heal_after", Integer, nullable=False, default=0),
    Column("heal_up_to", Integer, nullable=False, default=0),
    Column("began_at", Instant),  # the round of everything that it holds
    Column("after", String, nullable=False, default=""),  # the last topic of the round; "" before the first
)

rollouts_by_release = Index("rollouts_by_release", rollouts.c.release)
