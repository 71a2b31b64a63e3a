"""A device as the orchestrator knows it."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime
from enum import StrEnum
from typing import Any


class DeviceState(StrEnum):
    """Whether a device takes part."""

    ENROLLED = "enrolled"
    REVOKED = "revoked"
    RETIRED = "retired"


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """One row of ``devices``, without what belongs to ingest alone.

    Attributes:
        heard_at: The newest signed report, or enrolment.
        silent: Nothing signed came for too long, while ingest listened.
        stale_since: Since when the device says that its trust ran out: it may be cut off.
        duplicate_since: Since when two live devices speak under this id; nothing is offered until a person clears it.
        closed_at, closed_reason: When and why it was revoked or retired.
        session_ended_at: When it was seen that the broker refuses its certificates and ended its session.
    """

    id: str
    product: str
    hardware: str
    components: dict[str, str] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    state: str = DeviceState.ENROLLED
    certificate_serial: str = ""
    enrolled_at: datetime | None = None
    online: bool = False
    last_seen: datetime | None = None
    stale_since: datetime | None = None
    refusals: list[dict[str, Any]] = field(default_factory=list)
    heard_at: datetime | None = None
    silent: bool = False
    duplicate_since: datetime | None = None
    closed_at: datetime | None = None
    closed_reason: str = ""
    session_ended_at: datetime | None = None

    @classmethod
    def from_row(cls, row: Mapping[Any, Any]) -> "Device":
        """Read a row's mapping."""
        return cls(**{name: row[name] for name in FIELDS})

    @property
    def silent_since(self) -> datetime | None:
        """Since when nothing was heard of it; None where it is not silent."""
        return self.heard_at if self.silent else None


@dataclass(frozen=True, slots=True)
class Dropped:
    """What came in a device's name and was not taken in: a forgery, a replay, or a device that is out of order.

    Attributes:
        reason: An error code, or a word of ingest's own.
        count: How many messages, for whatever reason, since ``serve`` was started.
        last: When the newest came; ``reason`` and ``detail`` are its.
    """

    reason: str
    detail: str
    count: int
    last: datetime


FIELDS = tuple(f.name for f in fields(Device))
