"""The plan of a rollout as an operator gives it: members, stages, rules, pace, time. Every knob stands here.

What cannot work is refused when the plan is read: the sentence names the place, what was expected and what was found.
What needs the fleet or the release to be judged (an empty stage, a budget below the image) is refused at creation.
"""

from datetime import timedelta
from enum import StrEnum
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, model_validator

from orchestrator.errors import UsageError
from orchestrator.model.failure import DEFAULT_CLASSES, RETRIABLE, FailureClass
from orchestrator.model.plan_checks import check_growth, check_limits, check_stages
from orchestrator.model.selector import Selector
from orchestrator.model.units import Bytes, Ratio, Seconds
from protocol.identifiers import IdText, ReleaseName
from protocol.manifest import Policy

MAX_STAGES = 500
MAX_LISTED = 10_000
MAX_RULES = 32
MAX_LIMITS = 16
MIN_PACE, MAX_PACE = 0.0001, 1e6
"""Offers per minute: from one a week to more than a broker takes. Beyond it instants would leave the calendar."""
MAX_SAMPLE = 10**9
HALT_SAMPLE = 3
MAX_RETRIES = 10
MAX_WEIGHT = 1000
MAX_TERM = timedelta(days=365)
"""The longest between start and end."""
Sample = Annotated[int, Field(ge=1, le=MAX_SAMPLE)]
Pace = Annotated[float, Field(ge=MIN_PACE, le=MAX_PACE)]
Wait = Annotated[Seconds, Field(ge=1)]


def _selector(text: str) -> str:
    try:
        return str(Selector.parse(text))
    except UsageError as error:
        raise ValueError(str(error)) from error


def _release(text: str) -> str:
    return str(ReleaseName.parse(text))


SelectorText = Annotated[str, AfterValidator(_selector)]
ReleaseText = Annotated[str, Field(max_length=140), AfterValidator(_release)]
DeviceList = Annotated[tuple[IdText, ...], Field(min_length=1, max_length=MAX_LISTED)]


class _Plan(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class AtEnd(StrEnum):
    """What happens at ``end_at``."""

    STOP = "stop"
    HALT = "halt"
    ABORT = "abort"


class OnHalt(StrEnum):
    """What becomes of devices that were updated when a rule halts."""

    KEEP = "keep"
    REVERT = "revert"


class Members(_Plan):
    """Who takes part: what is named must all hold; nothing named is every device that the release fits.

    Attributes:
        dynamic: Devices that come to fit later enter the last open stage, under the same pace; needs ``end_at``.
        reverts: Devices that this rollout updated, and that ran the plan's release before.
        unhealthy: With ``reverts``: instead those that it left inconsistent, or that took too long or fell silent.
    """

    group: IdText | None = None
    selector: SelectorText | None = None
    devices: DeviceList | None = None
    dynamic: bool = False
    reverts: IdText | None = None
    unhealthy: bool = False

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.unhealthy and self.reverts is None:
            raise ValueError("members.unhealthy: is for reverts, which names no rollout")
        return self


class HaltRule(_Plan):
    """Halts when too many failed.

    Attributes:
        classes: Which failures count; all but ``declined`` unless named.
        ratio: Share of finished devices; judged once ``min_sample`` of them are finished, 3 unless said.
        count: Devices, whatever the share.
        scope: Each stage by itself, or the rollout as a whole.
    """

    classes: frozenset[FailureClass] = DEFAULT_CLASSES
    ratio: Ratio | None = None
    min_sample: Sample | None = None
    count: Sample | None = None
    scope: Literal["stage", "rollout"] = "stage"

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.ratio is None) == (self.count is None):
            raise ValueError("a halt rule has a ratio or a count, one of the two")
        if not self.classes:
            raise ValueError("a halt rule of no failure class can never halt; leave classes out to mean all")
        if self.count is not None and self.min_sample is not None:
            raise ValueError("min_sample is for a ratio; a count halts as soon as it is reached")
        return self


class StageSpec(_Plan):
    """One slice: exactly one of group, selector, percent and devices. What else is named counts instead of the plan's.

    Attributes:
        percent: Up to this share of the rollout's members, those of earlier stages included.
        approval: A person opens the next stage, with ``promote``, once this one has met its rule.
        halt_rules: In addition to those of the plan.
    """

    name: IdText
    group: IdText | None = None
    selector: SelectorText | None = None
    percent: Annotated[float, Field(gt=0, le=100)] | None = None
    devices: DeviceList | None = None
    success_ratio: Ratio | None = None
    min_sample: Sample | None = None
    soak_s: Seconds | None = None
    approval: bool | None = None
    halt_rules: Annotated[tuple[HaltRule, ...], Field(max_length=MAX_RULES)] = ()

    @model_validator(mode="after")
    def _one(self) -> Self:
        if sum(value is not None for value in (self.group, self.selector, self.percent, self.devices)) != 1:
            raise ValueError(f"stage {self.name}: expected one of group, selector, percent or devices")
        if any(rule.scope == "rollout" for rule in self.halt_rules):
            raise ValueError(f"stage {self.name}: a rule of a stage has the scope stage")
        return self


class Growth(_Plan):
    """The pace rises: by ``factor`` for every ``every`` devices, up to ``max_per_minute``."""

    factor: Annotated[float, Field(gt=1, le=100)]
    every: Annotated[int, Field(ge=1, le=10**9)]
    of: Literal["succeeded", "offered"] = "succeeded"
    max_per_minute: Pace


class UnavailableLimit(_Plan):
    """At most ``count`` devices with one value of a label (or of a group) are between activating and verified."""

    label: IdText | None = None
    group: IdText | None = None
    count: Annotated[int, Field(ge=1, le=10**6)]

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.label is None) == (self.group is None):
            raise ValueError("max_unavailable has a label or a group, one of the two")
        return self


class Timeouts(_Plan):
    """How long a device may take before it counts as ``timed_out``; None is for ever.

    Attributes:
        queued_s: Offered, and waiting to download or to install.
        installing_s: Until it verifies, waits before the activation not counted.
    """

    queued_s: Wait | None = None
    downloading_s: Wait | None = None
    installing_s: Wait | None = None
    verifying_s: Wait | None = None


class Retry(_Plan):
    """How often a device tries again by itself after a failure of one class, and after how long."""

    times: Annotated[int, Field(ge=1, le=MAX_RETRIES)]
    backoff_s: Seconds = 600
    factor: Annotated[float, Field(ge=1, le=10)] = 2
    max_backoff_s: Seconds = 86_400


class Opening(NamedTuple):
    """What a stage must come to before the next one opens."""

    success_ratio: float
    min_sample: int
    soak_s: float
    approval: bool


class RolloutSpec(_Plan):
    """The plan. Ratios are shares of finished devices of a stage; samples are capped to the stage's members.

    Attributes:
        min_sample: Finished devices before the success rule is judged.
        soak_s: How long the success rule must hold before the next stage opens.
        halt_ratio: Share of finished devices whose failure halts.
        halt_count: Failures in the whole rollout that halt.
        pace_per_minute: Offers per minute; None is as fast as devices are ready.
        site_bytes_per_hour: Image bytes offered within any hour to devices with one value of the label ``site``.
        max_unavailable: On activation, over all rollouts that name the label value or group.
        at_end: With ``end_at``. ``stop``: no new offers, devices that have one go on, the others expire.
        retries: By failure class.
        weight: Of two rollouts for one device the heavier goes first; it preempts what has not begun to install.
        emergency: Above every weight; skips soak, approvals of stages and the rollout's windows. Never a signature,
            nor what a device itself demands.
        needs_approval: Another person than who submitted it approves it before it may start.
    """

    release: ReleaseText
    members: Members = Members()
    stages: Annotated[list[StageSpec], Field(min_length=1, max_length=MAX_STAGES)]
    success_ratio: Ratio = 0.95
    min_sample: Sample = 1
    soak_s: Seconds = 0
    approval: bool = False
    halt_ratio: Ratio = 0.1
    halt_min_sample: Sample = HALT_SAMPLE
    halt_count: Sample | None = None
    halt_rules: Annotated[tuple[HaltRule, ...], Field(max_length=MAX_RULES)] = ()
    on_halt: OnHalt = OnHalt.KEEP
    pace_per_minute: Pace | None = None
    pace_growth: Growth | None = None
    site_bytes_per_hour: Bytes | None = None
    max_unavailable: Annotated[tuple[UnavailableLimit, ...], Field(max_length=MAX_LIMITS)] = ()
    start_at: AwareDatetime | None = None
    end_at: AwareDatetime | None = None
    at_end: AtEnd = AtEnd.STOP
    timeouts: Timeouts = Timeouts()
    retries: dict[FailureClass, Retry] = {}
    weight: Annotated[int, Field(ge=0, le=MAX_WEIGHT)] = 500
    emergency: bool = False
    needs_approval: bool = False
    policy: Policy = Policy()

    @property
    def rank(self) -> int:
        """What decides between two rollouts for one device; the higher one goes first."""
        return MAX_WEIGHT + 1 if self.emergency else self.weight

    def opening(self, stage: StageSpec | None = None) -> Opening:
        """What holds for a stage: its own words, else the plan's."""
        return Opening(*(_own(stage, name, getattr(self, name)) for name in Opening._fields))

    @model_validator(mode="after")
    def _adds_up(self) -> Self:
        check_stages(self.stages)
        if self.pace_growth is not None:
            check_growth(self.pace_per_minute, self.pace_growth.max_per_minute)
        for kind in self.retries:
            if kind not in RETRIABLE:
                raise ValueError(f"retries {kind}: a device that {_NEVER[kind]} is not asked to try again")
        check_limits([(limit.label, limit.group) for limit in self.max_unavailable])
        self._check_times()
        return self

    def _check_times(self) -> None:
        if self.end_at is None:
            if self.members.dynamic:
                raise ValueError("members.dynamic: needs end_at; a rollout that never ends holds its release for ever")
            if "at_end" in self.model_fields_set and self.at_end is not AtEnd.STOP:
                raise ValueError(f"at_end {self.at_end}: there is no end_at")
            return
        if self.start_at is None:
            return
        if self.end_at <= self.start_at:
            raise ValueError(f"end_at {self.end_at.isoformat()}: is not after start_at {self.start_at.isoformat()}")
        if self.end_at - self.start_at > MAX_TERM:
            raise ValueError(f"end_at {self.end_at.isoformat()}: more than {MAX_TERM.days} days after start_at")


def _own(stage: StageSpec | None, name: str, planned: Any) -> Any:  # noqa: ANN401 - a field's
    own = getattr(stage, name, None)
    return planned if own is None else own


_NEVER = {FailureClass.SILENT: "fell silent", FailureClass.DECLINED: "declined"}


def announced_policy(spec: RolloutSpec) -> Policy:
    """What devices are told: in an emergency no window of the plan; those of the release and of the device hold."""
    return spec.policy.model_copy(update={"windows": None}) if spec.emergency else spec.policy
