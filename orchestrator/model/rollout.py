"""A rollout: its plan as the operator gave it, and where it stands."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from itertools import pairwise
from typing import Annotated, Any, Self

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, model_validator

from orchestrator.errors import UsageError
from orchestrator.model.selector import Selector
from protocol.identifiers import IdText, ReleaseName
from protocol.manifest import Policy

MAX_STAGES = 32
MAX_SOAK_S = 365 * 86_400
MIN_PACE, MAX_PACE = 0.0001, 1e6
"""Offers per minute: from one a week to more than a broker takes. Beyond it instants would leave the calendar."""
MAX_SAMPLE = 10**9
Ratio = Annotated[float, Field(gt=0, le=1)]
Sample = Annotated[int, Field(ge=1, le=MAX_SAMPLE)]


class RolloutState(StrEnum):
    """Design, section 7."""

    DRAFT = "draft"
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
    PASSED = "passed"


BEGUN = frozenset(StageState) - {StageState.PENDING}
"""Stages whose devices may be offered; one may pass with devices still waiting."""


def _selector(text: str) -> str:
    try:
        return str(Selector.parse(text))
    except UsageError as error:
        raise ValueError(str(error)) from error


def _release(text: str) -> str:
    return str(ReleaseName.parse(text))


SelectorText = Annotated[str, AfterValidator(_selector)]
ReleaseText = Annotated[str, Field(max_length=140), AfterValidator(_release)]


class _Plan(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Members(_Plan):
    """Who takes part: a group, a selector, both (then both must hold), or every device that the release fits."""

    group: IdText | None = None
    selector: SelectorText | None = None


class StageSpec(_Plan):
    """One slice: exactly one of the three.

    Attributes:
        percent: Up to this share of the rollout's members, those of earlier stages included.
    """

    name: IdText
    group: IdText | None = None
    selector: SelectorText | None = None
    percent: Annotated[float, Field(gt=0, le=100)] | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        if sum(value is not None for value in (self.group, self.selector, self.percent)) != 1:
            raise ValueError(f"stage {self.name}: expected one of group, selector or percent")
        return self


class RolloutSpec(_Plan):
    """The plan. Ratios are shares of finished devices of a stage; samples are capped to the stage's members.

    Attributes:
        min_sample: Finished devices before the success rule is judged.
        soak_s: How long the success rule must hold before the next stage opens.
        halt_ratio: Share of finished devices whose failure halts.
        halt_count: Failures in the whole rollout that halt.
        pace_per_minute: Offers per minute; None is as fast as devices are ready.
    """

    release: ReleaseText
    members: Members = Members()
    stages: Annotated[list[StageSpec], Field(min_length=1, max_length=MAX_STAGES)]
    success_ratio: Ratio = 0.95
    min_sample: Sample = 1
    soak_s: Annotated[float, Field(ge=0, le=MAX_SOAK_S)] = 0
    halt_ratio: Ratio = 0.1
    halt_min_sample: Sample = 3
    halt_count: Sample | None = None
    pace_per_minute: Annotated[float, Field(ge=MIN_PACE, le=MAX_PACE)] | None = None
    start_at: AwareDatetime | None = None
    policy: Policy = Policy()

    @model_validator(mode="after")
    def _adds_up(self) -> Self:
        names = [stage.name for stage in self.stages]
        if len(set(names)) != len(names):
            raise ValueError(f"stages {', '.join(names)}: two have one name; give each its own")
        shares = [(stage.name, stage.percent) for stage in self.stages if stage.percent is not None]
        for (_, former), (name, share) in pairwise(shares):
            if share <= former:
                raise ValueError(
                    f"stage {name}: {share:g}% does not add to the {former:g}% before it; "
                    "percentages are shares of all members so far and must rise"
                )
        last = self.stages[-1]
        if last.percent is not None and last.percent != 100:
            raise ValueError(
                f"stage {last.name}: percentages add up to {last.percent:g}%, expected 100%; end with a stage of 100%"
            )
        return self


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollout:
    """One row of ``rollouts``.

    Attributes:
        ended_at: When no member could move any more; an aborted rollout may still have devices that roll back.
        acknowledged: Stage -> [failed, finished] that a person has seen when resuming from a halt; rules are judged
            on what came after.
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
    acknowledged: dict[int, tuple[int, int]] = field(default_factory=dict)

    @classmethod
    def from_row(cls, row: Mapping[Any, Any]) -> "Rollout":
        """Read a row's mapping."""
        return cls(
            id=row["id"],
            release=row["release"],
            state=RolloutState(row["state"]),
            spec=RolloutSpec.model_validate(row["spec"]),
            created_at=row["created_at"],
            reason=row["reason"],
            started_at=row["started_at"],
            ended_at=row["ended_at"],
            announcement_expires=row["announcement_expires"],
            offers_made=row["offers_made"],
            pace_credit=row["pace_credit"],
            pace_at=row["pace_at"],
            halts=row["halts"],
            acknowledged={int(stage): (seen[0], seen[1]) for stage, seen in row["acknowledged"].items()},
        )


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
