"""Tables of claims, requests under them, and certificates on their way; ``tables.py`` says what holds for all."""

from sqlalchemy import JSON, Boolean, Column, Index, Integer, String, Table

from orchestrator.storage import tables
from orchestrator.storage.tables import Instant

metadata = tables.metadata

claims = Table(
    "claims",
    metadata,
    Column("name", String(64), primary_key=True),  # the certificate's CN, "claim.NAME"
    Column("state", String(16), nullable=False, default="open"),  # open | revoked
    Column("certificate_serial", String, nullable=False),
    Column("approval", String(8), nullable=False),  # auto | manual
    Column("any_product", String(64)),  # with any_hardware: serials that are not listed come in as such
    Column("any_hardware", String(64)),
    Column("per_minute", Integer, nullable=False),  # requests that are looked at
    Column("created_at", Instant, nullable=False),
    Column("expires", Instant, nullable=False),
)

# What is expected under a claim, by serial: a certificate's subject comes from here, never from a request.
expected_devices = Table(
    "expected_devices",
    metadata,
    Column("serial", String(64), primary_key=True),
    Column("claim", String(64), nullable=False),
    Column("device", String(64), nullable=False, unique=True),
    Column("product", String(64), nullable=False),
    Column("hardware", String(64), nullable=False),
    Column("labels", JSON, nullable=False, default=dict),
    Index("expected_devices_by_claim", "claim"),
)

# Requests under a claim that were not refused out of hand, by report key: pending, issued or rejected.
enrolments = Table(
    "enrolments",
    metadata,
    Column("id", String(20), primary_key=True),
    Column("keyid", String(64), nullable=False, unique=True),
    Column("claim", String(64), nullable=False),
    Column("serial", String(64), nullable=False),
    Column("device", String(64), nullable=False),
    Column("product", String(64), nullable=False),
    Column("hardware", String(64), nullable=False),
    Column("labels", JSON, nullable=False, default=dict),
    Column("comes_back", Boolean, nullable=False, default=False),  # proved with the former report key
    Column("csr", String, nullable=False),
    Column("content_key", String(44), nullable=False),
    Column("state", String(16), nullable=False),  # pending | issued | rejected
    Column("reason", String, nullable=False, default=""),
    Column("certificate", String, nullable=False, default=""),
    Column("asked_at", Instant, nullable=False),
    Column("decided_at", Instant),
    Index("enrolments_by_state", "state", "asked_at"),
    Index("enrolments_by_claim", "claim", "state"),
)

# A certificate for new keys that the device was not heard under yet; its reports hold under old and new keys meanwhile.
renewals = Table(
    "renewals",
    metadata,
    Column("device", String(64), primary_key=True),
    Column("digest", String(64), nullable=False),  # of the request's payload
    Column("session", Integer, nullable=False),
    Column("seq", Integer, nullable=False),
    Column("report_key", JSON, nullable=False),
    Column("content_key", String(44), nullable=False),
    Column("certificate", String, nullable=False),
    Column("certificate_serial", String, nullable=False),
    Column("expires", Instant, nullable=False),
    Column("issued_at", Instant, nullable=False),
)
