"""Every table. The database is the truth; the broker is a cache of what stands here.

Times are aware UTC datetimes stored as RFC 3339 text; JSON columns hold what pydantic models dump.
"""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    Boolean,
    CheckConstraint,
    Column,
    Float,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    TypeDecorator,
    text,
)

from orchestrator.storage.conditions import ASKS, AT_WORK, FAILED, GRANTED, HELD, NEXT, UNSETTLED, UNTOUCHED

metadata = MetaData()


class Instant(TypeDecorator[datetime]):
    """An aware UTC datetime, stored as sortable text with microseconds."""

    impl = String(27)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Any) -> str | None:  # noqa: ARG002, ANN401
        """Write UTC."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a stored time needs a zone")
        return value.astimezone(UTC).isoformat(timespec="microseconds")[:26] + "Z"  # strftime costs four times as much

    def process_result_value(self, value: str | None, dialect: Any) -> datetime | None:  # noqa: ARG002, ANN401
        """Read UTC."""
        return None if value is None else datetime.fromisoformat(value)


settings = Table(
    "settings",
    metadata,
    Column("key", String, primary_key=True),
    Column("value", String, nullable=False),
)

devices = Table(
    "devices",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("product", String(64), nullable=False),
    Column("hardware", String(64), nullable=False),
    Column("components", JSON, nullable=False, default=dict),  # component -> version, as last reported
    Column("labels", JSON, nullable=False, default=dict),
    Column("report_key", JSON, nullable=False),  # securesystemslib Key.to_dict() plus "keyid"
    Column("content_key", String(44), nullable=False),  # X25519, base64
    Column("certificate_serial", String, nullable=False),
    Column("state", String(16), nullable=False, default="enrolled"),  # enrolled | revoked | retired
    Column("enrolled_at", Instant, nullable=False),
    Column("session", Integer, nullable=False, default=0),  # order of the newest signed report
    Column("seq", Integer, nullable=False, default=0),
    Column("online", Boolean, nullable=False, default=False),
    Column("presence_session", Integer, nullable=False, default=0),
    Column("last_seen", Instant),
    Column("stale_since", Instant),  # the device's trust ran out: it may be cut off
    Column("refusals", JSON, nullable=False, default=list),  # [protocol.reports.Refusal], newest last
    Column("heard_at", Instant),  # the newest signed report, or enrolment: from here silence is counted
    Column("silent", Boolean, nullable=False, default=False),
    Column("duplicate_since", Instant),  # two live devices under this id: no offers until a person clears it
    Column("instances", JSON, nullable=False, default=dict),  # model.duplicates.Instances
    Column("closed_at", Instant),  # when it was revoked or retired
    Column("closed_reason", String, nullable=False, default=""),
    Column("session_ended_at", Instant),  # when its session was seen to be ended, and its certificates refused
    Index("devices_falling_silent", "heard_at", sqlite_where=text("state = 'enrolled' AND silent = 0")),
    Index("devices_silent", "id", sqlite_where=text("state = 'enrolled' AND silent = 1")),
    Index("devices_stale", "id", sqlite_where=text("state = 'enrolled' AND stale_since IS NOT NULL")),
    Index("devices_duplicate", "id", sqlite_where=text("state = 'enrolled' AND duplicate_since IS NOT NULL")),
    Index("devices_closed", "closed_at", sqlite_where=text("closed_at IS NOT NULL")),
    Index("devices_to_expel", "closed_at", sqlite_where=text("state <> 'enrolled' AND session_ended_at IS NULL")),
    CheckConstraint(
        "length(id) BETWEEN 1 AND 64 AND id NOT LIKE '%/%' AND id NOT LIKE '%+%' AND id NOT LIKE '%#%'",
        name="device_id_charset",
    ),
)

certificates = Table(
    "certificates",
    metadata,
    # Every certificate that a device was ever given: revoking it revokes all of them.
    Column("serial", String(40), primary_key=True),  # hex
    Column("device", String(64), nullable=False),
    Column("revoked_at", Instant),
    Index("certificates_by_device", "device"),
    Index("certificates_revoked", "revoked_at", sqlite_where=text("revoked_at IS NOT NULL")),
)

groups = Table(
    "groups",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("created_at", Instant, nullable=False),
)

group_members = Table(
    "group_members",
    metadata,
    Column("group_name", String(64), primary_key=True),
    Column("device", String(64), primary_key=True),
    Index("group_members_by_device", "device"),
)

releases = Table(
    "releases",
    metadata,
    Column("id", String(140), primary_key=True),  # product/version
    Column("product", String(64), nullable=False),
    Column("version", String(64), nullable=False),
    Column("component", String(64), nullable=False),
    Column("path", String(160), nullable=False, unique=True),
    Column("length", Integer, nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("counter", Integer, nullable=False),
    Column("info", JSON, nullable=False),  # ReleaseInfo
    Column("wrapped_key", LargeBinary, nullable=False),  # CEK, HPKE to the signer
    Column("image_bytes", Integer, nullable=False),
    Column("chunk_bytes", Integer, nullable=False),  # ciphertext, pieces of the manifest included
    Column("published_bytes", Integer, nullable=False, default=0),  # of them sent to the broker for this release
    Column("state", String(16), nullable=False),  # importing | published | withdrawn
    Column("imported_at", Instant, nullable=False),
)

release_chunks = Table(
    "release_chunks",
    metadata,
    Column("release", String(140), primary_key=True),
    Column("cid", String(64), primary_key=True),
    Column("length", Integer, nullable=False),
    Index("release_chunks_by_cid", "cid"),
)

rollouts = Table(
    "rollouts",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("release", String(140), nullable=False),
    Column("state", String(20), nullable=False),  # model.rollout.RolloutState
    Column("spec", JSON, nullable=False),  # model.rollout.RolloutSpec
    Column("reason", String, nullable=False, default=""),
    Column("created_at", Instant, nullable=False),
    Column("started_at", Instant),
    Column("ended_at", Instant),
    Column("announcement_expires", Instant),
    Column("offers_made", Integer, nullable=False, default=0),
    Column("pace_credit", Float, nullable=False, default=0.0),
    Column("pace_at", Instant),
    Column("version", Integer, nullable=False, default=1),
    Column("halts", Integer, nullable=False, default=0),  # how often it was halted or aborted
    # stage -> counter -> what the person has seen who resumed from a halt
    Column("acknowledged", JSON, nullable=False, default=dict),
    Column("submitted_by", String(64), nullable=False, default="", server_default=""),
    Column("approved_by", String(64), nullable=False, default="", server_default=""),
    Column(
        "wants_revert", Boolean, nullable=False, default=False, server_default="0"
    ),  # a rule halted: devices go back
    Column("timed_from", Instant),  # when it went on last: time limits count from here at the earliest
)

stages = Table(
    "stages",
    metadata,
    Column("rollout", String(64), primary_key=True),
    Column("position", Integer, primary_key=True),
    Column("name", String(64), nullable=False),
    Column("state", String(20), nullable=False),  # pending | open | soaking | passed
    Column("members", Integer, nullable=False, default=0),
    Column("opened_at", Instant),
    Column("soaking_since", Instant),
    Column("passed_at", Instant),
)

assignments = Table(
    "assignments",
    metadata,
    Column("rollout", String(64), primary_key=True),
    Column("device", String(64), primary_key=True),
    Column("stage", Integer, nullable=False),
    Column("attempt", Integer, nullable=False, default=1),
    Column("place", Float, nullable=False),  # random order inside the stage
    # "pending" (never offered), "offered" (no state report yet) or a protocol State
    Column("state", String(20), nullable=False, default="pending"),
    Column("ready", Boolean, nullable=False, default=False),  # pending and said so
    Column("asking", Boolean, nullable=False, default=False),  # asked for an activate grant, not answered yet
    Column("phase", String(16)),
    Column("reasons", JSON, nullable=False, default=list),  # [Reason]
    Column("nonce", String(64)),  # of the newest report; what heard names
    Column("grant", String(16), nullable=False, default="none"),  # none | download | activate | closed
    Column("grant_nonce", String(64)),
    Column("close_reason", String, nullable=False, default=""),
    Column("outcome_digest", String(64)),
    Column("code", String(32)),
    Column("detail", String, nullable=False, default=""),
    Column("log", String, nullable=False, default=""),
    Column("from_version", String(64)),
    Column("running_version", String(64)),
    Column("resumed", Boolean, nullable=False, default=False),
    Column("percent", Float, nullable=False, default=0.0),
    Column("bytes_fetched", Integer, nullable=False, default=0),
    Column("bytes_copied", Integer, nullable=False, default=0, server_default="0"),
    Column("bytes_delta", Integer, nullable=False, default=0, server_default="0"),
    Column("bytes_present", Integer, nullable=False, default=0, server_default="0"),
    Column("bytes_total", Integer, nullable=False, default=0, server_default="0"),
    Column("rate_bytes_s", Float, nullable=False, default=0.0, server_default="0"),
    Column("offered_at", Instant),
    Column("offer_expires", Instant),
    Column("updated_at", Instant),
    Column("site", String(64), nullable=False, default="", server_default=""),  # the label, when it was placed
    Column("scopes", JSON, nullable=False, default=list, server_default="[]"),  # whose permits an activation needs
    Column("settled", Boolean, nullable=False, default=True, server_default="1"),  # False: failed, not judged yet
    Column("verdict", String(32), nullable=False, default="", server_default=""),  # for want of an outcome
    Column("held_by", String(140), nullable=False, default="", server_default=""),  # what keeps it from its turn
    Column("not_before", Instant),  # when that is looked at again
    Column("retried", JSON, nullable=False, default=dict, server_default="{}"),  # failure class -> times
    Column("work", String(16), nullable=False, default="", server_default=""),  # model.assignment.Work
    Column("work_since", Instant),
    Column("grant_until", Instant),  # an activate grant that was not used has surely ended then
    Index("assignments_by_device", "device"),
    Index("assignments_next", "rollout", "stage", "place", sqlite_where=text(NEXT)),
    Index("assignments_asks", "rollout", "device", sqlite_where=text(ASKS)),
    Index("assignments_unsettled", "rollout", "device", sqlite_where=text(UNSETTLED)),
    Index("assignments_held", "rollout", "not_before", sqlite_where=text(HELD)),
    Index("assignments_held_by", "rollout", "held_by", sqlite_where=text(HELD)),
    Index("assignments_at_work", "rollout", "work", "work_since", sqlite_where=text(AT_WORK)),
    Index("assignments_granted", "rollout", "grant_until", sqlite_where=text(GRANTED)),
    Index("assignments_failed", "rollout", "device", sqlite_where=text(FAILED)),
    Index("assignments_untouched", "rollout", "stage", "device", sqlite_where=text(UNTOUCHED)),
    Index("assignments_by_expiry", "offer_expires"),
    Index("assignments_open_offers", "rollout", "grant", "offer_expires"),
)

counts = Table(
    "counts",
    metadata,
    Column("rollout", String(64), primary_key=True),
    Column("stage", Integer, primary_key=True),
    Column("key", String(64), primary_key=True),  # model.assignment.count_keys
    Column("n", Integer, nullable=False),
)

dirty = Table(
    "dirty",
    metadata,
    # A protocol.topics.Kind name and its values joined by "/": what must be rendered and published again, and where.
    Column("kind", String(32), primary_key=True),
    Column("key", String(140), primary_key=True),
    Column("broker", String(64), primary_key=True),
    Column("since", Instant, nullable=False),
    Index("dirty_by_since", "broker", "kind", "since"),
)

published = Table(
    "published",
    metadata,
    Column("broker", String(64), primary_key=True),
    Column("topic", String, primary_key=True),
    Column("kind", String(32), nullable=False),
    Column("serial", Integer, nullable=False),  # order of publishing on this broker
    Column("epoch", Integer, nullable=False, default=0),
    Column("seq", Integer, nullable=False, default=0),
    Column("digest", String(64), nullable=False),
    Column("payload", LargeBinary),  # verbatim; NULL for chunks, which stand in the chunk store
    Column("expires", Instant),  # when the topic may be cleared, once it is no longer wanted
    Column("since", Instant),  # of the mark that it was signed for; NULL for what is not signed
    Index("published_by_serial", "broker", "serial"),
    Index("published_by_expiry", "broker", "expires"),
)

events = Table(
    "events",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("at", Instant, nullable=False),
    Column("kind", String(40), nullable=False),
    Column("actor", String(64), nullable=False, default="engine"),
    Column("rollout", String(64), nullable=False, default=""),
    Column("device", String(64), nullable=False, default=""),
    Column("text", String, nullable=False),
    Column("data", JSON, nullable=False, default=dict),
    Index("events_by_rollout", "rollout", "id"),
    Index("events_by_device", "device", "id"),
)
