"""Tables that the engine keeps for itself; ``tables.py`` says what holds for all."""

from sqlalchemy import Column, Index, Integer, String, Table, text

from orchestrator.storage import tables
from orchestrator.storage.tables import Instant

metadata = tables.metadata

newcomers = Table(
    "newcomers",
    metadata,
    # Devices that came or changed, until dynamic rollouts have looked at them.
    Column("device", String(64), primary_key=True),
)

scope_counts = Table(
    "scope_counts",
    metadata,
    # Devices by scope of a permit: how many hold one, how many wait for one.
    Column("scope", String(140), primary_key=True),
    Column("rollout", String(64), primary_key=True),
    Column("held", Integer, nullable=False, default=0),
    Column("waiting", Integer, nullable=False, default=0),
    Index("scope_counts_waiting", "rollout", "scope", sqlite_where=text("waiting > 0")),
)

site_offers = Table(
    "site_offers",
    metadata,
    # Offers of the last hour by site, for the budget of bytes.
    Column("rollout", String(64), primary_key=True),
    Column("site", String(64), primary_key=True),
    Column("at", Instant, primary_key=True),
    Column("offers", Integer, nullable=False),
)
