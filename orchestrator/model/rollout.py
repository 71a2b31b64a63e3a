"""A rollout and its stages: where they stand. The plan is in ``plan``."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from orchestrator.model.failure import failure_key
from orchestrator.model.plan import RolloutSpec
from protocol.states import State


class RolloutState(StrEnum):
    """Design, section 7."""

    DRAFT = "draft"
    AWAITING_APPROVAL = "awaiting_approval"
    SCHEDULED = "scheduled"
    RUNNING = "running"
    PAUSED = "paused"
    HALTED = "halted"
    ABORTED = "aborted"
    COMPLETED = "completed"


ENDED = frozenset({RolloutState.ABORTED, RolloutState.COMPLETED})
"""Nothing undoes these."""


class StageState(StrEnum):
    """Where one stage stands."""

    PENDING = "pending"
    OPEN = "open"
    SOAKING = "soaking"
    AWAITING_APPROVAL = "awaiting_approval"
    PASSED = "passed"


BEGUN = frozenset(StageState) - {StageState.PENDING}
"""Stages whose devices may be offered; one may pass with devices still waiting."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollout:
    """One row of ``rollouts``.

    Attributes:
        ended_at: When no member could move any more; an aborted rollout may still have devices that roll back.
        version: Rises with every change; who orders something may name the one that was looked at.
        timed_from: When it went on last: time limits of devices are counted from here at the earliest.
        wants_revert: A rule halted it, and those that it updated are still to go back.
        acknowledged: Stage -> counter -> what a person has seen when resuming from a halt; rules are judged on what
            came after.
    """

    id: str
    release: str
    state: RolloutState
    spec: RolloutSpec
    created_at: datetime
    reason: str = ""
    started_at: datetime | None = None
    ended_at: datetime | None = None
    announcement_expires: datetime | None = None
    offers_made: int = 0
    pace_credit: float = 0.0
    pace_at: datetime | None = None
    halts: int = 0
    version: int = 1
    submitted_by: str = ""
    approved_by: str = ""
    timed_from: datetime | None = None
    wants_revert: bool = False
    acknowledged: dict[int, dict[str, int]] = field(default_factory=dict)

    @classmethod
    def from_row(cls, row: Mapping[Any, Any], spec: RolloutSpec | None = None) -> "Rollout":
        """Read a row's mapping.

        Args:
            spec: What the row's ``spec`` says, where it was read before.
        """
        return cls(
            id=row["id"],
            release=row["release"],
            state=RolloutState(row["state"]),
            spec=spec or RolloutSpec.model_validate(row["spec"]),
            created_at=row["created_at"],
            reason=row["reason"],
            started_at=row["started_at"],
            ended_at=row["ended_at"],
            announcement_expires=row["announcement_expires"],
            offers_made=row["offers_made"],
            pace_credit=row["pace_credit"],
            pace_at=row["pace_at"],
            halts=row["halts"],
            version=row["version"],
            submitted_by=row["submitted_by"],
            approved_by=row["approved_by"],
            timed_from=row["timed_from"],
            wants_revert=row["wants_revert"],
            acknowledged={int(stage): _seen(seen) for stage, seen in row["acknowledged"].items()},
        )


def _seen(stored: Mapping[str, int] | Sequence[int]) -> dict[str, int]:
    """What was acknowledged; earlier versions stored (failed, finished)."""
    if isinstance(stored, Mapping):
        return dict(stored)
    failed, finished = stored
    return {failure_key(State.FAILED, None): failed, f"state:{State.SUCCEEDED}": finished - failed}


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One row of ``stages``."""

    rollout: str
    position: int
    name: str
    state: StageState = StageState.PENDING
    members: int = 0
    opened_at: datetime | None = None
    soaking_since: datetime | None = None
    passed_at: datetime | None = None

    @classmethod
    def from_row(cls, row: Mapping[Any, Any]) -> "Stage":
        """Read a row's mapping."""
        return cls(
            rollout=row["rollout"],
            position=row["position"],
            name=row["name"],
            state=StageState(row["state"]),
            members=row["members"],
            opened_at=row["opened_at"],
            soaking_since=row["soaking_since"],
            passed_at=row["passed_at"],
        )
