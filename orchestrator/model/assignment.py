"""One device's place in one rollout, and what it counts as."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from datetime import datetime
from typing import Any

from protocol.states import OUTCOMES

PENDING = "pending"
"""Never offered."""
OFFERED = "offered"
"""Offered; the device has not said a state yet. Every other state is a ``protocol.states.State``."""
EXCLUDED = "excluded"
"""Taken out of the rollout: revoked, retired, or one of two under one id. Over, and not finished: it proves nothing."""

MAX_CLOSE_REASON_CHARS = 200

Deltas = Counter[tuple[str, int, str]]
"""(rollout, stage, key) -> change of the count; may be negative."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """One row of ``assignments``; the fields are its columns.

    Attributes:
        place: Random order inside the stage.
        ready: Pending, and the device said that it is ready.
        asking: The device asked for an activate grant and was not answered yet.
        nonce: Of the newest report; what ``heard`` names.
        grant: none, download, activate or closed.
        reasons: Gates that are not open, as ``protocol.reports.Reason`` dumps them.
        percent, bytes_*, rate_bytes_s: As the device said last of its download; nothing of them falls in one attempt.
    """

    rollout: str
    device: str
    stage: int
    place: float
    attempt: int = 1
    state: str = PENDING
    ready: bool = False
    asking: bool = False
    phase: str | None = None
    reasons: list[dict[str, Any]] = field(default_factory=list)
    nonce: str | None = None
    grant: str = "none"
    grant_nonce: str | None = None
    close_reason: str = ""
    outcome_digest: str | None = None
    code: str | None = None
    detail: str = ""
    log: str = ""
    from_version: str | None = None
    running_version: str | None = None
    resumed: bool = False
    percent: float = 0.0
    bytes_fetched: int = 0
    bytes_copied: int = 0
    bytes_delta: int = 0
    bytes_present: int = 0
    bytes_total: int = 0
    rate_bytes_s: float = 0.0
    offered_at: datetime | None = None
    offer_expires: datetime | None = None
    updated_at: datetime | None = None

    @property
    def is_terminal(self) -> bool:
        """Whether the device does nothing more for this attempt."""
        return self.state in OUTCOMES or self.state == EXCLUDED

    def is_open(self, now: datetime) -> bool:
        """Whether its offer grants something now."""
        runs = self.offer_expires is None or self.offer_expires > now
        return self.grant in {"download", "activate"} and runs and not self.is_terminal

    @classmethod
    def from_row(cls, row: Mapping[Any, Any]) -> "Assignment":
        """Read a row's mapping."""
        return cls(**{name: row[name] for name in FIELDS})

    def to_row(self) -> dict[str, Any]:
        """Values by column."""
        return {name: getattr(self, name) for name in FIELDS}


FIELDS = tuple(f.name for f in fields(Assignment))
_DECIDING = frozenset({"ready", "asking", *(f"state:{state}" for state in OUTCOMES)})


def exclude(row: Assignment, why: str, now: datetime) -> Assignment:
    """Take the device out of this rollout; an offer that it has is closed with the reason."""
    return replace(
        row,
        state=EXCLUDED,
        ready=False,
        asking=False,
        reasons=[],
        grant="none" if row.offered_at is None else "closed",
        grant_nonce=None,
        close_reason=why[:MAX_CLOSE_REASON_CHARS],
        detail=why,
        updated_at=now,
    )


def count_keys(row: Assignment) -> frozenset[str]:
    """The counters in which this assignment stands: its state, and ready, asking, offered as they apply."""
    keys = {f"state:{row.state}"}
    if row.ready and row.state == PENDING:
        keys.add("ready")
    if row.asking:
        keys.add("asking")
    if row.offered_at is not None:
        keys.add("offered")
    return frozenset(keys)


def byte_sums(row: Assignment) -> dict[str, int]:
    """What this assignment adds to the sums of its stage, by key: bytes of the download by the way they came."""
    return {
        "bytes:fetched": row.bytes_fetched,
        "bytes:copied": row.bytes_copied,
        "bytes:delta": row.bytes_delta,
        "bytes:present": row.bytes_present,
    }


def deciding_keys(row: Assignment) -> frozenset[str]:
    """Those of the counters that the engine decides on: who is ready, who asks, who is done."""
    return count_keys(row) & _DECIDING


def count_deltas(before: Assignment, after: Assignment) -> Deltas:
    """How the counts change when one becomes the other; both are the same device's place."""
    if (before.rollout, before.device, before.stage) != (after.rollout, after.device, after.stage):
        raise ValueError("an assignment keeps its rollout, device and stage")
    old, new = count_keys(before), count_keys(after)
    deltas: Deltas = Counter()
    for key in new - old:
        deltas[after.rollout, after.stage, key] += 1
    for key in old - new:
        deltas[after.rollout, after.stage, key] -= 1
    was = byte_sums(before)
    for key, size in byte_sums(after).items():
        if size != was[key]:
            deltas[after.rollout, after.stage, key] += size - was[key]
    return deltas
