"""Tables of brokers and what each of them still lacks; ``tables.py`` says what holds for all."""

from sqlalchemy import Column, Integer, String, Table

from orchestrator.storage import tables
from orchestrator.storage.tables import Instant

metadata = tables.metadata

brokers = Table(
    "brokers",
    metadata,
    Column("name", String(64), primary_key=True),  # those that serve was started with last
)

behind = Table(
    "behind",
    metadata,
    Column("broker", String(64), primary_key=True),
    Column("release", String(140), primary_key=True),  # was to be published on this broker and is not complete there
    Column("since", Instant, nullable=False),
)

removals = Table(
    "removals",
    metadata,
    # What was cleared on a broker, in the order of its publishing: a broker that comes back older has it again.
    Column("broker", String(64), primary_key=True),
    Column("serial", Integer, primary_key=True),
    Column("topic", String, nullable=False),
    Column("kind", String(32), nullable=False),
    Column("at", Instant, nullable=False),
)

expelled = Table(
    "expelled",
    metadata,
    # Closed devices that one broker keeps out while others have not confirmed it yet.
    Column("device", String(64), primary_key=True),
    Column("broker", String(64), primary_key=True),
)
