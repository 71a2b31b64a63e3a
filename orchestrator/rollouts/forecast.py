"""What a plan will come to, as far as figures tell: how long it takes, and what its author may not have meant. Pure."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from orchestrator.model.failure import DEFAULT_CLASSES
from orchestrator.model.plan import RolloutSpec
from orchestrator.rollouts.stage_moves import soak_s

LARGE = 10_000
"""From here on a rollout without a pace deserves a word."""
_HOUR_S = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class StageForecast:
    """How long one stage takes, in seconds.

    Attributes:
        offering_s: Until its last device is offered the release, at the plan's pace.
    """

    name: str
    members: int
    offering_s: float
    soak_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Duration:
    """How long a rollout takes at best: no device waits, nobody is asked, every stage passes.

    Attributes:
        update_s: Of one device from offer to success, the median of earlier rollouts; None where there are none.
        site_s: What ``site_bytes_per_hour`` takes at the largest site; 0 without it.
        total_s: None where neither pace, history nor budget says anything.
    """

    stages: tuple[StageForecast, ...]
    update_s: float | None
    site_s: float
    total_s: float | None


def expect_duration(
    spec: RolloutSpec, sizes: Sequence[int], *, largest_site: int, image_bytes: int, update_s: float | None
) -> Duration:
    """Add up pace, updates and soaks, stage after stage; a site's budget may take longer than all of that.

    Args:
        spec: The plan.
        sizes: Members of each stage.
        largest_site: Members at the site that has the most.
        image_bytes: What the release installs on a device.
        update_s: Of one device from offer to success, from history.
    """
    offering = _offering(spec, sizes)
    stages = tuple(
        StageForecast(name=stage.name, members=size, offering_s=offer_s, soak_s=soak_s(spec, stage))
        for stage, size, offer_s in zip(spec.stages, sizes, offering, strict=True)
    )
    budget = spec.site_bytes_per_hour
    site_s = 0.0 if budget is None else math.ceil(largest_site / max(1, budget // max(1, image_bytes)) - 1) * _HOUR_S
    known = update_s is not None or spec.pace_per_minute is not None or budget is not None
    one_after_another = sum(stage.offering_s + stage.soak_s + (update_s or 0.0) for stage in stages)
    total = max(one_after_another, site_s + (update_s or 0.0)) if known else None
    return Duration(stages=stages, update_s=update_s, site_s=site_s, total_s=total)


def _offering(spec: RolloutSpec, sizes: Sequence[int]) -> Iterator[float]:
    """Seconds of each stage's offers. A pace that grows with successes is taken to grow with offers."""
    rate, growth, done = spec.pace_per_minute, spec.pace_growth, 0
    for size in sizes:
        spent, left = 0.0, size
        while left and rate is not None:
            step = left
            if growth is not None and rate < growth.max_per_minute:
                step = min(left, growth.every - done % growth.every)
            spent += step * 60 / rate
            left -= step
            done += step
            if growth is not None and done % growth.every == 0:
                rate = min(rate * growth.factor, growth.max_per_minute)
        yield spent


def find_warnings(
    spec: RolloutSpec, sizes: Sequence[int], duration: Duration, *, silent: int, now: datetime
) -> list[str]:
    """What is allowed, and perhaps not meant; each a sentence with its figures.

    Args:
        spec: The plan.
        sizes: Members of each stage.
        duration: Of this plan.
        silent: Members that have been silent for too long.
        now: When it would begin.
    """
    members = sum(sizes)
    found = [*_gaps(spec), *_samples(spec, sizes)]
    if spec.pace_per_minute is None and members > LARGE:
        found.append(f"no pace: up to {max(sizes)} devices of a stage are offered the release as fast as they ask")
    if spec.emergency:
        found += _skipped(spec)
    if len(sizes) == 1 and members > 1:
        found.append(
            f"one stage: all {members} devices may have failed before a rule halts; a canary stage costs little"
        )
    if silent:
        found.append(f"{silent} of {members} members are silent: stages wait for none of them, the rollout's end does")
    begin = max(now, spec.start_at or now)
    if spec.end_at is not None and duration.total_s is not None:
        ahead_s = (spec.end_at - begin).total_seconds()
        if ahead_s < duration.total_s:
            found.append(
                f"end_at comes after {_words(ahead_s)}, the rollout takes {_words(duration.total_s)} at best; "
                f"then it is: {spec.at_end}"
            )
    return found


def _gaps(spec: RolloutSpec) -> Iterator[str]:
    """Shares of failures at which a stage neither passes nor halts."""
    ratios = [rule.ratio for rule in spec.halt_rules if rule.ratio is not None and rule.classes >= DEFAULT_CLASSES]
    halts = min([spec.halt_ratio, *ratios])
    alike: dict[float, list[str]] = {}
    for stage in spec.stages:
        alike.setdefault(spec.opening(stage).success_ratio, []).append(stage.name)
    for success, names in alike.items():
        passes = 1 - success
        if halts - passes > 1e-9:
            where = "a stage" if len(alike) == 1 else f"stage {', '.join(names[:3])}"
            yield (
                f"{where} with more than {passes:.2%} and less than {halts:.2%} failures neither passes nor halts; "
                "it waits for a person"
            )


def _samples(spec: RolloutSpec, sizes: Sequence[int]) -> Iterator[str]:
    for stage, size in zip(spec.stages, sizes, strict=True):
        for name, sample in (("min_sample", spec.opening(stage).min_sample), ("halt_min_sample", spec.halt_min_sample)):
            if sample > size:
                yield f"stage {stage.name}: {name} {sample} is more than its {size} members; all of them count"


def _skipped(spec: RolloutSpec) -> Iterator[str]:
    soaks = [stage.name for stage in spec.stages if spec.opening(stage).soak_s]
    asked = [stage.name for stage in spec.stages if spec.opening(stage).approval]
    for what, names in (("soak", soaks), ("approval", asked)):
        if names:
            yield f"emergency: skips the {what} of {len(names)} stages ({', '.join(names[:3])})"
    yield "emergency: goes before every other rollout, and does not wait for the plan's windows"


def _words(seconds: float) -> str:
    return str(timedelta(seconds=max(0, round(seconds))))
