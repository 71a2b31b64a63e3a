"""When may a stage pass, when must a rollout halt.

Pure rules over counts. All counts are devices. Ratios are over *finished* devices: one that waits, declined or was
cancelled proves nothing. Minimum samples are capped to what the stage can still deliver, so that a canary of two is
judged after two.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from orchestrator.model.assignment import EXCLUDED
from orchestrator.model.plan import RolloutSpec
from protocol.states import FAILURES, FINISHED, OUTCOMES, State
from protocol.status_messages import RuleFigure


@dataclass(frozen=True, slots=True, kw_only=True)
class StageCounts:
    """What a stage's devices have come to.

    Attributes:
        failed, finished: Without those that a person has acknowledged.
        acknowledged: Finished devices that are left out of the rules for that reason.
        unfinishable: Declined, cancelled, expired, superseded, excluded.
    """

    name: str
    members: int
    succeeded: int = 0
    failed: int = 0
    finished: int = 0
    unfinishable: int = 0
    acknowledged: int = 0

    @property
    def can_finish(self) -> int:
        """Finished devices that this stage can have at most."""
        return max(0, self.members - self.unfinishable - self.acknowledged)


def stage_counts(
    name: str, members: int, counts: Mapping[str, int], acknowledged: tuple[int, int] = (0, 0)
) -> StageCounts:
    """Sum the counters of one stage.

    Args:
        counts: By key of ``model.assignment.count_keys``.
        acknowledged: (failed, finished) that a person has seen when resuming.
    """
    failed, finished = _sum(counts, FAILURES), _sum(counts, FINISHED)
    seen_failed, seen_finished = acknowledged
    return StageCounts(
        name=name,
        members=members,
        succeeded=finished - failed - (seen_finished - seen_failed),
        failed=failed - seen_failed,
        finished=finished - seen_finished,
        unfinishable=_sum(counts, OUTCOMES - FINISHED) + counts.get(f"state:{EXCLUDED}", 0),
        acknowledged=seen_finished,
    )


def success_rule(counts: StageCounts, spec: RolloutSpec) -> RuleFigure:
    """Whether enough of the stage's finished devices succeeded.

    A stage in which nothing can finish proves nothing and does not pass, unless a person acknowledged what did.
    """
    floor = 0 if counts.acknowledged else 1
    sample = max(floor, min(spec.min_sample, counts.can_finish))
    ratio = counts.succeeded / counts.finished if counts.finished else 1.0
    met = counts.finished >= sample and ratio >= spec.success_ratio
    return RuleFigure(
        rule="success",
        numerator=counts.succeeded,
        denominator=counts.finished,
        sample=sample,
        limit=spec.success_ratio,
        met=met,
        text=f"stage {counts.name}: {counts.succeeded} of {counts.finished} finished succeeded, "
        f"expected {_percent(spec.success_ratio)} of at least {sample}",
    )


def failure_rule(counts: StageCounts, spec: RolloutSpec) -> RuleFigure:
    """Whether too many of the stage's finished devices failed; met means halt."""
    sample = max(1, min(spec.halt_min_sample, counts.can_finish))
    ratio = counts.failed / counts.finished if counts.finished else 0.0
    met = counts.finished >= sample and counts.failed > 0 and ratio >= spec.halt_ratio
    return RuleFigure(
        rule="failures",
        numerator=counts.failed,
        denominator=counts.finished,
        sample=sample,
        limit=spec.halt_ratio,
        met=met,
        text=f"stage {counts.name}: {counts.failed} of {counts.finished} finished failed, "
        f"halts at {_percent(spec.halt_ratio)} of at least {sample}",
    )


def count_rule(stages: list[StageCounts], spec: RolloutSpec) -> RuleFigure | None:
    """Whether the whole rollout has too many failures; None where there is no such limit."""
    if spec.halt_count is None:
        return None
    failed = sum(stage.failed for stage in stages)
    return RuleFigure(
        rule="failure_count",
        numerator=failed,
        denominator=sum(stage.finished for stage in stages),
        sample=1,
        limit=spec.halt_count,
        met=failed >= spec.halt_count,
        text=f"rollout: {failed} failed, halts at {spec.halt_count}",
    )


def _sum(counts: Mapping[str, int], states: frozenset[State]) -> int:
    return sum(counts.get(f"state:{state}", 0) for state in states)


def _percent(ratio: float) -> str:
    return f"{ratio * 100:g}%"
