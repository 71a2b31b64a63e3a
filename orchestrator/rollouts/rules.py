"""When may a stage pass, when must a rollout halt.

Pure rules over counts. All counts are devices. Ratios are over *finished* devices: one that waits, declined or was
cancelled proves nothing. Minimum samples are capped to what the stage can still deliver, so that a canary of two is
judged after two. What a person has seen when resuming from a halt counts no more.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from orchestrator.model.assignment import EXCLUDED
from orchestrator.model.failure import DEFAULT_CLASSES, FAILED_STATES, KEY, VERDICT, FailureClass, is_of
from orchestrator.model.plan import HALT_SAMPLE, HaltRule, RolloutSpec, StageSpec
from protocol.states import FINISHED, OUTCOMES, State
from protocol.status_messages import RuleFigure

_Z = 1.959964
_SUCCEEDED = f"state:{State.SUCCEEDED}"
_DECLINED = f"state:{State.DECLINED}"
_OVER = [f"state:{state}" for state in OUTCOMES - FINISHED] + [f"state:{EXCLUDED}"]
_JUDGED = (_SUCCEEDED, _DECLINED)


@dataclass(frozen=True, slots=True, kw_only=True)
class StageCounts:
    """What a stage's devices have come to.

    Attributes:
        succeeded, declined: Without those that a person has acknowledged, as everything here.
        failures: By counter ``failed:OUTCOME:CAUSE``, verdicts for want of an outcome included.
        unfinishable: Declined, cancelled, expired, superseded, excluded.
        acknowledged: Finished devices that are left out of the rules for that reason.
    """

    name: str
    members: int
    succeeded: int = 0
    declined: int = 0
    failures: Mapping[str, int] = field(default_factory=dict)
    unfinishable: int = 0
    acknowledged: int = 0

    @property
    def failed(self) -> int:
        """Failures of every class."""
        return sum(self.failures.values())

    @property
    def finished(self) -> int:
        """Devices that prove something."""
        return self.succeeded + self.failed

    @property
    def can_finish(self) -> int:
        """Finished devices that this stage can have at most."""
        return max(0, self.members - self.unfinishable - self.acknowledged)

    def failed_as(self, classes: frozenset[FailureClass]) -> int:
        """Failures that belong to one of these classes, each device once."""
        if classes == DEFAULT_CLASSES:
            return self.failed
        found = sum(n for key, n in self.failures.items() if is_of(key, classes))
        return found + (self.declined if FailureClass.DECLINED in classes else 0)

    def judged(self, classes: frozenset[FailureClass]) -> int:
        """Devices that a share of these classes is taken of."""
        return self.finished + (self.declined if FailureClass.DECLINED in classes else 0)


def judged_keys(counts: Mapping[str, int]) -> dict[str, int]:
    """The counters that a person acknowledges when resuming: everything that rules are judged on."""
    return {key: n for key, n in counts.items() if n and (key.startswith(KEY) or key in _JUDGED)}


def still_acknowledged(
    seen: Mapping[int, Mapping[str, int]], counts: Mapping[int, Mapping[str, int]]
) -> dict[int, dict[str, int]]:
    """What was acknowledged and is still so, by stage.

    A failure that was only presumed is gone once the device speaks. What it then says was acknowledged by nobody: a
    failure counts, and the place that it leaves must not swallow another device's.
    """
    return {
        stage: {key: min(n, counts.get(stage, {}).get(key, 0)) for key, n in keys.items()}
        for stage, keys in seen.items()
    }


def stage_counts(
    name: str, members: int, counts: Mapping[str, int], acknowledged: Mapping[str, int] | None = None
) -> StageCounts:
    """Sum the counters of one stage.

    Args:
        counts: By key of ``model.assignment.count_keys``.
        acknowledged: Those of ``judged_keys`` that a person has seen when resuming.
    """
    seen = acknowledged or {}
    news = {key: max(0, n - seen.get(key, 0)) for key, n in judged_keys(counts).items()}
    finished = counts.get(_SUCCEEDED, 0) + sum(n for key, n in counts.items() if key.startswith(KEY))
    failures = {key: n for key, n in news.items() if n and key.startswith(KEY)}
    left = news.get(_SUCCEEDED, 0) + sum(failures.values())
    return StageCounts(
        name=name,
        members=members,
        succeeded=news.get(_SUCCEEDED, 0),
        declined=news.get(_DECLINED, 0),
        failures=failures,
        unfinishable=sum(counts.get(key, 0) for key in _OVER),
        acknowledged=finished - left,
    )


def total_counts(stages: Sequence[StageCounts]) -> StageCounts:
    """The rollout as a whole."""
    failures: dict[str, int] = {}
    for stage in stages:
        for key, n in stage.failures.items():
            failures[key] = failures.get(key, 0) + n
    return StageCounts(
        name="",
        members=sum(stage.members for stage in stages),
        succeeded=sum(stage.succeeded for stage in stages),
        declined=sum(stage.declined for stage in stages),
        failures=failures,
        unfinishable=sum(stage.unfinishable for stage in stages),
        acknowledged=sum(stage.acknowledged for stage in stages),
    )


def success_rule(counts: StageCounts, spec: RolloutSpec, stage: StageSpec | None = None) -> RuleFigure:
    """Whether enough of the stage's finished devices succeeded.

    A stage in which nothing can finish proves nothing and does not pass, unless a person acknowledged what did.
    """
    limit, wanted, *_ = spec.opening(stage)
    floor = 0 if counts.acknowledged else 1
    sample = max(floor, min(wanted, counts.can_finish))
    ratio = counts.succeeded / counts.finished if counts.finished else 1.0
    met = counts.finished >= sample and ratio >= limit
    return RuleFigure(
        rule="success",
        numerator=counts.succeeded,
        denominator=counts.finished,
        sample=sample,
        limit=limit,
        met=met,
        **_interval(counts.succeeded, counts.finished),
        text=f"stage {counts.name}: {counts.succeeded} of {counts.finished} finished succeeded, "
        f"expected {_percent(limit)} of at least {sample}",
    )


def failure_rule(counts: StageCounts, spec: RolloutSpec) -> RuleFigure:
    """Whether too many of the stage's finished devices failed, by the plan's own share; met means halt."""
    return _share(counts, DEFAULT_CLASSES, spec.halt_ratio, spec.halt_min_sample, "failures")


def halt_figures(stages: Sequence[tuple[StageSpec, StageCounts]], spec: RolloutSpec) -> list[tuple[int, RuleFigure]]:
    """Every halt rule as it stands, by position of its stage; those of the whole rollout stand with the last one.

    Args:
        stages: The begun ones, from the first.
    """
    found: list[tuple[int, RuleFigure]] = []
    for position, (stage, counts) in enumerate(stages):
        found.append((position, failure_rule(counts, spec)))
        rules = [*(rule for rule in spec.halt_rules if rule.scope == "stage"), *stage.halt_rules]
        found += [(position, _judge(rule, counts)) for rule in rules]
    if not stages:
        return found
    whole, last = total_counts([counts for _, counts in stages]), len(stages) - 1
    rules = [rule for rule in spec.halt_rules if rule.scope == "rollout"]
    found += [(last, _judge(rule, whole)) for rule in rules]
    if spec.halt_count is not None:
        found.append((last, _count(whole, DEFAULT_CLASSES, spec.halt_count, "failure_count")))
    return found


def _judge(rule: HaltRule, counts: StageCounts) -> RuleFigure:
    named = "failures" if rule.classes == DEFAULT_CLASSES else "+".join(sorted(rule.classes))
    if rule.count is not None:
        return _count(counts, rule.classes, rule.count, f"{named}_count")
    if rule.ratio is None:
        raise ValueError("a halt rule has a ratio or a count")
    return _share(counts, rule.classes, rule.ratio, rule.min_sample or HALT_SAMPLE, named)


def _share(
    counts: StageCounts, classes: frozenset[FailureClass], limit: float, min_sample: int, rule: str
) -> RuleFigure:
    failed, of = counts.failed_as(classes), counts.judged(classes)
    can = counts.can_finish + (counts.declined if FailureClass.DECLINED in classes else 0)
    sample = max(1, min(min_sample, can))
    met = of >= sample and failed > 0 and failed / of >= limit
    return RuleFigure(
        rule=rule,
        numerator=failed,
        denominator=of,
        sample=sample,
        limit=limit,
        met=met,
        **_interval(failed, of),
        text=f"{_where(counts)}: {failed} of {of} finished {_words(classes)}, "
        f"halts at {_percent(limit)} of at least {sample}",
    )


def _count(counts: StageCounts, classes: frozenset[FailureClass], limit: int, rule: str) -> RuleFigure:
    failed = counts.failed_as(classes)
    return RuleFigure(
        rule=rule,
        numerator=failed,
        denominator=counts.judged(classes),
        sample=1,
        limit=limit,
        met=failed >= limit,
        text=f"{_where(counts)}: {failed} {_words(classes)}, halts at {limit}",
    )


def _interval(part: int, of: int) -> dict[str, float]:
    """Wilson's interval for a share, at 95 %: right for few devices too, where the usual one is not."""
    if not of:
        return {}
    share, z2 = part / of, _Z * _Z
    middle = share + z2 / (2 * of)
    half = _Z * math.sqrt(share * (1 - share) / of + z2 / (4 * of * of))
    whole = 1 + z2 / of
    return {"low": round(max(0.0, (middle - half) / whole), 4), "high": round(min(1.0, (middle + half) / whole), 4)}


def _where(counts: StageCounts) -> str:
    return f"stage {counts.name}" if counts.name else "rollout"


def _words(classes: Iterable[FailureClass]) -> str:
    named = frozenset(classes)
    return "failed" if named == DEFAULT_CLASSES else "failed as " + " or ".join(sorted(named))


def _percent(ratio: float) -> str:
    return f"{ratio * 100:g}%"


_PROVISIONAL = KEY + VERDICT


def is_terminal_count(key: str) -> bool:
    """Whether devices under this counter have nothing left to do: a state that is an end."""
    state = key.removeprefix("state:")
    return key.startswith("state:") and (state in OUTCOMES or state in FAILED_STATES or state == EXCLUDED)


def provisional(counts: Mapping[str, int]) -> int:
    """Devices that are judged for want of an outcome; they count as finished, and may still say otherwise."""
    return sum(n for key, n in counts.items() if key.startswith(_PROVISIONAL))
